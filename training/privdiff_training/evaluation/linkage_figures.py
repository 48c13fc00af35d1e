"""From the scores of one attacker to the figures of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attack_record import LinkageFigures
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.evaluation.retrieval import retrieval
from privdiff_training.evaluation.roc import roc_curve
from privdiff_training.evaluation.verification_metrics import verification


def linkage_figures(
    cohort: Cohort,
    scores: Sequence[np.ndarray],
    kind: Linkage,
    seed: int,
    others: Cohort | None = None,
) -> LinkageFigures:
    """Measure one kind of linkage.

    Parameters
    ----------
    cohort
        Query i is made from, and gallery image i is, row i.
    scores
        Shape (queries, gallery) each, one per seed of the attacker and oriented; the gallery is
        the cohort, followed by `others` where given.
    kind
        Which pairs are positive.
    seed
        Of bootstrap and galleries.
    others
        Originals of further patients, which are searched too; they are no pairs of verification.
    """
    on_test = [matrix[:, : len(cohort)] for matrix in scores]
    verified = verification(cohort, on_test, kind, seed)
    return LinkageFigures(
        auc=verified.auc,
        folded_auc=verified.folded_auc,
        folded_auc_of_strangers=verified.folded_auc_of_strangers,
        tpr_at_fpr=verified.tpr_at_fpr,
        equal_error_rate=verified.equal_error_rate,
        auc_by_negatives=verified.auc_by_negatives,
        retrieval=retrieval(cohort, scores, kind, seed, others),
        roc=roc_curve(LinkageTrial(cohort, kind), on_test),
    )
