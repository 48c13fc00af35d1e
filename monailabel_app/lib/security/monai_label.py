"""What may be said in the address of MONAI Label's routes, which make files of ids.

Upstream opens an image that exists as a path, so ids that could be read as one are refused before
any route sees them. The params of ``/infer`` are a closed set besides; see `infers.params`.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from monailabel_app.lib.errors import BadRequest

IDS = frozenset({"image", "session_id", "label", "id", "tag"})
"""Names of query values that MONAI Label makes a path of."""

SAFE_ID = re.compile(r"[\w][\w.+=@,()\[\] ~-]{0,254}")
"""An id of an image, a label or a session: no separator of paths, no dot first, no control code."""


def check_query(path: str, query: bytes) -> None:
    """Check what follows the question mark, on every route but ours.

    Raises
    ------
    BadRequest
        If an id could be read as a path, or is given twice.
    """
    if path.startswith("/privdiff/"):
        return
    seen = set()
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in IDS:
            if name in seen:
                raise BadRequest(f"{name} is given twice", "name one")
            seen.add(name)
            check_id(name, value)


def check_id(name: str, value: str) -> None:
    """Check that an id is one, where there is any.

    Raises
    ------
    BadRequest
        If it could be read as a path; it is not quoted.
    """
    if value and (SAFE_ID.fullmatch(value) is None or ".." in value):
        raise BadRequest(
            f"{name} is no id of this server", "name one that /datastore or a job gives"
        )
