"""report.json back into the record of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from privdiff_infer.errors import OptionError
from privdiff_training.evaluation.record import Evaluation


def read_evaluation(path: Path) -> Evaluation:
    """Read what `Evaluation.to_record` wrote; figures may be NaN.

    Raises
    ------
    OptionError
        If the file is missing, is no JSON, or lacks a part of the record.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(
            f"{path} cannot be read as JSON", "name the folder that `privdiff evaluate` wrote"
        ) from error
    try:
        return TypeAdapter(Evaluation).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise OptionError(
            f"{path}: {where}: {first['msg']}", "it is of another version; evaluate again"
        ) from error
