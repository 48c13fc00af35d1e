"""What a batch of the denoiser is conditioned on, and the embeddings of the categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from privdiff_infer.vocabulary import (
    AGE_BINS,
    FINDING_TOKENS,
    SENSITIVE_BRANCHES,
    Branch,
    FindingState,
    Sex,
)


@dataclass(frozen=True)
class Condition:
    """One condition per row of a batch; rows of different branches may be mixed.

    Attributes
    ----------
    findings
        Shape (n, 15), int64, one `FindingState` per diagnostic token; ignored on sensitive rows.
    branch
        Shape (n,), int64, a `Branch` per row.
    value
        Shape (n,), int64, row of the codebook of that branch; 0 and ignored on findings rows.
    """

    findings: Tensor
    branch: Tensor
    value: Tensor

    def __len__(self) -> int:
        return len(self.branch)

    @classmethod
    def of_findings(cls, states: Tensor) -> Condition:
        """Return the diagnostic branch for states of shape (n, 15)."""
        zeros = torch.zeros(len(states), dtype=torch.long, device=states.device)
        return cls(states.long(), zeros + Branch.FINDINGS, zeros)

    @classmethod
    def unconditional(cls, count: int, device: torch.device | None = None) -> Condition:
        """Return the branch phi: every finding unknown."""
        shape = (count, len(FINDING_TOKENS))
        return cls.of_findings(torch.full(shape, FindingState.UNKNOWN.value, device=device))

    @classmethod
    def of_attribute(cls, branch: Branch, value: Tensor) -> Condition:
        """Return a sensitive branch for codebook rows of shape (n,)."""
        findings = torch.zeros(len(value), len(FINDING_TOKENS), dtype=torch.long)
        return cls(findings.to(value.device), torch.full_like(value, branch.value), value.long())

    @classmethod
    def cat(cls, conditions: Sequence[Condition]) -> Condition:
        """Stack batches, so that all branches share one call of the denoiser."""
        return cls(
            torch.cat([c.findings for c in conditions]),
            torch.cat([c.branch for c in conditions]),
            torch.cat([c.value for c in conditions]),
        )

    def to(self, device: torch.device) -> Condition:
        """Return the condition on another device."""
        return Condition(self.findings.to(device), self.branch.to(device), self.value.to(device))


class CategoryEmbeddings(nn.Module):
    """Embeddings of findings states and the codebooks of the sensitive categories.

    Parameters
    ----------
    dim
        Width of every token.
    identity_prototypes
        Number of identity clusters. Not one per patient: with as many classes as locations the
        projection of SAS would erase the diagnosis too.
    """

    def __init__(self, dim: int, identity_prototypes: int) -> None:
        super().__init__()
        self.sizes = {
            Branch.IDENTITY: identity_prototypes,
            Branch.AGE: AGE_BINS,
            Branch.SEX: len(Sex),
        }
        self.findings = nn.Parameter(torch.randn(len(FINDING_TOKENS), len(FindingState), dim))
        self.identity = nn.Parameter(torch.randn(identity_prototypes, dim))
        self.age = nn.Parameter(torch.randn(AGE_BINS, dim))
        self.sex = nn.Parameter(torch.randn(len(Sex), dim))
        # With the drawn value alone a softmax over one token is 1 everywhere; the null token of a
        # category lets attention vary over the image. It is not part of the suppressed maps.
        self.null = nn.Parameter(torch.randn(len(SENSITIVE_BRANCHES), dim))

    def finding_tokens(self, findings: Tensor) -> Tensor:
        """Return the tokens (n, 15, dim) of finding states (n, 15)."""
        positions = torch.arange(findings.shape[1], device=findings.device)
        return self.findings[positions, findings]

    def codebook(self, branch: Branch) -> Tensor:
        """Return the tokens (classes, dim) of one sensitive category."""
        return {Branch.IDENTITY: self.identity, Branch.AGE: self.age, Branch.SEX: self.sex}[branch]

    def attribute_tokens(self, branch: Branch, value: Tensor) -> Tensor:
        """Return the tokens (n, 2, dim) of a sensitive branch: drawn value and null token."""
        drawn = self.codebook(branch)[value]
        null = self.null[SENSITIVE_BRANCHES.index(branch)].expand_as(drawn)
        return torch.stack((drawn, null), dim=1)
