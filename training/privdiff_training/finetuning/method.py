"""What of a denoiser is fine-tuned. A file of its own, for commands load nothing else."""

from __future__ import annotations

from enum import Enum


class Method(str, Enum):
    """What of the denoiser is trained: LoRA weights, or all of it."""

    LORA = "lora"
    FULL = "full"
