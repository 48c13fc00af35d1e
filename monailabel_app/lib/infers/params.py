"""What MONAI Label's clients send as params, as options of jobs.

Upstream lets params overwrite everything of a request, the image included, which made them a way to
any file of the server. Here they are a closed set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from monailabel_app.lib.errors import BadRequest
from monailabel_app.lib.jobs.job import JobOptions

BUNDLE = "bundle"
"""`JobOptions.model` under a name that MONAI Label does not use for the task."""

BY_BUNDLE = "default"
"""What stands for none in lists that clients choose from."""

OPTIONS = frozenset({*JobOptions.model_fields, BUNDLE} - {"model"})

IGNORED = frozenset(
    {
        "client_id", "description", "device", "gpus", "label_tag", "logging", "max_batch_size",
        "max_workers", "multi_gpu", "result_compress", "result_dtype", "result_extension",
        "restore_label_idx", "save_label",
    }
)  # fmt: skip
"""What stock clients always send and what decides nothing here."""

MAX_BYTES = 10_000


def parse_params(text: str) -> dict[str, Any]:
    """Return the params of a form field.

    Raises
    ------
    BadRequest
        If they are no JSON object.
    """
    try:
        params = json.loads(text or "{}") if len(text) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        params = None
    if not isinstance(params, dict):
        raise BadRequest("params is no JSON object", 'send a text such as {"profile": "fast"}')
    check_json(params)
    return params


def check_json(content: object) -> None:
    """Check what was parsed for what Python takes as JSON and nobody can write or send again.

    Raises
    ------
    BadRequest
        If a text has half a character, or a number is none or infinite.
    """
    try:
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise BadRequest(
            "a text has half a character, or a number is infinite or none", "send valid JSON"
        ) from None


def job_options(params: Mapping[str, Any]) -> JobOptions:
    """Return the options that params choose.

    Raises
    ------
    BadRequest
        If a key is unknown or a value impossible. Values are not quoted.
    """
    chosen = {name: value for name, value in params.items() if name not in IGNORED}
    if chosen.keys() - OPTIONS:
        raise BadRequest(
            "params holds a key that nobody may set", f"use only: {', '.join(sorted(OPTIONS))}"
        )
    chosen = {name: value for name, value in chosen.items() if value not in ("", BY_BUNDLE, None)}
    if BUNDLE in chosen:
        chosen["model"] = chosen.pop(BUNDLE)
    try:
        return JobOptions.model_validate(chosen)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "a value"
        raise BadRequest(
            f"params: {name}: {first['msg']}", "see the config in GET /info/"
        ) from None
