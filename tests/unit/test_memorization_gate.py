"""No bundle leaves that gives its training patients away."""

from __future__ import annotations

from pathlib import Path

import pytest
from privdiff_training.evaluation.memorization import copies_among
from privdiff_training.finetuning.config import GateConfig
from privdiff_training.finetuning.memorization import (
    memorization_test,
    refuse_export,
    too_many_copies,
)

from privdiff_infer.errors import ExportRefused
from tests.unit.toy_people import people, taught_verifier

GATE = GateConfig(drawn=40)


@pytest.mark.parametrize(("copies", "fails"), [(0, False), (2, False), (3, False), (8, True)])
def test_a_few_copies_are_chance_and_many_are_memory(copies, fails):
    assert too_many_copies(copies, GATE) is fails


def test_images_that_are_training_images_fail_and_those_of_others_pass():
    verifier, training, strangers = taught_verifier(), people(40, 1), people(60, 2)
    remembered = training.pixels[:40].float() / 255
    noisy = (remembered + 0.01).clamp(0, 1)
    new_people = people(40, 3, images=1).pixels.float() / 255

    def copies(images):
        return round(copies_among(images, training, strangers, verifier).value * 40)

    assert copies(remembered) == copies(noisy) == 40
    assert copies(remembered.flip(-1)) == 40, "mirrored ones are found too"
    assert too_many_copies(copies(remembered), GATE)
    assert not too_many_copies(copies(new_people), GATE)


def test_the_test_looks_at_new_and_old(tiny_bundle):
    training, strangers = _on_the_grid(people(6, 1)), _on_the_grid(people(6, 2))
    config = GateConfig(drawn=8, members=4)
    found = memorization_test(
        tiny_bundle, tiny_bundle, training, strangers, taught_verifier(1), config, seed=0
    )
    assert found.new.drawn == 8
    assert found.new.copies == found.copies_of_base, "one bundle twice"
    assert found.passed is not too_many_copies(found.new.copies, config)


def _on_the_grid(images):
    return type(images)(images.cohort, images.pixels.repeat(1, 1, 2, 2))


def test_a_bundle_that_fails_is_refused_with_what_to_do():
    record = {"passed": False, "copies_of_base": 1, "new": {"copies": 30, "drawn": 40}}
    with pytest.raises(ExportRefused, match=r"30 of 40 .* copies") as caught:
        refuse_export(record, Path("my.private"))
    assert "private_training" in caught.value.remedy
    assert "personal data" in caught.value.problem
    refuse_export(record | {"passed": True}, Path("my.private"))
