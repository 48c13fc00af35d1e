"""The flow field: bounded, smooth, trained away from the original, and the same after a kill."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.evaluation.methods.flow_field import (
    NETWORK,
    FlowField,
    FlowFieldConfig,
    FlowFieldMethod,
    FlowFieldStage,
)
from privdiff_training.evaluation.methods.reference import Reference
from privdiff_training.loop import train
from privdiff_training.sampling import Share
from privdiff_training.stages.data import TrainingImages
from safetensors.torch import load_file
from torch import Tensor, nn

from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import SIZE, images
from tests.unit.workshop import step_of

TINY = FlowFieldConfig(
    steps=4, batch_size=4, checkpoint_every=2, side=32, widths=(4, 8), bound=0.1, smoothing=1.0
)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return read_manifest(write_cohort(tmp_path))


@pytest.fixture
def method(cohort: Cohort, tiny_bundle: Path, tmp_path: Path) -> FlowFieldMethod:
    reference = Reference(cohort, SIZE, tmp_path / "cache")
    return FlowFieldMethod(tiny_bundle, reference, TINY, tmp_path / "cache")


def stage_of(method: FlowFieldMethod, config: FlowFieldConfig) -> FlowFieldStage:
    reference = method.reference
    rows = torch.arange(len(reference.cohort))
    return FlowFieldStage(
        config,
        TrainingImages(reference.cohort, reference.pixels, [Share(rows, 1.0)], torch.device("cpu")),
        IdentityEmbedder.from_pretrained(method.bundle / "identity"),
        RadiographReader.from_pretrained(method.bundle / "reader"),
    )


def saturated(bound: float) -> FlowField:
    """Return a network that wants to move everything as far as it may, to and fro."""
    torch.manual_seed(0)
    network = FlowField(bound, smoothing=1.0, side=32, widths=(4, 8))
    for weight in network.unet.parameters():
        nn.init.normal_(weight, std=10.0)
    return network.eval()


@torch.no_grad()
def test_no_displacement_exceeds_the_bound() -> None:
    field = saturated(0.1).displacements(images(3))

    assert field.shape == (3, 2, 32, 32)
    assert field.abs().max() <= 0.1 * (1 + 1e-5)
    assert field.abs().max() > 0.05


@torch.no_grad()
def test_smoothing_evens_the_field_out() -> None:
    def roughness(smoothing: float) -> Tensor:
        torch.manual_seed(0)
        field = FlowField(0.1, smoothing, side=32, widths=(4, 8)).displacements(images(1))
        return field.diff(dim=-1).abs().mean() / field.abs().mean()

    assert roughness(4.0) < roughness(1.0) < roughness(0.1)


@torch.no_grad()
def test_an_even_field_moves_the_image_by_as_many_pixels() -> None:
    network = FlowField(bound=0.125, smoothing=1.0, side=32, widths=(4, 8)).eval()
    for weight in network.unet.parameters():
        nn.init.zeros_(weight)
    columns = torch.tensor([100.0, 0.0])  # the most along columns, nothing along rows
    last = [bias for bias in network.unet.parameters() if bias.shape == (2,)][-1]
    last.copy_(columns)
    source = images(1)

    moved = network(source)

    shift = round(0.125 * SIZE / 2)
    torch.testing.assert_close(moved[..., :-shift], source[..., shift:], atol=1e-4, rtol=0)


@torch.no_grad()
def test_shape_and_range_are_kept_for_images_of_any_size() -> None:
    deformed = saturated(0.1)(images(2))

    assert deformed.shape == images(2).shape
    assert 0 <= deformed.min() and deformed.max() <= 1
    assert not torch.allclose(deformed, images(2), atol=1e-2)


def test_training_lowers_its_loss(method: FlowFieldMethod, tmp_path: Path) -> None:
    config = TINY.model_copy(update={"steps": 30, "learning_rate": 0.02, "ema_decay": 0.5})
    stage = stage_of(method, config)
    held = step_of(stage, NETWORK, 1000)

    with torch.no_grad():
        before, _ = stage.loss(NETWORK, held)
    train(stage, tmp_path / "run", tmp_path / "out")
    with torch.no_grad():
        after, _ = stage.loss(NETWORK, held)

    assert float(after) < 0.98 * float(before)


def test_critics_do_not_change(method: FlowFieldMethod, tmp_path: Path) -> None:
    stage = stage_of(method, TINY)
    before = {name: weight.clone() for name, weight in stage.identity.state_dict().items()}

    train(stage, tmp_path / "run", tmp_path / "out")

    after = stage.identity.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


class Stopped(Exception):
    """Stands for a killed process."""


def test_a_training_that_was_killed_continues_as_if_it_had_not_been(
    method: FlowFieldMethod, tmp_path: Path
) -> None:
    def stop(step: int, figures: object) -> bool:
        if step == 3:
            raise Stopped
        return False

    train(stage_of(method, TINY), tmp_path / "whole", tmp_path / "one")
    with pytest.raises(Stopped):
        train(stage_of(method, TINY), tmp_path / "killed", tmp_path / "two", stop)
    train(stage_of(method, TINY), tmp_path / "killed", tmp_path / "two")

    one, two = (
        load_file(next((tmp_path / name).rglob("*.safetensors"))) for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


class TestMethod:
    def test_it_is_trained_once(self, method: FlowFieldMethod, cohort: Cohort) -> None:
        first = method.anonymize(cohort, images(2), 0)
        folder = method.cache_dir / f"flow-field-{method.fingerprint}"
        shutil.rmtree(folder / "run")  # a second training would start anew and make it again

        again = replace(method).anonymize(cohort, images(2), 1)

        assert torch.equal(first, again)
        assert not (folder / "run").exists()

    def test_name(self, method: FlowFieldMethod) -> None:
        assert (method.name, method.family, method.setting) == (
            "flow field 0.1",
            "flow field",
            "0.1",
        )

    @pytest.mark.parametrize("change", [{"bound": 0.2}, {"seed": 1}, {"steps": 5}, {"side": 16}])
    def test_every_key_that_decides_changes_the_fingerprint(
        self, method: FlowFieldMethod, change: dict[str, float]
    ) -> None:
        other = replace(method, config=TINY.model_copy(update=change))

        assert other.fingerprint != method.fingerprint

    def test_the_others_and_the_cache_do_not(self, method: FlowFieldMethod, tmp_path: Path) -> None:
        config = TINY.model_copy(update={"checkpoint_every": 1})
        other = replace(method, config=config, cache_dir=tmp_path / "other")

        assert other.fingerprint == method.fingerprint

    def test_other_reference_images_change_it(
        self, method: FlowFieldMethod, cohort: Cohort, tmp_path: Path
    ) -> None:
        fewer = Reference(Cohort(cohort.root, cohort.rows[:-1]), SIZE, tmp_path)

        assert replace(method, reference=fewer).fingerprint != method.fingerprint
