"""Groups of training patients with like findings, one of which takes the place of the patient.

What a redrawing that starts from a group owes to its source is the choice of the group:

Theorem. Let g be the function that assigns one of c groups to an image, let the output be drawn
from a distribution that depends on g(source) and on nothing else of the source, and let q_j be the
probability of group j among persons. Then, for every attacker, with any number of outputs of one
source and with knowledge of the groups, the weights and all training images:

1. I(output; source) <= log c nats.
2. Of n equally probable persons, of whom the attacker has the very image that was redrawn, the
   right one is named with probability at most c / n.
3. The probability that a pair (output, its source) scores above a pair (output, image of an
   independently drawn person), ties counted by half, is at most 1 - sum_j q_j^2 / 2.

Proof. Source -> g -> output is a Markov chain. (1) is the data processing inequality:
I(output; source) <= I(g; source) <= log c. For (2), give the attacker g itself, which makes the
output worthless: for each of the c values of g one name is right for at most one person of n. (3)
Given g of an output, its own source and the image of another person with the same g are equally
distributed as far as the output can tell, so such a pair is no better than a draw; a person drawn
independently has the same g with probability sum_j q_j^2; all other pairs are won at best. QED.

The bounds are reached where the group can be read off an output without error, as it nearly can
by who has the exemplars. So c is what a bundle decides its linkage by. Bound 3 compares images
with one output; over the outputs of many sources together, who knows that a group is rare gains a
little. What the theorem does not cover: the shape and size of the image, a marker that is drawn
anew, what a report tells the pipeline, and that the gates choose among drawings (see `gates`): one
of six pairs of attempt and strength is kept, or none, so that bounds 1 and 2 hold with 7 c for c
then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor
from torch.nn.functional import normalize

from privdiff_infer.model.strict_model import StrictModel
from privdiff_infer.vocabulary import FINDING_TOKENS


@dataclass(frozen=True)
class LinkageBound:
    """What no attacker exceeds; see the theorem of this module.

    Attributes
    ----------
    nats
        Information that an output holds about its source.
    rank_one
        Probability that the right one of n persons is named.
    pair_auc
        Of telling an output and its source from an output and another person's image.
    """

    nats: float
    rank_one: float
    pair_auc: float


class PatientClusters(StrictModel, ConfigMixin):
    """The groups of a bundle: where a redrawing starts, and what it is conditioned on.

    Parameters
    ----------
    num_clusters
        Number of groups c.
    latent_shape
        (channels, h, w) of the autoencoder's latents.
    num_exemplars
        Synthetic images m that each group has.

    Notes
    -----
    Buffers, which a fit fills: ``centres`` (c, 15), the mean evidence of the findings; ``patients``
    (c,), how many each group has; ``exemplars`` (c, m, channels, h, w), latents of images of nobody
    that show the findings of the group; ``findings`` (c, 15), ``identity``, ``age`` and ``sex``
    (c,), the conditions of each group.
    """

    centres: Tensor
    patients: Tensor
    exemplars: Tensor
    findings: Tensor
    identity: Tensor
    age: Tensor
    sex: Tensor

    @register_to_config
    def __init__(
        self, num_clusters: int, latent_shape: Sequence[int], num_exemplars: int = 4
    ) -> None:
        super().__init__()
        tokens = len(FINDING_TOKENS)
        self.register_buffer("centres", torch.zeros(num_clusters, tokens))
        self.register_buffer("exemplars", torch.zeros(num_clusters, num_exemplars, *latent_shape))
        self.register_buffer("findings", torch.zeros(num_clusters, tokens, dtype=torch.long))
        for name in ("patients", "identity", "age", "sex"):
            self.register_buffer(name, torch.zeros(num_clusters, dtype=torch.long))

    def nearest(self, evidence: Tensor) -> Tensor:
        """Return the group of each row of evidence (n, 15), shape (n,), int64."""
        return nearest_centre(evidence, self.centres)

    def drawn(self, groups: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return the latent of one exemplar, picked at random, for each of `groups`.

        Parameters
        ----------
        groups
            Shape (n,), int64.
        generators
            One CPU generator per row.

        Returns
        -------
        Tensor
            Shape (n, channels, h, w), of the scale of ``autoencoder.encode``.
        """
        count = self.exemplars.shape[1]
        picked = torch.cat([torch.randint(count, (1,), generator=each) for each in generators])
        return self.exemplars[groups, picked.to(groups.device)]

    def linkage_bound(self, persons: int) -> LinkageBound:
        """Return what no attacker exceeds if persons are spread over groups as the patients are.

        Parameters
        ----------
        persons
            Number n among whom one is to be named.

        Examples
        --------
        >>> clusters = PatientClusters(num_clusters=4, latent_shape=(1, 2, 2))
        >>> clusters.patients += 10
        >>> bound = clusters.linkage_bound(persons=100)
        >>> round(bound.nats, 3), bound.rank_one, bound.pair_auc
        (1.386, 0.04, 0.875)
        """
        shares = self.patients.double() / self.patients.sum()
        return LinkageBound(
            nats=float(torch.tensor(float(len(shares))).log()),
            rank_one=min(1.0, len(shares) / persons),
            pair_auc=float(1 - shares.square().sum() / 2),
        )


def nearest_centre(evidence: Tensor, centres: Tensor) -> Tensor:
    """Return which of the centres (c, 15) has the highest cosine with each row (n, 15), int64."""
    directions, of_centres = (normalize(each.double(), dim=-1) for each in (evidence, centres))
    return (directions @ of_centres.mT).argmax(dim=-1)
