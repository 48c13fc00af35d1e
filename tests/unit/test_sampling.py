"""What a step draws does not depend on the number of processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from privdiff_training.augmentation import Augmentation
from privdiff_training.impostors import impostors
from privdiff_training.sampling import Step, generator_for
from torch import Tensor, nn

from tests.unit.tiny import images
from tests.unit.workshop import Workshop, step_of


def step(index: int, count: int) -> Step:
    return Step(0, torch.arange(10), generator_for(0, "test"), index, count)


def joined(parts: list[Tensor]) -> Tensor:
    """Put the rows of all processes back into the order of the global batch."""
    whole = torch.empty(sum(map(len, parts)), *parts[0].shape[1:], dtype=parts[0].dtype)
    for index, part in enumerate(parts):
        whole[index :: len(parts)] = part
    return whole


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "draw",
    [
        lambda step: step.local(step.rows),
        lambda step: step.randn(10, 2),
        lambda step: step.rand(10),
        lambda step: step.seeds(),
    ],
)
def test_processes_share_out_what_one_process_draws(
    draw: Callable[[Step], Tensor], count: int
) -> None:
    parts = [draw(step(index, count)) for index in range(count)]

    assert torch.equal(joined(parts), draw(step(0, 1)))


def test_the_first_rows_of_the_batch_are_shared_out_as_the_batch_is() -> None:
    rows = [step(index, 3).local(torch.arange(10)) for index in range(3)]

    first = [rows[index][: step(index, 3).local_count(4)].tolist() for index in range(3)]

    assert first == [[0, 3], [1], [2]]


@pytest.mark.parametrize("change", [Augmentation(strong=True), impostors])
def test_what_becomes_of_an_image_does_not_depend_on_its_batch(
    change: Callable[[Tensor, Tensor], Tensor],
) -> None:
    batch, seeds = images(4), torch.tensor([5, 6, 7, 8])

    together = change(batch, seeds)

    assert torch.equal(change(batch[2:3], seeds[2:3]), together[2:3])
    assert not torch.equal(together, batch)


class Seen(Exception):
    """Carries what a network was given."""


class Witness(nn.Module):
    """Hands over its input instead of computing anything."""

    def forward(self, batch: Tensor) -> None:
        raise Seen(batch)


@pytest.mark.parametrize(("name", "groups"), [("identity", (4, 4)), ("reader", (8, 2))])
def test_the_networks_of_all_processes_see_what_that_of_one_process_sees(
    built: Workshop, name: str, groups: tuple[int, int]
) -> None:
    stage = built.stage(name)
    stage.networks[name] = Witness()

    def seen(index: int, count: int) -> Tensor:
        with pytest.raises(Seen) as caught:
            stage.loss(name, step_of(stage, name, part=(index, count)))
        batch: Tensor = caught.value.args[0]
        return batch

    alone = seen(0, 1).split(groups)
    parts = [seen(index, 2).split([size // 2 for size in groups]) for index in range(2)]

    for number in range(len(groups)):
        assert torch.equal(joined([part[number] for part in parts]), alone[number])
