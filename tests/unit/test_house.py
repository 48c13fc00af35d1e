"""The rules of docs/explanation/architecture.md that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from privdiff_training.assemble import BundleConfig
from privdiff_training.clusters import ClustersConfig
from privdiff_training.config import load_config
from privdiff_training.finetuning.config import FinetuneConfig
from privdiff_training.reference import configuration_reference
from privdiff_training.stages.registry import CONFIGS

ROOT = Path(__file__).resolve().parents[2]


def imported_modules(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "privdiff_infer").rglob("*.py")), ids=str)
def test_library_imports_nothing_above_it(path):
    assert not {name for name in imported_modules(path) if name.startswith("privdiff_training")}


@pytest.mark.parametrize(
    "module",
    [
        "privdiff_infer",
        "privdiff_infer.cli",
        "privdiff_infer.radiograph",
        "privdiff_infer.model.bundle",
        "privdiff_training.cli",
        "monailabel_app.cli",
    ],
)
def test_import_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_torchvision_is_not_needed():
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import privdiff_infer.anonymizer, privdiff_training.stages.registry"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "training" / "configs").glob("*/*.yaml")), ids=lambda p: str(p)[-40:]
)
def test_configurations_are_understood(path):
    stage = yaml.safe_load(path.read_text()).get("stage")
    without_stage = {"bundle": BundleConfig, "clusters": ClustersConfig}
    load_config(path, CONFIGS[stage] if stage else without_stage[path.stem])


@pytest.mark.parametrize(
    "path", sorted((ROOT / "training" / "configs").glob("finetune*.yaml")), ids=lambda p: p.name
)
def test_configurations_of_fine_tuning_are_understood(path):
    load_config(path, FinetuneConfig)


def test_reference_of_configurations_is_up_to_date():
    written = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    assert written == configuration_reference(), "run `make docs-reference`"


def test_reference_of_commands_is_up_to_date(tmp_path):
    made = tmp_path / "cli.md"
    command = ["typer", "privdiff_infer.cli", "utils", "docs", "--name", "privdiff"]
    subprocess.run(
        [sys.executable, "-m", *command, "--output", str(made)], check=True, capture_output=True
    )
    written = ROOT / "docs" / "reference" / "cli.md"
    assert made.read_text() == written.read_text(), "run `make docs-reference`"


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
