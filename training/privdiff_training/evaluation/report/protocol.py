"""What a run did, in words that are made from its plan."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from privdiff_training.evaluation.attack_record import Exposure, Rung
from privdiff_training.evaluation.findings import MIN_POSITIVES
from privdiff_training.evaluation.plan import LINKED
from privdiff_training.evaluation.record import Evaluation, Size
from privdiff_training.evaluation.statistics import Estimate


def size_words(evaluation: Evaluation) -> str:
    """Say what a run of this size does."""
    plan = evaluation.plan
    rungs = ", ".join(rung.value for rung in Rung if rung in plan.rungs)
    test = f"at most {plan.test_images} test images" if plan.test_images else "all test images"
    done = [len(attack.seeds) for method in evaluation.methods for attack in method.attacks]
    at_most = "at most " if any(1 < seeds < plan.seeds for seeds in done) else ""
    return (
        f"attackers {rungs}; {at_most}{_count(plan.seeds, 'seed')} of each that learns, "
        f"{plan.baseline_seeds} against rivals, 1 of its control; {test}, "
        f"{_count(plan.test_versions, 'redrawn version')} of each"
    )


def protocol_words(evaluation: Evaluation) -> Iterator[str]:
    """Yield the rules that the figures of this run were made by."""
    plan = evaluation.plan
    yield (
        "The method under test sees pixels alone, without gates and repeated attempts; methods "
        "that are told a header or a report are rows of their own and count for no headline."
    )
    yield from _attackers(evaluation)
    if evaluation.size is Size.FULL:
        yield (
            "Plain diffusion, labels to image and the strongest setting of every baseline meet the "
            "attackers of the operating point. Other settings, ablations and what is told a report "
            "are one redrawn version of each image, met by attackers that train no network: linked "
            "at least so well. Where one who learns from no redrawn image reaches an AUC of "
            f"{LINKED:g} for the very image, that is known and no attacker learns from them; what "
            "is found of another image is a lower bound there."
        )
    yield (
        "Strangers are of the data set and view of the image that is sought. Each patient gives "
        "one positive pair, drawn anew in every resample; one draw of patients decides who is "
        "sought and who is a stranger."
    )
    yield (
        "Intervals are of 95 %, by a bootstrap over patients"
        + (", with the attacker's seeds as a second level" if plan.seeds > 1 else "")
        + "; differences are paired. Parts of few patients, or of all but few, have an interval "
        "that reaches as far as Wilson's at least."
    )
    yield (
        f"A finding counts with at least {MIN_POSITIVES} positive images. Labels of public sets "
        "are mined from texts."
    )
    yield (
        f"Two readers of findings were trained for {plan.reader_steps} steps, one on originals and "
        "one on redrawn images."
        if plan.reader_steps
        else "No reader of findings was trained on redrawn images."
    )
    yield (
        f"The generator drew {plan.drawn} images from noise, and its loss was taken on "
        f"{plan.members} training images and as many others."
        if plan.drawn
        else "Memorization of the generator was not looked for."
    )
    yield f"Number of the protocol: {evaluation.protocol}; figures of two numbers do not compare."


def exposure_words(exposure: Exposure) -> str:
    """Say how concentrated the risk is."""
    words = [
        f"{_percent(exposure.never)} of the patients are never found first, "
        f"{_percent(exposure.always)} always."
    ]
    if isfinite(exposure.of_the_most_exposed):
        words.append(
            f"The most exposed tenth of the patients has {exposure.of_the_most_exposed:.0%} of all "
            f"first places; it would have {exposure.of_the_most_exposed_by_chance:.0%} if as many "
            "were dealt out by lot."
        )
    if exposure.again is not None:
        words.append(
            f"Who is found first with one redrawn version is found first with another in "
            f"{exposure.again:.0%} of the cases."
        )
    return " ".join(words)


def _attackers(evaluation: Evaluation) -> Iterator[str]:
    plan = evaluation.plan
    if any(attack.training for method in evaluation.methods for attack in method.attacks):
        yield (
            "Networks that attackers train share no weights with what redraws or guides; who owns "
            "the tool also uses the tool's own. Attackers train on other patients "
            f"than they are tested on, with {_count(plan.versions, 'redrawn version')} of each "
            "image; early stopping and the orientation of scores are fixed on the attacker's "
            "selection patients."
        )
    else:
        yield (
            "No attacker of this run learned from redrawn images, so no goal of linkage can be met "
            "by it."
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _percent(share: Estimate) -> str:
    return f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"
