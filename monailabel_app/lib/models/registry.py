"""The bundles that this server can use, and the one that jobs take which name none.

There are those of the installed package, the one of the settings, and those that were trained here,
below ``STATE/models``. A bundle is found as soon as its folder is there, and every process reads
which one is the default when it needs one, so a job takes the default of the moment it begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from pydantic import ValidationError

from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.errors import BadRequest, Conflict, NotFound
from monailabel_app.lib.models.comparison import (
    ComparisonRecord,
    ModelReference,
    Record,
    read_comparison,
)
from monailabel_app.lib.settings import ServerSettings
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.audit import Event
from privdiff_infer.errors import BundleError
from privdiff_infer.model.bundle import (
    BUNDLES,
    MODEL_INDEX,
    BundleInfo,
    bundle_files,
    find_bundle,
    read_bundle,
    verify_bundle,
)
from privdiff_infer.release import write_private

LIST = "list them with GET /privdiff/v1/models"

Stamp = tuple[tuple[str, int, int], ...]
"""Name, size and time of every file: whether a bundle must be hashed again."""


class Origin(str, Enum):
    """Where a bundle comes from."""

    CONFIGURED = "configured"
    EMBEDDED = "embedded"
    TRAINED = "trained"


@dataclass(frozen=True)
class Model:
    """One bundle that the server has found.

    Attributes
    ----------
    id
        ``<name>-<version>``; the name of the folder where the metadata is not understood.
    path
        Its folder.
    origin
        Where it comes from.
    info
        What its metadata says; None where it is not understood.
    problem
        Why it cannot be used; empty where it can.
    comparison
        With the bundle that it was trained from, if there was one.
    """

    id: str
    path: Path
    origin: Origin
    info: BundleInfo | None
    problem: str = ""
    comparison: ComparisonRecord | None = None

    @property
    def sha256(self) -> str:
        """Of its metadata; empty where that is not understood."""
        return "" if self.info is None else self.info.sha256

    @property
    def reference(self) -> ModelReference:
        """Which bundle it is, exactly."""
        return ModelReference(id=self.id, sha256=self.sha256)

    def usable(self) -> BundleInfo:
        """Return what its metadata says.

        Raises
        ------
        Conflict
            If it cannot be used.
        """
        if self.info is None or self.problem:
            raise Conflict(f"the model {self.id} cannot be used: {self.problem}", LIST)
        return self.info


class DefaultModel(Record):
    """The content of ``STATE/default-model.json``."""

    model: ModelReference
    by: str
    time: datetime


class ModelRegistry:
    """The bundles of one server.

    A bundle is hashed when it is seen for the first time, and again when a file of it has another
    size or time.

    Parameters
    ----------
    settings
        Which bundle is configured, and where STATE is.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._configured = settings.bundle
        self._folder = StateFolder(settings.state)
        self._verified: dict[Path, tuple[Stamp, BundleInfo | BundleError]] = {}

    def models(self) -> list[Model]:
        """Return all bundles: the configured one, the embedded ones, those that were trained here.

        Of two with the same name and version the first one counts; the other is not usable.
        """
        found: dict[str, Model] = {}
        listed = []
        for path, origin in self._places():
            model = self._inspect(path, origin)
            if not model.problem and model.id in found:
                model = _unusable(model, "another model has this name and version")
            found.setdefault(model.id, model)
            listed.append(model)
        return listed

    def default(self) -> Model:
        """Return the bundle that jobs take which name none.

        Raises
        ------
        Conflict
            If it is not there, damaged, or another one than was made the default. No other is
            taken in its place.
        """
        chosen = self._chosen()
        if chosen is None:
            model = self._inspect(*self._place_of_configured())
        else:
            try:
                model = self._by_id(chosen.model.id)
            except NotFound:
                raise Conflict(
                    f"the default model {chosen.model.id} is no longer there",
                    "make another one the default",
                ) from None
        model.usable()
        if chosen is not None and model.sha256 != chosen.model.sha256:
            raise Conflict(
                f"{model.id} is not the bundle that was made the default",
                "make it the default anew",
            )
        return model

    def default_id(self) -> str:
        """Return the id of the default, or nothing while there is none that can be used."""
        try:
            return self.default().id
        except Conflict:
            return ""

    def resolve(self, name_or_id: str = "") -> tuple[Path, BundleInfo]:
        """Return the bundle of a job that begins now.

        Parameters
        ----------
        name_or_id
            ``<name>-<version>``, or a name that one bundle has, or that the default has; empty: the
            default.

        Raises
        ------
        NotFound
            If there is no such bundle.
        BadRequest
            If several have that name.
        Conflict
            If it cannot be used, or its linkage was not measured.
        """
        model = self._named(name_or_id) if name_or_id else self.default()
        info = model.usable()
        _require_measured(model)
        return model.path, info

    def activate(self, model_id: str, by: str, audit: ServerAudit) -> Model:
        """Make a bundle the one that jobs take which name none.

        Parameters
        ----------
        model_id
            ``<name>-<version>``.
        by
            Name of the administrator.
        audit
            Is told first.

        Raises
        ------
        NotFound
            If there is no such bundle.
        Conflict
            If it cannot be used, or was trained here and not compared with the one it replaces.
        """
        model = self._by_id(model_id)
        model.usable()
        _require_measured(model)
        self._require_compared(model)
        chosen = DefaultModel(model=model.reference, by=by, time=datetime.now(timezone.utc))
        audit.record(Event.MODEL_ACTIVATED, by=by, sha256=model.sha256, model=model.id)
        write_private(self._folder.default_model, chosen.model_dump_json(indent=2).encode())
        return model

    def _require_compared(self, model: Model) -> None:
        """Refuse a bundle of ours unless it was measured beside the one that it replaces.

        One comparison holds both ways, so that a step can be taken back.
        """
        if model.origin is not Origin.TRAINED:
            return
        try:
            replaced = self.default()
        except Conflict:
            return  # nothing that works is replaced
        pair = (model.sha256, replaced.sha256)
        compared = (side.comparison for side in (model, replaced))
        if model.sha256 != replaced.sha256 and not any(
            record is not None and record.pairs(*pair) for record in compared
        ):
            raise Conflict(
                f"the model {model.id} was not compared with {replaced.id}, which it replaces",
                "fine-tune from the current default, or go back to the model it was compared with",
            )

    def _places(self) -> Iterator[tuple[Path, Origin]]:
        configured, origin = self._place_of_configured()
        yield configured, origin
        embedded = (index.parent for index in sorted(BUNDLES.glob(f"*/{MODEL_INDEX}")))
        # A name with a dot in front is that of a bundle that is being written.
        trained = (path for path in sorted(self._folder.models.glob("[!.]*")) if path.is_dir())
        for origin, paths in ((Origin.EMBEDDED, embedded), (Origin.TRAINED, trained)):
            for path in paths:
                if path.resolve() != configured.resolve():
                    yield path, origin

    def _place_of_configured(self) -> tuple[Path, Origin]:
        """Return the bundle of the settings; naming one that was trained here measures nothing."""
        try:
            path = find_bundle(self._configured)
        except BundleError:
            path = Path(self._configured)
        is_ours = path.resolve().parent == self._folder.models.resolve()
        return path, Origin.TRAINED if is_ours else Origin.CONFIGURED

    def _inspect(self, path: Path, origin: Origin) -> Model:
        if not path.is_dir():
            return Model(path.name, path, origin, None, "its folder is not there")
        try:
            stamp = _stamp(path)
            known = self._verified.get(path)
            if known is None or known[0] != stamp:
                known = self._verified[path] = (stamp, _verify(path))
        except OSError:
            return Model(path.name, path, origin, None, "it cannot be read")
        verdict = known[1]
        if isinstance(verdict, BundleInfo):
            comparison = read_comparison(path) if origin is Origin.TRAINED else None
            if comparison is not None and comparison.new.sha256 != verdict.sha256:
                comparison = None  # it was of another bundle in this folder
            return Model(_id(verdict), path, origin, verdict, comparison=comparison)
        try:
            info = read_bundle(path)
            return Model(_id(info), path, origin, info, verdict.problem)
        except (BundleError, OSError):
            return Model(path.name, path, origin, None, verdict.problem)

    def _by_id(self, model_id: str) -> Model:
        for model in self.models():
            if model.id == model_id:
                return model
        raise NotFound("there is no such model", LIST)

    def _named(self, name_or_id: str) -> Model:
        models = self.models()
        for model in models:
            if model.id == name_or_id:
                return model
        named = [model for model in models if model.info and model.info.name == name_or_id]
        default = self.default_id()
        preferred = [model for model in named if model.id == default] or named
        if not preferred:
            raise NotFound("there is no such model", LIST)
        if len(preferred) > 1:
            raise BadRequest(
                "several models have this name", f"name one of {', '.join(m.id for m in named)}"
            )
        return preferred[0]

    def _chosen(self) -> DefaultModel | None:
        """Return what was chosen last, or None if nobody has ever chosen."""
        file = self._folder.default_model
        try:
            return DefaultModel.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            raise Conflict(
                "the record of the default model cannot be read", "make a model the default anew"
            ) from None


def _require_measured(model: Model) -> None:
    """Refuse a bundle of ours whose linkage nobody knows."""
    if model.origin is Origin.TRAINED and not (model.comparison and model.comparison.is_measured):
        why = model.comparison.reason if model.comparison else ""
        raise Conflict(
            f"the linkage of the model {model.id} was not measured{': ' if why else ''}{why}",
            "let its training end, or start the same training again to measure it",
        )


def _unusable(model: Model, problem: str) -> Model:
    return Model(model.id, model.path, model.origin, model.info, problem, model.comparison)


def _id(info: BundleInfo) -> str:
    return f"{info.name}-{info.version}"


def _stamp(path: Path) -> Stamp:
    facts = ((name, file.stat()) for name, file in bundle_files(path).items())
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in facts)


def _verify(path: Path) -> BundleInfo | BundleError:
    try:
        return verify_bundle(path)
    except BundleError as error:
        return error
