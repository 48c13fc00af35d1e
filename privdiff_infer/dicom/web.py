"""DICOMweb (PS3.18 clause 10): instances of a store as sources, and a store as a target.

Searching goes through `dicomweb_client`. Retrieving and storing use its session, but not its
methods: they parse and write every object anew, and what is named by its SHA-256 must be the very
bytes that were sent.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from privdiff_infer.errors import ImageRejected, OptionError, StoreError

if TYPE_CHECKING:
    import requests

    from privdiff_infer.dicom.web_session import Access

logger = logging.getLogger(__name__)

SCHEME = "dicomweb+"
"""Before http:// or https:// it tells a store from a web page."""

PAGE = 100
"""Results of a search that are asked for at once."""

LIST_REPRESENTATIONS = frozenset({"CS", "UI"})
"""Values of these VRs hold no comma (PS3.5 6.2), so that it can separate several."""

STUDY_UID, SERIES_UID, INSTANCE_UID = "0020000D", "0020000E", "00080018"
FAILED, FAILURE_REASON = "00081198", "00081197"
STORED, WARNING_REASON = "00081199", "00081196"
REFERENCED_UID = "00081155"

UID = re.compile(r"[0-9.]{1,64}")
"""What may become part of a path; stores hold UIDs that are no valid ones."""


@dataclass(frozen=True, repr=False)
class WebInstance:
    """One instance in a store; it is fetched by the process that works on it.

    Its text is its name in the crosswalk, which is private; its `repr` says nothing.

    Attributes
    ----------
    store_url
        Of the service, without the scheme's prefix, query and secrets.
    study, series, instance
        UIDs. Private.
    """

    store_url: str
    study: str
    series: str
    instance: str

    def __str__(self) -> str:
        path = f"studies/{self.study}/series/{self.series}/instances/{self.instance}"
        return f"{SCHEME}{self.store_url}/{path}"

    def __repr__(self) -> str:
        return "WebInstance(<private>)"

    def read(self) -> bytes:
        """Fetch the file.

        Raises
        ------
        ImageRejected
            If the store does not give it, after several attempts where these may help.
        """
        try:
            return self.fetch()
        except StoreError as error:
            rejected = self.rejected(error)
        raise rejected

    def fetch(self) -> bytes:
        """Fetch the file, for who can wait for the store.

        Raises
        ------
        StoreError
            As `read`.
        """
        return open_store(self.store_url).retrieve(self.study, self.series, self.instance)

    def rejected(self, error: StoreError) -> ImageRejected:
        """Return what an error of the store means for this image."""
        rejected = ImageRejected(error.problem, error.remedy)
        rejected.sop_instance_uid = self.instance
        return rejected


@dataclass(frozen=True, repr=False)
class WebSeries:
    """One series in a store; like `WebInstance`, its text is private.

    Attributes
    ----------
    store_url
        Of the service, without the scheme's prefix, query and secrets.
    study, series
        UIDs. Private.
    """

    store_url: str
    study: str
    series: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.store_url}/studies/{self.study}/series/{self.series}"

    def __repr__(self) -> str:
        return "WebSeries(<private>)"

    def instances(self) -> Iterator[WebInstance]:
        """Yield its instances.

        Raises
        ------
        StoreError
            If the store cannot be asked.
        """
        return open_store(self.store_url).instances(self.study, self.series)


def is_store_url(name: str) -> bool:
    """Tell whether a name of a source is that of a store."""
    return name.startswith(SCHEME)


def find_instances(url: str) -> list[WebInstance]:
    """Return all instances of the series that a query finds, in the order of the store.

    Parameters
    ----------
    url
        ``dicomweb+https://host/path?Keyword=value&...`` with attributes of patient, study or series
        (PS3.18 8.3.4). Several values of a code or UID are separated by commas; each becomes a
        search of its own, for stores read lists in different ways.

    Raises
    ------
    OptionError
        If the URL is none, holds a secret, or its query names no attribute.
    StoreError
        If the store cannot be asked, or finds nothing.
    """
    found = {instance: None for series in find_series(url) for instance in series.instances()}
    if not found:
        raise StoreError("the query finds no instance", "check its attributes and their values")
    logger.info("the store has %d instances that match", len(found))
    return list(found)


def find_series(url: str) -> Iterator[WebSeries]:
    """Yield the series that a query finds, in the order of the store; see `find_instances`.

    Raises
    ------
    OptionError
        As `find_instances`, at once.
    StoreError
        If the store cannot be asked, as they are yielded.
    """
    parts = _split(url)
    filters, base = _filters(parts.query), _base(parts)
    return (
        WebSeries(base, study, series)
        for search in filters
        for study, series in open_store(base).series(search)
    )


def store_url(url: str) -> str:
    """Return the URL of a service as `open_store` wants it; the scheme's prefix may be missing.

    Raises
    ------
    OptionError
        If it is no URL, holds a secret or has a query.
    """
    parts = _split(url if is_store_url(url) else f"{SCHEME}{url}")
    if parts.query:
        raise OptionError("the URL of a target has a query", "name the service alone")
    return _base(parts)


@lru_cache(maxsize=8)
def open_store(url: str) -> DicomwebStore:
    """Return this process's connection to a store, with what the environment says of access."""
    from privdiff_infer.dicom.web_session import Access

    return DicomwebStore(url, Access.from_environment())


class DicomwebStore:
    """A DICOMweb service.

    Parameters
    ----------
    url
        Of the service, such as ``https://host/dicom-web``; see `store_url`.
    access
        How the store knows us.
    """

    def __init__(self, url: str, access: Access) -> None:
        from dicomweb_client import DICOMwebClient

        from privdiff_infer.dicom.web_session import DicomwebSession

        self.url = url
        self._session = DicomwebSession(access)
        self._client = DICOMwebClient(
            url, session=self._session, permissive_uid=True, timeout=self._session.timeout
        )
        self._client.set_http_retry_params(retry=False)  # the session does it, and more

    def __repr__(self) -> str:
        return f"DicomwebStore({self.url!r})"

    def series(self, filters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yield (study, series) UIDs of all series that match.

        Raises
        ------
        StoreError
            If the store cannot be asked or answers with something else.
        """
        search = partial(self._client.search_for_series, search_filters=dict(filters))
        for item in self._pages(search, SERIES_UID):
            yield _uid(item, STUDY_UID), _uid(item, SERIES_UID)

    def instances(self, study: str, series: str) -> Iterator[WebInstance]:
        """Yield all instances of a series.

        Raises
        ------
        StoreError
            As `series`.
        """
        search = partial(self._client.search_for_instances, study, series)
        for item in self._pages(search, INSTANCE_UID):
            yield WebInstance(self.url, study, series, _uid(item, INSTANCE_UID))

    def holds(self, study: str, series: str, instance: str) -> bool:
        """Tell whether the store has an instance.

        Raises
        ------
        StoreError
            If it cannot be asked.
        """
        search = partial(self._client.search_for_instances, study, series)
        filters = {"SOPInstanceUID": instance}
        items = self._session.ask(partial(search, search_filters=filters))
        return any(_uid(item, INSTANCE_UID) == instance for item in items)

    def retrieve(self, study: str, series: str, instance: str) -> bytes:
        """Return the file of one instance, in the transfer syntax in which the store keeps it.

        Raises
        ------
        StoreError
            If the store does not give it.
        """
        url = f"{self.url}/studies/{study}/series/{series}/instances/{instance}"
        return self._session.ask(partial(self._retrieve, url))

    def store(self, content: bytes, instance: str) -> str:
        """Send one file, once; return what the store warns of, or nothing.

        Parameters
        ----------
        content
            The file, sent as it is.
        instance
            Its SOP Instance UID.

        Raises
        ------
        StoreError
            If the store refuses it. If `is_passing` is set, it may have arrived nevertheless.
        """
        boundary = secrets.token_hex(16)
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(),
                content,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        return self._session.ask_once(partial(self._post, body, headers, instance))

    def _pages(self, search: Search, key: str) -> Iterator[Mapping[str, Any]]:
        """Yield every result once, page by page."""
        seen: set[str] = set()
        received = 0
        while True:
            page = self._session.ask(partial(search, limit=PAGE, offset=received))
            received += len(page)
            fresh = _fresh(page, key, seen)
            if page and not fresh:  # the first page again: this store does not know `offset`
                fresh = _fresh(self._session.ask(search), key, seen)
                yield from fresh
                return
            yield from fresh
            if not page:
                return

    def _retrieve(self, url: str) -> bytes:
        from privdiff_infer.dicom.web_session import status_failure

        headers = {
            "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',
            "Accept-Encoding": "identity",  # pixels hardly shrink, and packing takes stores long
        }
        with self._session.get(
            url, headers=headers, stream=True, timeout=self._session.timeout
        ) as response:
            if response.status_code != 200:
                raise status_failure(response)
            return _only_part(response.headers.get("Content-Type", ""), response.content)

    def _post(self, body: bytes, headers: Mapping[str, str], instance: str) -> str:
        response = self._session.post(
            f"{self.url}/studies",
            data=body,
            headers=dict(headers),
            timeout=self._session.timeout,
            allow_redirects=False,  # `requests` would follow with a GET
        )
        return _verdict(response, instance)


class Search(Protocol):
    """A search of `dicomweb_client` that lacks the page only."""

    def __call__(self, *, limit: int = ..., offset: int = ...) -> list[dict[str, Any]]:
        """Return results in the DICOM JSON model (PS3.18 F.2)."""


def _split(url: str) -> SplitResult:
    remedy = f"write {SCHEME}https://host/path?Modality=DX,CR"
    try:
        parts = urlsplit(url.removeprefix(SCHEME))
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    if not has_host or parts.scheme not in ("http", "https") or parts.fragment:
        raise OptionError("this is no URL of a DICOMweb service", remedy)
    if "@" in parts.netloc:
        raise OptionError(
            "the URL holds a user name or a password, which every process list shows",
            "set PRIVDIFF_DICOMWEB_USER and PRIVDIFF_DICOMWEB_PASSWORD, or use netrc",
        )
    return parts


def _base(parts: SplitResult) -> str:
    path = re.sub("/+", "/", parts.path).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc.lower(), path, "", ""))


def _filters(query: str) -> list[dict[str, str]]:
    """Return one set of filters for every combination of listed values."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    choices: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        tag = tag_for_keyword(name)
        if tag is None:  # not quoted: it may be a token
            raise OptionError(
                "the query of the URL names something that is no DICOM attribute",
                "use keywords such as Modality or StudyDate; tokens belong in the environment",
            )
        values = value.split(",") if dictionary_VR(tag) in LIST_REPRESENTATIONS else [value]
        choices.setdefault(name, []).extend(values)
    if not choices:
        raise OptionError(
            "the URL has no query, which would take everything in the store",
            "add one, such as ?Modality=DX,CR",
        )
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def _fresh(page: Sequence[Mapping[str, Any]], key: str, seen: set[str]) -> list[Mapping[str, Any]]:
    """Return the results that are not in `seen`, and add them to it."""
    fresh = []
    for item in page:
        uid = _uid(item, key)
        if uid not in seen:
            seen.add(uid)
            fresh.append(item)
    return fresh


def _uid(item: Mapping[str, Any], tag: str) -> str:
    """Return a UID of a search result.

    Raises
    ------
    StoreError
        If there is none, or something that must not become part of a path.
    """
    try:
        uid = item[tag]["Value"][0]
        if UID.fullmatch(uid):
            return str(uid)
    except (KeyError, IndexError, TypeError):
        pass
    raise StoreError(
        "the store's answer holds a result without a UID", "check that it is a DICOMweb service"
    )


def _only_part(content_type: str, body: bytes) -> bytes:
    """Return the one file of a multipart message, or of a message that is the file itself."""
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_type() == "application/dicom":  # against PS3.18 10.4.1, but frequent
        return body
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/related" or not boundary:
        raise _not_one_file()
    delimiter = b"--" + boundary.encode()
    start = body.find(b"\r\n\r\n", body.find(delimiter))
    end = body.find(b"\r\n" + delimiter, start + 4)
    if start < 0 or end < 0 or not body.startswith(b"--", end + 2 + len(delimiter)):
        raise _not_one_file()
    return body[start + 4 : end]


def _not_one_file() -> StoreError:
    return StoreError(
        "the store's answer is not one complete DICOM file", "check that it has the instance"
    )


def _verdict(response: requests.Response, instance: str) -> str:
    """Return the warning of a store's answer to one instance (PS3.18 10.5.3).

    Raises
    ------
    StoreError
        If the instance was not stored, or the answer does not say that it was.
    """
    from privdiff_infer.dicom.web_session import status_failure

    answer = _answer(response)
    reasons = dict(_listed(answer, FAILED, FAILURE_REASON))
    if instance in reasons:
        raise StoreError(
            f"the store refuses the instance (failure reason {reasons[instance]})",
            "see PS3.18 table I.2-2 and the store's log",
        )
    if not response.ok or 300 <= response.status_code < 400:
        raise status_failure(response)
    warnings = dict(_listed(answer, STORED, WARNING_REASON))
    if instance not in warnings:
        raise StoreError(
            "the store does not say that it took the instance",
            "run again: what has arrived is not sent twice",
            is_passing=True,
        )
    return f"warning reason {warnings[instance]}" if warnings[instance] else ""


def _answer(response: requests.Response) -> Mapping[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _listed(answer: Mapping[str, Any], sequence: str, reason: str) -> Iterator[tuple[str, str]]:
    """Yield (SOP Instance UID, reason as four hexadecimal digits or nothing) of a sequence."""
    try:
        for item in answer.get(sequence, {}).get("Value", []):
            codes = item.get(reason, {}).get("Value", [])
            yield item[REFERENCED_UID]["Value"][0], f"{int(codes[0]):04X}H" if codes else ""
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return
