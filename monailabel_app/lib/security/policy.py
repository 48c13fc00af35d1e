"""Who may use which route, as data: MONAI Label's routes each have a line here, or are refused.

Our own routes below ``/privdiff/`` name their role themselves (`roles.Require`); here stand those
that need nobody. What is left out of the table on purpose: weights that are sent in or out
(``/model``), logs that show requests, images that are written into the studies, the proxy to the
store, and whole-slide images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from monailabel_app.lib.errors import MethodNotAllowed, NotFound
from monailabel_app.lib.security.roles import Role
from monailabel_app.lib.upstream import TASK

OURS = "/privdiff/"

PUBLIC = re.compile(r"/privdiff/(v1/health|(review|reader-study)(/[A-Za-z0-9._-]+)*)/?")
"""Pages without data, and whether the server is well."""

SAFE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
"""Every path of every route: no encoded character, no empty part; `.` and `..` are checked too."""


@dataclass(frozen=True)
class Rule:
    """A route of MONAI Label.

    Attributes
    ----------
    methods
        Of HTTP.
    path
        A part in braces stands for one part of any name.
    role
        The lowest that may.
    """

    methods: frozenset[str]
    path: str
    role: Role

    def covers(self, path: str) -> bool:
        """Tell whether a path is one of this route; a slash at its end makes no difference."""
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(self.path))
        return re.fullmatch(pattern, path.rstrip("/")) is not None


def _rule(methods: str, path: str, role: Role) -> Rule:
    return Rule(frozenset(methods.split()), path, role)


RULES = (
    _rule("GET", "/openapi.json", Role.USER),
    _rule("GET", "/info", Role.USER),
    _rule("GET", "/model/info/{model}", Role.USER),
    _rule("POST", "/infer/{model}", Role.USER),
    _rule("GET DELETE", "/batch/infer", Role.ADMIN),
    _rule("POST", f"/batch/infer/{TASK}", Role.ADMIN),
    _rule("GET DELETE", "/train", Role.ADMIN),
    _rule("POST", f"/train/{TASK}", Role.ADMIN),
    _rule("POST", "/activelearning/{strategy}", Role.USER),
    _rule("GET DELETE", "/scoring", Role.ADMIN),  # there is no method to run
    _rule("PUT", "/session", Role.USER),
    _rule("GET DELETE", "/session/{session}", Role.USER),
    _rule("GET", "/datastore", Role.USER),
    # That an original is for reviewers alone is said by the routes, which know what is one.
    _rule("GET HEAD", "/datastore/image", Role.USER),
    _rule("GET PUT", "/datastore/image/info", Role.USER),
    _rule("GET HEAD PUT", "/datastore/label", Role.USER),
    _rule("DELETE", "/datastore/label", Role.ADMIN),
    _rule("GET PUT", "/datastore/label/info", Role.USER),
    _rule("GET", "/datastore/dataset", Role.REVIEWER),
)


def is_safe(path: str) -> bool:
    """Tell whether a path, as it was sent, can be that of a route.

    Examples
    --------
    >>> is_safe("/infer/privdiff"), is_safe("/infer/../etc"), is_safe("/infer//x")
    (True, False, False)
    """
    parts = path.split("/")
    return SAFE_PATH.fullmatch(path) is not None and "." not in parts and ".." not in parts


def is_public(method: str, path: str) -> bool:
    """Tell whether a request needs nobody."""
    return method in ("GET", "HEAD") and PUBLIC.fullmatch(path) is not None


def needed_role(method: str, path: str) -> Role:
    """Return the lowest role that may use a route of MONAI Label; ours decide by themselves.

    Raises
    ------
    NotFound
        If the table has no such path.
    MethodNotAllowed
        If it has the path, but not with this method.
    """
    if path.startswith(OURS):
        return Role.USER
    rules = [rule for rule in RULES if rule.covers(path)]
    for rule in rules:
        if method in rule.methods:
            return rule.role
    if rules:
        raise MethodNotAllowed(
            "this address does not take this method", "see /openapi.json for those it takes"
        )
    raise NotFound("there is no such route", "see /openapi.json for the routes of this server")
