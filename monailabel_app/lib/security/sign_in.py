"""Which authenticator the settings ask for."""

from __future__ import annotations

from monailabel_app.lib.security.middleware import Authenticator
from monailabel_app.lib.security.oidc import Provider
from monailabel_app.lib.security.tokens import TokenFile
from monailabel_app.lib.settings import Authentication, ServerSettings
from privdiff_infer.errors import OptionError


def authenticator_of(settings: ServerSettings) -> Authenticator | None:
    """Return what knows people, or None where everybody on this machine is an administrator.

    Raises
    ------
    OptionError
        If a setting that it needs is missing, or two people must approve and nobody is known.
    SecretError
        If the token file cannot be used.
    """
    if settings.auth is Authentication.NONE:
        if settings.two_person:
            raise OptionError(
                "two people must approve, and without authentication everybody is the same one",
                "choose --auth tokens or --auth oidc, or --one-person",
            )
        return None
    if settings.auth is Authentication.OIDC:
        return Provider(
            settings.oidc_issuer,
            settings.oidc_audience,
            role_prefix=settings.oidc_roles,
            roles_claim=settings.oidc_roles_claim,
            name_claim=settings.oidc_name_claim,
        )
    if settings.token_file is None:
        raise OptionError("no token file is named", "make one with privdiff token add, and name it")
    return TokenFile.open(settings.token_file)
