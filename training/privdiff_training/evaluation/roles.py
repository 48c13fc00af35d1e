"""Who may see which patients in an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from privdiff_infer.errors import CohortError
from privdiff_training.cohort import Cohort, is_judging_patient, is_select_patient

GENERATOR_FOLDS = ("0", "1", "2")
ATTACKER_FOLD = "3"


@dataclass(frozen=True)
class Roles:
    """The rows of one data set by what they serve for; no patient has two roles.

    Where it is not certain whose an image is, as in the data of Kermany et al., one patient may
    stand in two folds: he is tested on, and nobody learns from him.

    Attributes
    ----------
    reference
        Originals that methods and attackers may both train on.
    attacker_train, attacker_select
        Where attackers train, and where they stop, orient their scores and set thresholds.
    test
        What figures are measured on.
    """

    reference: Cohort
    attacker_train: Cohort
    attacker_select: Cohort
    test: Cohort

    @classmethod
    def of(cls, cohort: Cohort, test_folds: Sequence[str]) -> Roles:
        """Give every row of a data set its role.

        Parameters
        ----------
        cohort
            Rows of one data set with their folds.
        test_folds
            A held-out fold; or folds of the generator, of which then only the select set is used.

        Raises
        ------
        CohortError
            If the cohort mixes data sets, the test folds are the attackers' or mix both kinds, or
            a role has no images.
        """
        if len({row.dataset for row in cohort}) != 1:
            raise CohortError("an evaluation needs the images of one data set", "name --dataset")
        of_generator = {fold in GENERATOR_FOLDS for fold in test_folds}
        if ATTACKER_FOLD in test_folds or len(of_generator) != 1:
            raise CohortError(
                f"fold {' and '.join(test_folds)} cannot be tested on",
                f"name folds out of {', '.join(GENERATOR_FOLDS)} or a held-out one; attackers "
                f"train on fold {ATTACKER_FOLD}",
            )
        choosing = of_generator == {True}
        test = cohort.where(
            lambda row: row.fold in test_folds and (not choosing or is_select_patient(row))
        )
        others = cohort.without_units_of(test)
        attackers = others.where(lambda row: row.fold == ATTACKER_FOLD)
        roles = cls(
            reference=others.without_units_of(attackers).where(
                lambda row: row.fold in GENERATOR_FOLDS and not is_select_patient(row)
            ),
            attacker_train=attackers.where(lambda row: not is_judging_patient(row)),
            attacker_select=attackers.where(is_judging_patient),
            test=test,
        )
        for name, rows in vars(roles).items():
            if not len(rows):
                raise CohortError(
                    f"no image has the role {name}", "give the manifest the folds 0 to 4"
                )
        return roles


def choosing_rows(cohort: Cohort) -> Cohort:
    """Return the rows of a data set that no part of a bundle learned of and choices may be made on.

    They are those of the select set and of the attackers' fold. What a bundle's risk is said to be
    is measured on others.
    """
    return cohort.where(
        lambda row: (
            row.fold == ATTACKER_FOLD or (row.fold in GENERATOR_FOLDS and is_select_patient(row))
        )
    )
