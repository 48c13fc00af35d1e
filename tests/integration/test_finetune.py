"""`privdiff finetune` as a user runs it: whole, killed and continued, in two processes, refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from privdiff_infer import PrivDiffPipeline
from privdiff_infer.model.bundle import verify_bundle
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from tests.integration.training_process import ENVIRONMENT
from tests.unit.tiny import TINY_RESNET
from tests.unit.workshop import weights

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COHORT = ROOT / "tests" / "data" / "cohort.csv"
QUICK = ROOT / "training" / "configs" / "finetune-quick.yaml"
SECONDS = 1500
"""For what takes a minute or two on a machine that does nothing else."""

TINY: dict[str, Any] = {
    "split": {"test_share": 0.25, "judge_share": 0.2, "least_patients": 6},
    "critics": {
        "reader": {"steps": 2, "batch_size": 4},
        "identity": {"steps": 2, "batch_size": 4},
    },
    "diffusion": {
        "steps": 12,
        "batch_size": 4,
        "learning_rate": 0.01,
        "rank": 2,
        "latent_versions": 1,
        "checkpoint_every": 2,
        "log_every": 1,
    },
    "suppression": {
        "steps": 2,
        "batch_size": 4,
        "rank": 2,
        "latent_versions": 1,
        "further": {"adversarial_rows": 4},
    },
    "judge": {
        "every": 4,
        "patience": 9,
        "images": 8,
        "inference_steps": 2,
        "tolerance": 1.0,
        "least_gain": 0.0,
    },
    "gate": {"drawn": 8, "members": 4, "largest_share": 0.99},
}


@dataclass
class Lab:
    """A place with a tiny bundle, a cohort and evaluators."""

    root: Path
    base: Path
    manifest: Path
    evaluators: Path

    def command(self, output: str, config: dict[str, Any] = TINY, *further: str) -> list[str]:
        path = self.root / f"{output}.yaml"
        path.write_text(yaml.safe_dump(config))
        return [
            *("-m", "privdiff_infer", "finetune", "--manifest", str(self.manifest)),
            *("--base", str(self.base), "--evaluators", str(self.evaluators)),
            *("--config", str(path), "-o", str(self.root / output), *further),
        ]

    def run(
        self, command: list[str], environment: dict[str, str] = ENVIRONMENT
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            env=environment,
            timeout=SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )


def write_people(folder: Path, patients: int = 20) -> Path:
    """Write two images each of people whose patterns have no likeness to each other."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    rows: list[tuple[object, ...]] = [("image", "patient_id", "findings", "sex", "age", "view")]
    for patient in range(patients):
        pattern = rng.random((6, 6))
        for number in range(2):
            coarse = (pattern + 0.3 * rng.random((6, 6))) / 1.3
            image = Image.fromarray((coarse * 255).astype(np.uint8))
            name = f"{patient}-{number}.png"
            image.resize((64, 64), Image.Resampling.BICUBIC).save(folder / name)
            finding = "Effusion" if patient % 2 else "No Finding"
            rows.append((name, f"p{patient}", finding, "FM"[patient % 2], 30 + patient, "PA"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Lab:
    root = tmp_path_factory.mktemp("lab")
    torch.manual_seed(7)
    IdentityEmbedder(TINY_RESNET, 32, 8, 4).save_pretrained(root / "evaluators" / "identity")
    RadiographReader(TINY_RESNET, 32).save_pretrained(root / "evaluators" / "reader")
    return Lab(root, tiny_bundle, write_people(root / "cohort"), root / "evaluators")


@pytest.fixture(scope="module")
def whole(lab: Lab) -> Path:
    """A bundle of a run that nothing disturbed."""
    done = lab.run(lab.command("whole"))
    assert done.returncode == 0, done.stderr[-4000:]
    assert "near copies" in done.stdout
    return lab.root / "whole"


def test_a_run_that_was_killed_ends_with_the_same_bundle(lab: Lab, whole: Path) -> None:
    command = [sys.executable, *lab.command("parts")]
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pointer = lab.root / "parts.private" / "legs" / "diffusion" / "run" / "LATEST"
    deadline = time.monotonic() + SECONDS
    while not pointer.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert pointer.exists()
    assert not (lab.root / "parts").exists(), "it was killed before the end"

    done = lab.run(lab.command("parts"))

    assert done.returncode == 0, done.stderr[-4000:]
    expected, found = weights(whole), weights(lab.root / "parts")
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    figures = [json.loads((b / "evaluation.json").read_text()) for b in (whole, lab.root / "parts")]
    assert figures[0]["figures"] == figures[1]["figures"]
    assert figures[0]["legs"] == figures[1]["legs"], "what the judges saw of the weights meanwhile"


def test_two_processes_train_what_one_trains(lab: Lab) -> None:
    # Critics and adversaries see the rows of a batch together, so their curves are not the same.
    config = {key: value for key, value in TINY.items() if key not in ("critics", "suppression")}
    one = lab.run(lab.command("one", config))
    assert one.returncode == 0, one.stderr[-4000:]
    environment = {**ENVIRONMENT, "ACCELERATE_USE_CPU": "true"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = lab.run([*launch, *lab.command("two", config)], environment)
    assert two.returncode == 0, two.stderr[-4000:]

    curves = [_curve(lab.root / f"{output}.private") for output in ("one", "two")]
    assert len(curves[0]) == 12
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    verify_bundle(lab.root / "two")


def _curve(private: Path) -> list[float]:
    events = EventAccumulator(str(private / "legs" / "diffusion" / "run" / "diffusion"))
    events.Reload()
    return [event.value for event in events.Scalars("denoising")]


def test_another_configuration_is_refused(lab: Lab, whole: Path) -> None:
    changed = {**TINY, "seed": 3}
    done = lab.run(lab.command("whole", changed))
    assert done.returncode == 2
    assert "another seed" in done.stderr


def test_a_failed_memorization_test_exports_nothing(lab: Lab, whole: Path) -> None:
    shutil.copytree(lab.root / "whole.private", lab.root / "leaky.private")
    path = lab.root / "leaky.private" / "memorization.json"
    record = json.loads(path.read_text())
    record["passed"] = False
    path.write_text(json.dumps(record))

    done = lab.run(lab.command("leaky"))

    assert done.returncode == 1
    assert "not exported" in done.stderr
    assert not (lab.root / "leaky").exists()


def test_a_cohort_that_cannot_be_used_gets_a_report_and_no_training(lab: Lab) -> None:
    config = {**TINY, "split": {"least_patients": 19}}
    done = lab.run(lab.command("few", config))

    private = lab.root / "few.private"
    assert done.returncode == 2
    assert "too few patients" in done.stderr
    assert "too few patients" in (private / "cohort.html").read_text()
    assert not (private / "legs").exists()


def test_private_training_reports_its_epsilon(lab: Lab) -> None:
    config = {key: TINY[key] for key in ("split", "judge", "gate")} | {
        "diffusion": {**TINY["diffusion"], "steps": 4},
        "private_training": {"epsilon": 5.0, "clip": 0.1},
    }
    done = lab.run(lab.command("private", config))
    assert done.returncode == 0, done.stderr[-4000:]

    info = verify_bundle(lab.root / "private")
    facts = info.metadata.fine_tuning
    assert facts is not None and facts.epsilon is not None
    assert 4 < facts.epsilon <= 5
    assert f"epsilon {facts.epsilon:.2f}" in done.stdout
    assert "epsilon" in (info.path / "README.md").read_text()
    secret = lab.root / "private.private" / "noise-seed"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_the_quick_configuration_runs_on_the_drawn_cohort(tmp_path: Path) -> None:
    output = tmp_path / "my-model"
    command = ["-m", "privdiff_infer", "finetune", "--manifest", str(COHORT), "-o", str(output)]
    done = subprocess.run(
        [sys.executable, *command, "--config", str(QUICK)],
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]

    info = verify_bundle(output)
    facts = info.metadata.fine_tuning
    assert facts is not None
    assert facts.base == "privdiff-cxr-256"
    assert facts.kept_steps.keys() == {"diffusion", "suppression"}
    assert {"same_image", "follow_up", "agreement"} <= facts.evaluation.keys()
    page = (output / "evaluation.html").read_text()
    card = (output / "README.md").read_text()
    assert "Side by side" in page and "Memorization test: passed" in card
    assert "nobody-" not in page + card, "no name of an image leaves with the bundle"
    assert "data:image" not in page, "no picture of a patient leaves with the bundle"
    PrivDiffPipeline.from_pretrained(output)
    assert stat.S_IMODE((tmp_path / "my-model.private").stat().st_mode) == 0o700
