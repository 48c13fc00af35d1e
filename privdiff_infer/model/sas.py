"""Selective Attribute Suppression (SAS): cross-attention without the sensitive subspace.

Source: Akhter, Dosi, Vatsa, Singh, PMLR 317:27-36, 2026, section on SAS. With the attention maps of
the sensitive categories F = [A_id, A_age, A_sex] (N x L_s) the paper projects the diagnostic map,

    P = I - F (F^T F + eps I)^-1 F^T,      O = P A_diag V_diag.

P acts from the left, so O = O_0 - F (F^T F + eps I)^-1 (F^T O_0) with the ordinary attention output
O_0 is the same and needs no N x N matrix. The mode `paper` is this form. The mode `centered`
repairs its two defects: softmax rows sum to one, so the constant map lies in span(F) and P would
always delete the spatial mean of the diagnosis (here F is centred over the locations), and span(F)
may fill the whole space (here its rank is capped).

Three further modes are no projection from the left; they are compared in evaluations. `value` takes
the sensitive values out of the diagnostic ones, V_diag (I - B B^T) with an orthonormal basis B of
the sensitive values, and A_diag V_diag (I - B B^T) = O_0 (I - B B^T). `context` erases what tells
age and sex from the findings tokens before any attention (`erasers`), and `combined` does so and
then projects as `centered` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional

from privdiff_infer.errors import OptionError
from privdiff_infer.model.conditioning import CategoryEmbeddings, Condition
from privdiff_infer.vocabulary import SENSITIVE_BRANCHES, Branch


class SASMode(str, Enum):
    """How the sensitive subspace is removed."""

    PAPER = "paper"
    CENTERED = "centered"
    VALUE = "value"
    CONTEXT = "context"
    COMBINED = "combined"

    @property
    def erases_context(self) -> bool:
        """Whether the findings tokens are changed, for which an eraser is needed."""
        return self in (SASMode.CONTEXT, SASMode.COMBINED)


@dataclass(frozen=True)
class SASSettings:
    """Settings of one call.

    Attributes
    ----------
    mode
        What is removed, and where.
    strength
        g in [0, 1]: part of it that is removed; 0 is plain cross-attention.
    eps_rel
        Damping of the centred projection, relative to the mean eigenvalue of the Gram matrix.
    eps
        Absolute damping of mode `paper`; the paper gives no value.
    rank_cap
        rho in [0, 1]: the centred projection removes at most floor(rho * N) directions, mode
        `value` at most floor(rho * d_v); 0 removes none.

    Raises
    ------
    OptionError
        If strength or rank cap are outside [0, 1].
    """

    mode: SASMode = SASMode.CENTERED
    strength: float = 1.0
    eps_rel: float = 1e-3
    eps: float = 1e-3
    rank_cap: float = 0.25

    def __post_init__(self) -> None:
        for name, value in (("strength", self.strength), ("rank cap", self.rank_cap)):
            if not 0 <= value <= 1:
                raise OptionError(
                    f"SAS {name} {value} is outside [0, 1]", "choose a value between 0 and 1"
                )


def suppress(output: Tensor, maps: Tensor, categories: int, settings: SASSettings) -> Tensor:
    """Remove the span of the sensitive maps from an attention output.

    Parameters
    ----------
    output
        O_0, shape (n, heads, N, d_v).
    maps
        F, shape (n, heads, N, L_s): the attention maps of all classes of all sensitive categories.
    categories
        Number of categories in `maps`; each contributes one redundant direction.
    settings
        Strength, damping, and the mode: literal, or centred for all others.

    Returns
    -------
    Tensor
        Same shape and dtype as `output`; computed in float32.

    Raises
    ------
    OptionError
        In mode `paper` if there are at least as many classes as locations: the projection would
        then remove everything.
    """
    if settings.strength == 0:
        return output
    # Autocast would form the Gram matrix in half precision, in which it is not positive definite.
    with torch.autocast(output.device.type, enabled=False):
        return _suppressed(output.float(), maps.float(), categories, settings).to(output.dtype)


def suppress_values(output: Tensor, values: Tensor, settings: SASSettings) -> Tensor:
    """Remove the strongest directions of the sensitive values from an attention output.

    All of them would be everything where there are as many classes as channels, hence the cap.

    Parameters
    ----------
    output
        O_0, shape (n, heads, N, d_v).
    values
        Values of all classes of all sensitive categories, shape (heads, L_s, d_v).
    settings
        Strength and rank cap.

    Returns
    -------
    Tensor
        Same shape and dtype as `output`; computed in float32.
    """
    cap = int(settings.rank_cap * output.shape[-1])
    with torch.autocast(output.device.type, enabled=False):
        basis = _strongest_directions(values.float(), cap)
        plain = output.float()
        removed = plain @ basis @ basis.mT
        return (plain - settings.strength * removed).to(output.dtype)


@torch.no_grad()  # as a basis of eigenvectors in `_centered_component`
def _strongest_directions(rows: Tensor, count: int) -> Tensor:
    """Return an orthonormal basis (heads, d, count) of the span of `rows` (heads, L, d).

    Columns beyond the rank of the rows are zero.
    """
    rows = rows.double()  # in single precision, directions beyond the rank have values too
    values, vectors = torch.linalg.eigh(rows.mT @ rows)  # ascending
    first = rows.shape[-1] - count
    values, vectors = values[..., first:], vectors[..., first:]
    spanned = values > 1e-10 * values.amax(dim=-1, keepdim=True) if count else values > 0
    return (vectors * spanned[..., None, :]).float()


def _suppressed(plain: Tensor, maps: Tensor, categories: int, settings: SASSettings) -> Tensor:
    if settings.mode is SASMode.PAPER:
        removed = _literal_component(plain, maps, settings.eps)
        kept = plain - settings.strength * removed
        return functional.layer_norm(kept, kept.shape[-1:])
    removed = _centered_component(plain, maps, categories, settings)
    kept = plain - settings.strength * removed
    return kept * (_rms(plain) / (_rms(kept) + 1e-6))


def _literal_component(plain: Tensor, maps: Tensor, eps: float) -> Tensor:
    locations, classes = maps.shape[-2:]
    if classes >= locations:
        raise OptionError(
            f"SAS mode 'paper' with {classes} classes at {locations} locations removes everything",
            "use mode 'centered' or fewer identity prototypes",
        )
    gram = maps.mT @ maps
    damped = gram + eps * torch.eye(classes, device=maps.device)
    return maps @ _solve(damped, maps.mT @ plain)


def _centered_component(
    plain: Tensor, maps: Tensor, categories: int, settings: SASSettings
) -> Tensor:
    locations, classes = maps.shape[-2:]
    maps = maps - maps.mean(dim=-2, keepdim=True)
    gram = maps.mT @ maps  # (n, heads, L_s, L_s)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    # Maps that do not vary at all have a zero Gram matrix; the floor keeps it solvable.
    eps = (settings.eps_rel * trace / classes).clamp_min(1e-10)[..., None]  # (n, heads, 1)
    cap = int(settings.rank_cap * locations)
    if classes - categories <= cap:
        return maps @ _solve(
            gram + torch.diag_embed(eps.expand(*eps.shape[:-1], classes)), maps.mT @ plain
        )
    with torch.no_grad():  # gradients of eigenvectors explode at near-equal eigenvalues
        # In single precision it need not converge where many eigenvalues are equal or almost zero.
        values, vectors = (part.float() for part in torch.linalg.eigh(gram.double()))
        # Ascending order; counted from the front, because `-cap:` would keep all for a cap of 0.
        values, vectors = values[..., classes - cap :], vectors[..., classes - cap :]
    basis = maps @ vectors  # (n, heads, N, cap), orthogonal columns of squared length `values`
    return basis @ ((basis.mT @ plain) / (values + eps)[..., None])


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))


def _rms(values: Tensor) -> Tensor:
    """Root mean square per sample and head."""
    return values.square().mean(dim=(-2, -1), keepdim=True).sqrt()


@dataclass(frozen=True)
class SASContext:
    """What every cross-attention of one denoiser call needs beside the findings tokens."""

    embeddings: CategoryEmbeddings
    condition: Condition
    settings: SASSettings


class SelfAttentionProcessor(AttnProcessor2_0):
    """Plain self-attention; ignores the context that diffusers hands to every attention."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        *args: Tensor,
        context: SASContext,
        **kwargs: Tensor,
    ) -> Tensor:
        return super().__call__(attn, hidden_states, *args, **kwargs)


class SASProcessor(nn.Module):
    """Cross-attention to the tokens of each row's branch, with SAS on findings rows.

    Parameters
    ----------
    context_dim
        Width of the tokens.
    inner_dim
        heads * d_k of the attention that this processor serves.
    gate
        Initial value of the residual gate: 0 when trained from scratch, so that training starts
        from the unconditional model; 1 on top of cross-attention that is already trained.
    """

    def __init__(self, context_dim: int, inner_dim: int, gate: float = 0.0) -> None:
        super().__init__()
        self.keys = nn.ModuleList(
            nn.Linear(context_dim, inner_dim, bias=False) for _ in SENSITIVE_BRANCHES
        )
        self.values = nn.ModuleList(
            nn.Linear(context_dim, inner_dim, bias=False) for _ in SENSITIVE_BRANCHES
        )
        self.gate = nn.Parameter(torch.tensor(gate))

    # diffusers reads the accepted arguments from `__call__`, not from `forward`.
    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *,
        context: SASContext,
    ) -> Tensor:
        """Return the gated attention output, shape (n, N, channels)."""
        query = _split_heads(attn.to_q(hidden_states), attn.heads)  # (n, h, N, d)
        key, value, mask = self._tokens(attn, encoder_hidden_states, context)
        output = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        diagnostic = context.condition.branch == Branch.FINDINGS
        acts_here = context.settings.strength > 0 and context.settings.mode is not SASMode.CONTEXT
        if acts_here and bool(diagnostic.any()):
            rows = diagnostic.nonzero().squeeze(1)
            suppressed = self._without_sensitive(attn, query[rows], output[rows], context)
            output = output.index_copy(0, rows, suppressed)
        merged = output.transpose(1, 2).flatten(2)  # (n, N, heads * d)
        return self.gate * attn.to_out[1](attn.to_out[0](merged))

    def _without_sensitive(
        self, attn: Attention, query: Tensor, output: Tensor, context: SASContext
    ) -> Tensor:
        """Return the outputs of findings rows after SAS, shape (n, h, N, d)."""
        if context.settings.mode is SASMode.VALUE:
            values = self._sensitive_values(attn.heads, context.embeddings)
            return suppress_values(output, values, context.settings)
        maps = self._sensitive_maps(query, attn.scale, context.embeddings)
        return suppress(output, maps, len(SENSITIVE_BRANCHES), context.settings)

    def _tokens(
        self, attn: Attention, finding_tokens: Tensor, context: SASContext
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return keys and values (n, h, tokens, d) of each row's own branch, and the token mask."""
        key, value = attn.to_k(finding_tokens), attn.to_v(finding_tokens)
        condition = context.condition
        if bool((condition.branch == Branch.FINDINGS).all()):
            return _split_heads(key, attn.heads), _split_heads(value, attn.heads), None
        mask = torch.ones(key.shape[:2], dtype=torch.bool, device=key.device)
        for number, branch in enumerate(SENSITIVE_BRANCHES):
            rows = (condition.branch == branch).nonzero().squeeze(1)
            if not len(rows):
                continue
            tokens = context.embeddings.attribute_tokens(branch, condition.value[rows])
            unused = key.shape[1] - tokens.shape[1]  # an attribute has two tokens, findings 15
            key = key.index_copy(0, rows, _padded(self.keys[number](tokens), unused))
            value = value.index_copy(0, rows, _padded(self.values[number](tokens), unused))
            mask[rows, tokens.shape[1] :] = False
        return (
            _split_heads(key, attn.heads),
            _split_heads(value, attn.heads),
            mask[:, None, None, :],
        )

    def _sensitive_maps(
        self, query: Tensor, scale: float, embeddings: CategoryEmbeddings
    ) -> Tensor:
        """Return F = [A_id, A_age, A_sex], shape (n, h, N, L_s); one softmax per category."""
        maps = []
        for number, branch in enumerate(SENSITIVE_BRANCHES):
            key = _split_heads(self.keys[number](embeddings.codebook(branch))[None], query.shape[1])
            maps.append((query @ key.mT * scale).softmax(dim=-1))
        return torch.cat(maps, dim=-1)

    def _sensitive_values(self, heads: int, embeddings: CategoryEmbeddings) -> Tensor:
        """Return the values of all classes of all categories, shape (h, L_s, d)."""
        values = [
            self.values[number](embeddings.codebook(branch))
            for number, branch in enumerate(SENSITIVE_BRANCHES)
        ]
        return _split_heads(torch.cat(values)[None], heads)[0]


def _split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Turn (n, tokens, heads * d) into (n, heads, tokens, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def _padded(tokens: Tensor, count: int) -> Tensor:
    return functional.pad(tokens, (0, 0, 0, count))
