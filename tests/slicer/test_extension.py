"""The extension as a package: what CMake installs, and what the catalogue of extensions reads."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slicer.fixtures import MODULE, ROOT

EXTENSION = ROOT / "slicer_extension"
CATEGORIES = {"Active Learning", "DICOM", "Informatics", "Utilities", "Image Synthesis"}
"""Of those that the catalogue knows, the ones that fit."""

BUNDLED = {
    "numpy",
    "requests",
    "pydicom",
    "slicer",
    "vtk",
    "qt",
    "ctk",
    "PrivDiffLib",
    "SampleData",
}
SCRIPTS = sorted((EXTENSION / "PrivDiff").rglob("*.py"))

needs_cmake = pytest.mark.skipif(not shutil.which("cmake"), reason="cmake is absent")


def configure(source: Path, build: Path) -> subprocess.CompletedProcess[str]:
    shim = ROOT / "tests" / "slicer" / "cmake"
    command = ["cmake", "-S", source, "-B", build, f"-DSlicer_DIR={shim}"]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path):
    """A copy of the extension that a test may break."""
    target = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(EXTENSION, target / "slicer_extension", ignore=ignored)
    shutil.copy(ROOT / "CMakeLists.txt", target)
    return target


@needs_cmake
def test_extension_configures_and_installs_every_file(copy, tmp_path):
    assert configure(copy, tmp_path / "build").returncode == 0
    install = ["cmake", "--install", str(tmp_path / "build"), "--prefix", str(tmp_path / "tree")]
    subprocess.run(install, check=True, capture_output=True)

    tree = tmp_path / "tree" / "lib" / "Slicer" / "qt-scripted-modules"
    installed = {path.relative_to(tree) for path in tree.rglob("*") if path.is_file()}
    source = copy / "slicer_extension" / "PrivDiff"
    present = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    assert present - installed == {
        Path("CMakeLists.txt"),
        Path("PrivDiffLib/privdiff_client/py.typed"),
    }


@needs_cmake
@pytest.mark.parametrize("name", ["PrivDiffLib/New.py", "Resources/UI/New.ui"])
def test_forgotten_file_is_found(copy, tmp_path, name):
    (copy / "slicer_extension" / "PrivDiff" / name).write_text("")

    assert "not listed" in configure(copy, tmp_path / "build").stderr


@needs_cmake
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("PrivDiffLib/Panel.py", "PrivDiffLib/Panels.py", "listed but missing"),
        ("WITH_GENERIC_TESTS", "WITH_TESTS", "WITH_TESTS"),
    ],
)
def test_mistake_in_the_list_is_found(copy, tmp_path, old, new, words):
    path = copy / "slicer_extension" / "PrivDiff" / "CMakeLists.txt"
    path.write_text(path.read_text().replace(old, new))

    assert words in configure(copy, tmp_path / "build").stderr


@needs_cmake
def test_missing_description_is_found(copy, tmp_path):
    path = copy / "CMakeLists.txt"
    path.write_text(path.read_text().replace("EXTENSION_DESCRIPTION", "EXTENSION_TEXT"))

    assert "EXTENSION_DESCRIPTION is not set" in configure(copy, tmp_path / "build").stderr


@needs_cmake
def test_address_of_the_repository_stands_in_one_place(copy, tmp_path):
    path = copy / "slicer_extension" / "PrivDiff.json"
    entry = json.loads(path.read_text())
    address = entry["scm_url"].removesuffix(".git")
    assert address not in (copy / "CMakeLists.txt").read_text()

    path.write_text(path.read_text().replace(address, "https://forge.test/SlicerPrivDiff"))
    told = configure(copy, tmp_path / "build").stdout

    assert "EXTENSION_HOMEPAGE: https://forge.test/SlicerPrivDiff\n" in told
    assert "EXTENSION_ICONURL: https://forge.test/SlicerPrivDiff/raw/" in told


def test_placeholder_of_the_address_stands_in_one_place_of_the_project():
    """Who publishes the project changes one line; the documentation says which."""
    folders = ("slicer_extension", "docs", "tests", "scripts", ".ci", "privdiff_infer")
    folders += ("monailabel_app", "training")
    files = [path for path in ROOT.glob("*") if path.is_file()]
    files += [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    kinds = {".py", ".json", ".md", ".txt", ".toml", ".ui", ".cmake", ".cff", ".yaml", ""}
    address = "example.org" + "/SlicerPrivDiff"

    counts = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count(address)
        for path in files
        if path.suffix in kinds and path.stat().st_size < 2**20 and not isBinary(path)
    }

    assert {name: count for name, count in counts.items() if count} == {
        "slicer_extension/PrivDiff.json": 1
    }
    document = (ROOT / "docs" / "how-to" / "slicer.md").read_text(encoding="utf-8")
    assert "slicer_extension/PrivDiff.json" in document


def isBinary(path: Path) -> bool:
    return b"\0" in path.read_bytes()[:8192]


def test_entry_of_the_catalogue_has_its_keys():
    path = EXTENSION / "PrivDiff.json"
    content = path.read_bytes()
    entry = json.loads(content)

    assert b"\r" not in content and not path.stem.startswith("Slicer")
    assert {"$schema", "category", "scm_url"} <= set(entry)
    optional = {"scm_revision", "build_dependencies", "build_subdirectory", "enabled", "tier"}
    assert set(entry) == {"$schema", "category", "scm_url", "dicom_support_rule"} | optional
    assert (ROOT / "slicer_extension" / entry["build_subdirectory"]).is_dir()
    assert entry["category"] in CATEGORIES and 1 <= entry["tier"] <= 5
    assert re.fullmatch(r"https://[^ ]+/SlicerPrivDiff\.git", entry["scm_url"])
    assert entry["dicom_support_rule"] == "Modality == 'DX' or Modality == 'CR'"
    assert f'"{entry["category"]}"' in (ROOT / "CMakeLists.txt").read_text()
    assert (ROOT / "LICENSE").is_file()


def test_messages_of_the_documentation_are_those_of_the_code():
    folders = (EXTENSION, ROOT / "monailabel_app", ROOT / "privdiff_infer")
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    # Messages are written over several lines of code.
    code = " ".join(path.read_text(encoding="utf-8") for path in sources)
    code = re.sub(r'"\s*\n\s*_?\(?f?"', "", code).lower()
    document = (ROOT / "docs" / "how-to" / "slicer.md").read_text(encoding="utf-8")

    messages = re.findall(r"^\| `([^`]+)` \|", document, re.MULTILINE)

    parts = [part.strip(" .,()") for message in messages for part in re.split(r"\.\.\.", message)]
    assert len(messages) > 10
    assert [part for part in parts if part.lower() not in code] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_of_python_3_9_and_import_what_slicer_has(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }

    assert names <= BUNDLED | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_nothing_runs_at_file_scope(path):
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef)

    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        isText = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert isinstance(node, allowed) or isText, ast.unparse(node)


@pytest.mark.parametrize("path", sorted((MODULE.parent / "PrivDiffLib").glob("*.py")), ids=str)
def test_examples_hold(path):
    name = "PrivDiffLib" if path.stem == "__init__" else f"PrivDiffLib.{path.stem}"

    assert doctest.testmod(importlib.import_module(name)).failed == 0
