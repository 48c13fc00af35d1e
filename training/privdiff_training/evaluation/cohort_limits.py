"""What a cohort is too poor to show, told before anything is measured on it."""

from __future__ import annotations

from collections.abc import Iterator

from privdiff_infer.vocabulary import Sex
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attacks.metadata import Fact, known_facts
from privdiff_training.evaluation.findings import MIN_POSITIVES, FindingsTrial
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial, Negatives
from privdiff_training.evaluation.roles import Roles
from privdiff_training.evaluation.subgroups import MIN_PATIENTS

SAME_IMAGE = "same-image linkage"
FOLLOW_UP = "follow-up linkage"
FLOORS = "floors of follow-up linkage"
FINDINGS = "findings"
SEX = "sex"
AGE = "age"
EXPOSURE = "exposure of single patients"


def floor_name(fact: Fact) -> str:
    """Return the name of the floor of attackers who are told one fact."""
    return f"floor of who is told the {fact.value}"


PART_OF: dict[Linkage, str] = {Linkage.SAME_IMAGE: SAME_IMAGE, Linkage.FOLLOW_UP: FOLLOW_UP}


def not_measurable(roles: Roles) -> dict[str, str]:
    """Return what the patients of an evaluation cannot show, with the reason.

    Parameters
    ----------
    roles
        Who is tested, and who is learned from.

    Returns
    -------
    dict of str to str
        Empty for a cohort that has everything.
    """
    return dict(_limits(roles))


def _limits(roles: Roles) -> Iterator[tuple[str, str]]:
    test = roles.test
    patients = len({row.unit for row in test})
    same_image = LinkageTrial(test, Linkage.SAME_IMAGE).patients
    if not same_image:
        yield SAME_IMAGE, "no test image has a stranger of its view to be told from"
    if same_image < MIN_PATIENTS:
        yield EXPOSURE, f"{same_image} test patients have strangers, {MIN_PATIENTS} are needed"
    if not LinkageTrial(test, Linkage.FOLLOW_UP).patients:
        why = "no test patient has two images, with strangers of the view of one of them"
        yield FOLLOW_UP, why
        yield FLOORS, why
    elif not LinkageTrial(_learned_from(roles), Linkage.FOLLOW_UP).patients:
        yield FLOORS, "no patient who is learned from has two images"
    if not FindingsTrial(test).indices:
        yield FINDINGS, f"no finding has {MIN_POSITIVES} positive test images and a negative one"
    told = known_facts(test), known_facts(_learned_from(roles))
    for fact in Fact:
        if not all(fact in facts for facts in told):
            yield floor_name(fact), f"no image tells the {fact.value}"
    sexes = {row.sex for row in test} - {None}
    if len(sexes) < len(Sex):
        yield SEX, _facts_words("sex", [row.sex for row in test])
    if all(row.age_years is None for row in test):
        yield AGE, "the age of no test patient is known"
    yield from _matched(test, patients)


def _learned_from(roles: Roles) -> Cohort:
    return Cohort(roles.reference.root, (*roles.reference.rows, *roles.attacker_train.rows))


def _matched(test: Cohort, patients: int) -> Iterator[tuple[str, str]]:
    """Yield the kinds of strangers that there are none of."""
    words = {
        Negatives.SAME_SEX: "strangers of the same sex",
        Negatives.SAME_SEX_AND_AGE: "strangers of the same sex and age",
    }
    for negatives, name in words.items():
        if not LinkageTrial(test, Linkage.SAME_IMAGE, negatives).patients:
            yield name, f"none of {patients} test patients has any of known sex and age"


def _facts_words(name: str, facts: list[Sex | None]) -> str:
    known = sum(fact is not None for fact in facts)
    return f"the {name} of {known} of {len(facts)} test images is known, and both are needed"
