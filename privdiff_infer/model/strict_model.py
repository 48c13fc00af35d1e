"""Models whose weights are loaded completely or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from typing_extensions import Self

from privdiff_infer.errors import BundleError


def refuse_incomplete(name: str, missing: list[str], unexpected: list[str]) -> None:
    """Raise `BundleError` if a loaded state dict did not match the model key by key."""
    for kind, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            raise BundleError(
                f"{len(keys)} {kind} weight(s) for {name}, the first is {keys[0]}",
                "the bundle is damaged or of another version; install it again",
            )


class StrictModel(ModelMixin):
    """A diffusers model that raises where diffusers only logs.

    `ModelMixin.from_pretrained` initialises missing weights at random and drops unexpected ones,
    both with a mere message: a suppression layer could vanish silently.
    """

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> Self:
        """Load weights from a folder; see `ModelMixin.from_pretrained`.

        Raises
        ------
        BundleError
            If the folder has no model, or a weight is missing, unexpected or of another shape.
        """
        if not (Path(path) / "config.json").is_file():
            raise BundleError(
                f"{path} holds no {cls.__name__}: it has no config.json",
                "name a complete bundle; nothing is downloaded",
            )
        model, info = super().from_pretrained(
            path, output_loading_info=True, local_files_only=True, **kwargs
        )
        refuse_incomplete(cls.__name__, info["missing_keys"], info["unexpected_keys"])
        for weight in (*model.parameters(), *model.buffers()):
            # Tensors mapped from a file start anywhere in memory, and the last bit of a matrix
            # product depends on the alignment. A copy is aligned as a new tensor is.
            weight.data = weight.data.clone()
        return model

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast as any `torch.nn.Module`.

        diffusers 0.42 warns on every cast of modules that should stay in float32, though there are
        none.
        """
        return nn.Module.to(self, *args, **kwargs)
