"""Selective Attribute Suppression against its explicit N x N projector."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from privdiff_infer.errors import OptionError
from privdiff_infer.model.guidance import Guidance
from privdiff_infer.model.sas import SASMode, SASSettings, suppress, suppress_values

CLASSES = (8, 5, 2)


def softmax_maps(locations: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    maps = [
        (scale * torch.randn(2, 3, locations, count, generator=generator)).softmax(-1)
        for count in CLASSES
    ]
    return torch.cat(maps, dim=-1)


def attention_output(locations: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(2, 3, locations, 7, generator=generator)


def explicit_projector(maps: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    maps, eps = maps.double(), eps.double()
    classes, locations = maps.shape[-1], maps.shape[-2]
    damped = maps.mT @ maps + eps[..., None, None] * torch.eye(classes, dtype=torch.double)
    return torch.eye(locations, dtype=torch.double) - maps @ torch.linalg.inv(damped) @ maps.mT


def centered(maps: torch.Tensor) -> torch.Tensor:
    return maps - maps.mean(dim=-2, keepdim=True)


def relative_eps(maps: torch.Tensor, eps_rel: float) -> torch.Tensor:
    return eps_rel * maps.double().square().sum((-2, -1)) / maps.shape[-1]


@given(seed=st.integers(0, 1000), locations=st.sampled_from([64, 100, 256]))
@hypothesis_settings(max_examples=15, deadline=None)
def test_cheap_centered_form_equals_the_explicit_projector(seed: int, locations: int) -> None:
    maps, output = softmax_maps(locations, seed), attention_output(locations, seed)
    projector = explicit_projector(centered(maps), relative_eps(centered(maps), 1e-3))
    expected = projector @ output.double()
    expected *= output.double().square().mean((-2, -1), keepdim=True).sqrt() / (
        expected.square().mean((-2, -1), keepdim=True).sqrt() + 1e-6
    )

    actual = suppress(output, maps, len(CLASSES), SASSettings())

    torch.testing.assert_close(actual.double(), expected, atol=2e-4, rtol=1e-3)


@given(seed=st.integers(0, 1000))
@hypothesis_settings(max_examples=10, deadline=None)
def test_cheap_paper_form_equals_the_explicit_projector(seed: int) -> None:
    maps, output = softmax_maps(64, seed), attention_output(64, seed)
    projector = explicit_projector(maps, torch.tensor(1e-3).expand(2, 3))
    expected = projector @ output.double()
    expected = torch.nn.functional.layer_norm(expected, expected.shape[-1:])

    actual = suppress(output, maps, len(CLASSES), SASSettings(mode=SASMode.PAPER))

    torch.testing.assert_close(actual.double(), expected, atol=2e-3, rtol=1e-2)


def projected(output: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return P applied to `output` by `suppress`, without the rescaling of mode `centered`.

    A direction that no map contains passes P as it is, so what comes back of it is the rescaling.
    """
    everything = torch.cat((maps, torch.ones_like(maps[..., :1])), dim=-1)
    left, _, _ = torch.linalg.svd(everything)  # columns beyond the rank are orthogonal to all maps
    witness = left[..., -1:]

    kept = suppress(torch.cat((output, witness), dim=-1), maps, len(CLASSES), SASSettings())

    scale = (kept[..., -1:] * witness).sum(-2, keepdim=True)
    return kept[..., :-1] / scale


def test_what_is_applied_is_symmetric_with_eigenvalues_between_0_and_1() -> None:
    basis = torch.eye(64).expand(2, 3, 64, 64)

    projector = projected(basis, softmax_maps(64, seed=3))
    eigenvalues = torch.linalg.eigvalsh(projector)

    torch.testing.assert_close(projector, projector.mT, atol=1e-5, rtol=0)
    assert eigenvalues.min() >= -1e-5
    assert eigenvalues.max() <= 1 + 1e-5
    assert (eigenvalues < 0.1).sum(-1).min() >= sum(CLASSES) - len(CLASSES) - 2


def test_the_sensitive_maps_themselves_are_removed() -> None:
    maps = softmax_maps(256, seed=4)
    pattern = centered(maps)
    unscaled = SASSettings(eps_rel=1e-3)

    # A large constant offset is kept by the projection and so fixes the rescaling.
    offset = 100.0
    kept = suppress(pattern + offset, maps, len(CLASSES), unscaled)
    remaining = centered(kept).norm() / pattern.norm()

    assert remaining < 1e-2


def test_centered_mode_keeps_the_spatial_mean_and_row_sums() -> None:
    diagnostic = attention_output(64, seed=5).softmax(-1)

    kept = projected(diagnostic, softmax_maps(64, seed=5))

    assert not torch.allclose(kept, diagnostic, atol=1e-2)
    torch.testing.assert_close(kept.sum(-1), torch.ones(2, 3, 64), atol=1e-5, rtol=0)
    torch.testing.assert_close(kept.mean(-2), diagnostic.mean(-2), atol=1e-5, rtol=0)


def test_paper_mode_deletes_the_spatial_mean_as_the_literal_equation_does() -> None:
    maps, output = softmax_maps(256, seed=6), attention_output(256, seed=6)
    same_everywhere = torch.arange(7.0)  # varies over the channels, so no LayerNorm hides it
    paper = SASSettings(mode=SASMode.PAPER)

    plain = suppress(output, maps, len(CLASSES), paper)
    shifted = suppress(output + same_everywhere, maps, len(CLASSES), paper)

    torch.testing.assert_close(shifted, plain, atol=2e-2, rtol=0)


@pytest.mark.parametrize("cap", [0.0, 0.9 / 64])
def test_rank_cap_below_one_direction_removes_nothing(cap: float) -> None:
    maps, output = softmax_maps(64, seed=13), attention_output(64, seed=13)

    kept = suppress(output, maps, len(CLASSES), SASSettings(rank_cap=cap))

    torch.testing.assert_close(kept, output)


def test_rank_cap_removes_only_the_strongest_directions() -> None:
    locations, cap = 64, 5
    maps, output = softmax_maps(locations, seed=7), attention_output(locations, seed=7)
    settings_capped = SASSettings(rank_cap=cap / locations)
    left, values, _ = torch.linalg.svd(centered(maps).double(), full_matrices=False)
    eps = relative_eps(centered(maps), 1e-3)[..., None]
    strongest = left[..., :cap]
    weight = values[..., :cap] ** 2 / (values[..., :cap] ** 2 + eps)
    expected = output.double() - strongest @ (weight[..., None] * (strongest.mT @ output.double()))
    expected *= output.double().norm(dim=(-2, -1), keepdim=True) / expected.norm(
        dim=(-2, -1), keepdim=True
    )

    actual = suppress(output, maps, len(CLASSES), settings_capped)

    torch.testing.assert_close(actual.double(), expected, atol=2e-4, rtol=1e-3)


def test_strength_zero_returns_the_very_same_tensor() -> None:
    output = attention_output(64, seed=8)

    assert suppress(output, softmax_maps(64, 8), 3, SASSettings(strength=0.0)) is output


def test_output_keeps_its_energy_per_head() -> None:
    maps, output = softmax_maps(64, seed=9), attention_output(64, seed=9)

    kept = suppress(output, maps, len(CLASSES), SASSettings())

    torch.testing.assert_close(
        kept.square().mean((-2, -1)), output.square().mean((-2, -1)), rtol=1e-4, atol=1e-5
    )


def test_uniform_maps_remove_nothing_and_do_not_fail() -> None:
    maps = torch.full((2, 3, 64, 15), 1 / 15)
    output = attention_output(64, seed=10)

    torch.testing.assert_close(suppress(output, maps, 3, SASSettings()), output)


def test_paper_mode_refuses_as_many_classes_as_locations() -> None:
    maps, output = softmax_maps(15, seed=11), attention_output(15, seed=11)

    with pytest.raises(OptionError, match="15 classes at 15 locations"):
        suppress(output, maps, len(CLASSES), SASSettings(mode=SASMode.PAPER))


@pytest.mark.parametrize("name", ["strength", "rank_cap"])
@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_a_setting_outside_0_to_1_is_an_error(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=rf"{value} is outside \[0, 1\]"):
        SASSettings(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"findings_weight": 0.9}, "findings weight 0.9 is below 1"),
        ({"attribute_weight": 1.1}, "attribute weight 1.1 is outside"),
        ({"interval": (0.8, 0.2)}, "not ordered within"),
        ({"interval": (-0.1, 0.5)}, "not ordered within"),
        ({"interval": (0.5, 1.1)}, "not ordered within"),
    ],
)
def test_guidance_out_of_range_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Guidance(**settings)


def test_gradients_are_finite_through_both_forms() -> None:
    for cap in (0.25, 0.05):
        maps = softmax_maps(64, seed=12).requires_grad_()
        output = attention_output(64, seed=12).requires_grad_()

        suppress(output, maps, 3, SASSettings(rank_cap=cap)).square().sum().backward()

        assert maps.grad is not None and maps.grad.isfinite().all()
        assert output.grad is not None and output.grad.isfinite().all()


@pytest.mark.parametrize("mode", [SASMode.PAPER, SASMode.CENTERED])
@pytest.mark.parametrize("locations", [64, 256])
def test_autocast_changes_nothing(mode: SASMode, locations: int) -> None:
    maps, output = softmax_maps(locations, 5), attention_output(locations, 5)
    expected = suppress(output, maps, len(CLASSES), SASSettings(mode=mode))

    with torch.autocast("cpu", torch.bfloat16):
        actual = suppress(output, maps, len(CLASSES), SASSettings(mode=mode))

    assert torch.equal(actual, expected)


def test_mode_combined_projects_as_centered_does() -> None:
    maps, output = softmax_maps(64, seed=14), attention_output(64, seed=14)

    combined = suppress(output, maps, len(CLASSES), SASSettings(mode=SASMode.COMBINED))

    assert torch.equal(combined, suppress(output, maps, len(CLASSES), SASSettings()))


def test_only_two_modes_need_an_eraser_of_the_context() -> None:
    erasing = {mode for mode in SASMode if mode.erases_context}

    assert erasing == {SASMode.CONTEXT, SASMode.COMBINED}


class TestValues:
    """Mode `value`: V_diag (I - B B^T) for an orthonormal basis B of the sensitive values."""

    settings = SASSettings(mode=SASMode.VALUE, rank_cap=1.0)
    width = 20

    def sensitive_values(self, seed: int) -> torch.Tensor:
        return torch.randn(
            3, sum(CLASSES), self.width, generator=torch.Generator().manual_seed(seed)
        )

    def test_values_that_are_projected_equal_an_output_that_is(self) -> None:
        sensitive = self.sensitive_values(seed=0)
        attention = softmax_maps(64, seed=0)[..., :7]
        values = torch.randn(2, 3, 7, self.width, generator=torch.Generator().manual_seed(1))
        basis = torch.linalg.qr(sensitive.mT)[0]  # (3, 20, 15)

        kept = suppress_values(attention @ values, sensitive, self.settings)

        expected = attention @ (values - values @ basis @ basis.mT)
        torch.testing.assert_close(kept, expected, atol=1e-5, rtol=1e-4)

    def test_the_sensitive_values_themselves_are_removed(self) -> None:
        sensitive = self.sensitive_values(seed=2)

        kept = suppress_values(sensitive[None], sensitive, self.settings)

        assert kept.norm() / sensitive.norm() < 1e-5

    def test_strength_is_the_part_that_is_removed(self) -> None:
        sensitive = self.sensitive_values(seed=3)
        half = SASSettings(mode=SASMode.VALUE, rank_cap=1.0, strength=0.5)

        kept = suppress_values(sensitive[None], sensitive, half)

        torch.testing.assert_close(kept[0], sensitive / 2, atol=1e-5, rtol=1e-4)

    def test_no_more_directions_are_removed_than_the_cap_allows(self) -> None:
        sensitive = self.sensitive_values(seed=4)
        everything = torch.eye(self.width).expand(1, 3, -1, -1)

        kept = suppress_values(everything, sensitive, SASSettings(mode=SASMode.VALUE))

        ranks = torch.linalg.matrix_rank(kept, atol=1e-4)
        assert (ranks == self.width - self.width // 4).all()

    def test_directions_beyond_the_rank_are_kept(self) -> None:
        one = self.sensitive_values(seed=5)[:, :1].expand(-1, sum(CLASSES), -1)
        everything = torch.eye(self.width).expand(1, 3, -1, -1)

        kept = suppress_values(everything, one, self.settings)

        assert (torch.linalg.matrix_rank(kept, atol=1e-4) == self.width - 1).all()

    @pytest.mark.parametrize("change", [{"strength": 0.0}, {"rank_cap": 0.0}])
    def test_nothing_is_removed_at_zero(self, change: dict[str, float]) -> None:
        output = attention_output(64, seed=6)
        sensitive = torch.randn(3, sum(CLASSES), 7, generator=torch.Generator().manual_seed(6))

        kept = suppress_values(output, sensitive, SASSettings(mode=SASMode.VALUE, **change))

        assert torch.equal(kept, output)
