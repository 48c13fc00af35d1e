"""The templates of this package over those of the library, whose frame they fill."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def page_environment() -> Environment:
    """Return a new environment, to which a page adds what it needs."""
    return Environment(
        loader=ChoiceLoader([PackageLoader("privdiff_training"), PackageLoader("privdiff_infer")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
