"""What the client and the server say in English, in the language of the application.

The client knows nothing of Slicer, so its sentences are translated here, by their English text;
each of them stands twice, for Slicer collects literals alone. What a server says in sentences of
its own stays as it came.
"""

from __future__ import annotations

from slicer.i18n import tr as _

from .privdiff_client import ClientError


def errorTexts(error: ClientError) -> tuple[str, str]:
    """Return message and hint of an error.

    Examples
    --------
    >>> errorTexts(ClientError("{url} cannot be reached", "check the address", url="http://h"))
    ('http://h cannot be reached', 'check the address')
    """
    known = clientTexts()
    values = {name: serverWords().get(str(value), value) for name, value in error.values.items()}
    message, hint = (known.get(template, template) for template in error.templates)
    return (message.format(**values), hint.format(**values)) if values else (message, hint)


def wordOf(name: object) -> str:
    """Return a word of the server: a role, a profile, a state or a finding.

    Examples
    --------
    >>> wordOf("Pleural_Thickening"), wordOf("another")
    ('Pleural Thickening', 'another')
    """
    return serverWords().get(str(name), str(name).replace("_", " "))


def clientTexts() -> dict[str, str]:
    """Return the texts of the client's errors by what they are in English."""
    return {
        "there is no image to queue": _("there is no image to queue"),
        "name a file or an image": _("name a file or an image"),
        "the result comes without its SHA-256": _("the result comes without its SHA-256"),
        "update the server": _("update the server"),
        "the image is {state}, not approved": _("the image is {state}, not approved"),
        "approve it first": _("approve it first"),
        "the approved file is no DICOM file, and a store takes nothing else": _(
            "the approved file is no DICOM file, and a store takes nothing else"
        ),
        "redraw the image with output format dicom": _("redraw the image with output format dicom"),
        "the file of the image cannot be read": _("the file of the image cannot be read"),
        "check that it exists and may be read": _("check that it exists and may be read"),
        "the job is not done yet": _("the job is not done yet"),
        "wait longer, or look at it later": _("wait longer, or look at it later"),
        "the server answered with status {number}": _("the server answered with status {number}"),
        "check the address, and that a PrivDiff server answers there": _(
            "check the address, and that a PrivDiff server answers there"
        ),
        "cancelled": _("cancelled"),
        "the answer holds no {kind}": _("the answer holds no {kind}"),
        "check that this is a PrivDiff server": _("check that this is a PrivDiff server"),
        "the store does not let us in (HTTP {status})": _(
            "the store does not let us in (HTTP {status})"
        ),
        "check the user or the token": _("check the user or the token"),
        "the store refused the image (HTTP {status}{reason})": _(
            "the store refused the image (HTTP {status}{reason})"
        ),
        "ask whoever runs the store whether it takes derived DX and CR images": _(
            "ask whoever runs the store whether it takes derived DX and CR images"
        ),
        "the store did not confirm the image (HTTP {status})": _(
            "the store did not confirm the image (HTTP {status})"
        ),
        "check that the address is that of a DICOMweb service": _(
            "check that the address is that of a DICOMweb service"
        ),
        "both a token and a user are given": _("both a token and a user are given"),
        "give one of them": _("give one of them"),
        "this is no address of a server": _("this is no address of a server"),
        "write https://host:port": _("write https://host:port"),
        "the address holds more than host, port and path": _(
            "the address holds more than host, port and path"
        ),
        "give a password or token apart": _("give a password or token apart"),
        "the server sends us to another address, which is not followed": _(
            "the server sends us to another address, which is not followed"
        ),
        "give the address that it really has": _("give the address that it really has"),
        "the bytes that arrived are not those of the record": _(
            "the bytes that arrived are not those of the record"
        ),
        "fetch them again; if that does not help, redraw the image": _(
            "fetch them again; if that does not help, redraw the image"
        ),
        "over http:// everybody on the way could read the password or token": _(
            "over http:// everybody on the way could read the password or token"
        ),
        "use an https:// address": _("use an https:// address"),
        "the answer is no JSON": _("the answer is no JSON"),
        "check the address: another service may answer there": _(
            "check the address: another service may answer there"
        ),
        "the answer is too large": _("the answer is too large"),
        "check the address": _("check the address"),
        "{url} has a certificate that is not trusted": _(
            "{url} has a certificate that is not trusted"
        ),
        "give the file of the certificate authority that your institution uses": _(
            "give the file of the certificate authority that your institution uses"
        ),
        "{url} did not answer in time": _("{url} did not answer in time"),
        "try again; ask whether the server runs": _("try again; ask whether the server runs"),
        "{url} cannot be reached": _("{url} cannot be reached"),
        "check the address, and that the server runs": _(
            "check the address, and that the server runs"
        ),
    }


def serverWords() -> dict[str, str]:
    """Return the names of closed sets by what the server calls their members."""
    return {
        "user": _("user"),
        "reviewer": _("reviewer"),
        "admin": _("admin"),
        "standard": _("standard"),
        "fast": _("fast"),
        "vanilla": _("vanilla"),
        "paper": _("paper"),
        "queued": _("queued"),
        "running": _("running"),
        "awaiting_review": _("awaiting review"),
        "approved": _("approved"),
        "rejected": _("rejected"),
        "published": _("published"),
        "held": _("held"),
        "failed": _("failed"),
        "Atelectasis": _("Atelectasis"),
        "Cardiomegaly": _("Cardiomegaly"),
        "Consolidation": _("Consolidation"),
        "Edema": _("Edema"),
        "Effusion": _("Effusion"),
        "Emphysema": _("Emphysema"),
        "Fibrosis": _("Fibrosis"),
        "Hernia": _("Hernia"),
        "Infiltration": _("Infiltration"),
        "Mass": _("Mass"),
        "Nodule": _("Nodule"),
        "Pleural_Thickening": _("Pleural Thickening"),
        "Pneumonia": _("Pneumonia"),
        "Pneumothorax": _("Pneumothorax"),
    }
