"""Why a fine-tuning failed, in words that may stand in a log."""

from __future__ import annotations

from monailabel_app.lib.errors import ApiError


class TrainingFailed(ApiError):
    """A fine-tuning cannot begin or go on; the message names no file, no image and no path."""

    status, code = 409, "training_failed"
