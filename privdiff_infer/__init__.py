"""PrivDiff-Net: redraws a chest X-ray so that the findings stay and the person goes.

Names are imported on first use, so that `import privdiff_infer` stays free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from privdiff_infer.model.autoencoder import RadiographAutoencoder
    from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
    from privdiff_infer.model.denoiser import PrivDiffDenoiser
    from privdiff_infer.pipeline import PrivDiffPipeline

_HOMES = {
    "IdentityEmbedder": "privdiff_infer.model.critics",
    "PrivDiffDenoiser": "privdiff_infer.model.denoiser",
    "PrivDiffPipeline": "privdiff_infer.pipeline",
    "RadiographAutoencoder": "privdiff_infer.model.autoencoder",
    "RadiographReader": "privdiff_infer.model.critics",
}

__all__ = [
    "IdentityEmbedder",
    "PrivDiffDenoiser",
    "PrivDiffPipeline",
    "RadiographAutoencoder",
    "RadiographReader",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'privdiff_infer' has no attribute {name!r}")
