"""MONAI Label's routes of images and labels, over our datastore.

Upstream's write what is sent to the temporary folder under a suffix of the client's, and leave it
there when something fails; and they give originals to everybody.
"""

from __future__ import annotations

import mimetypes
import shutil
import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse
from monailabel.interfaces.datastore import DefaultLabelTag
from starlette.background import BackgroundTask

from monailabel_app.lib.datastores.datastore import PrivDiffDatastore, is_original
from monailabel_app.lib.errors import BadRequest, Forbidden
from monailabel_app.lib.infers.params import parse_params
from monailabel_app.lib.security.roles import Principal, Require, Role
from monailabel_app.lib.server import Server, server
from privdiff_infer.audit import Event
from privdiff_infer.release import reporting_disk_errors

router = APIRouter(prefix="/datastore", tags=["Datastore"])

Image = Annotated[str, Query(max_length=100, description="Id of an image.")]
LabelId = Annotated[str, Query(max_length=100, description="Id of a label: that of its image.")]
Tag = Annotated[str, Query(max_length=64, description="Such as final.")]
Asking = Annotated[Principal, Depends(Require(Role.USER))]
JsonText = Annotated[str, Form(description="A JSON object.")]


OF_NEXT_SAMPLE = frozenset({"id", "name", "strategy"})
"""What MONAI Label's active learning answers, mixed with what is noted of the image."""


class Output(str, Enum):
    """What is told of the datastore."""

    STATS = "stats"
    ALL = "all"
    TRAIN = "train"


def datastore(request: Request) -> PrivDiffDatastore:
    """Return the datastore; a dependency of routes."""
    found: PrivDiffDatastore = request.app.state.datastore
    return found


Store = Annotated[PrivDiffDatastore, Depends(datastore)]


@router.get("/", summary="Count or list images and labels")
def get_datastore(store: Store, asking: Asking, output: Output = Output.STATS) -> Any:
    """Return counts, all ids, or the pairs of approved results and final labels."""
    if output is Output.ALL:
        return store.json()
    if output is Output.TRAIN:
        return [{kind: Path(file).name for kind, file in pair.items()} for pair in store.datalist()]
    return store.status()


@router.get("/image", summary="Download an approved result; a reviewer, an original")
def get_image(
    image: Image, store: Store, here: Annotated[Server, Depends(server)], asking: Asking
) -> FileResponse:
    """Return the file of an image; that an original was shown is an audit entry."""
    _check_may_see(image, asking)
    path, name = store.get_image_uri(image), store.file_name(image)
    if is_original(image):
        here.audit.record(Event.ORIGINAL_SHOWN, by=asking.name)
    return _file(path, name)


@router.head("/image", include_in_schema=False)
def check_image(image: Image, store: Store, asking: Asking) -> None:
    """Tell whether there is an image."""
    _check_may_see(image, asking)
    store.get_image_info(image)


@router.get("/image/info", summary="What clients noted of an image")
def get_image_info(image: Image, store: Store, asking: Asking) -> dict[str, Any]:
    """Return what was noted; nothing of a header."""
    return store.get_image_info(image)


@router.put("/image/info", summary="Note something of an image")
def put_image_info(
    image: Image, store: Store, asking: Asking, info: JsonText = "{}"
) -> dict[str, Any]:
    """Add to what is noted of an image."""
    _check_may_see(image, asking)
    noted = parse_params(info)
    if noted.keys() & OF_NEXT_SAMPLE:
        raise BadRequest(
            "the server itself says this of an image",
            f"leave out: {', '.join(sorted(OF_NEXT_SAMPLE))}",
        )
    store.update_image_info(image, {**noted, "user": asking.name})
    return {}


@router.get("/label", summary="Download a label")
def get_label(label: LabelId, tag: Tag, store: Store, asking: Asking) -> FileResponse:
    """Return the file of a label."""
    _check_may_see(label, asking)
    path = store.get_label_uri(label, tag)
    return _file(path, Path(path).name)


@router.head("/label", include_in_schema=False)
def check_label(
    tag: Tag, store: Store, asking: Asking, label: LabelId = "", image: Image = ""
) -> None:
    """Tell whether there is a label."""
    _check_may_see(label or image, asking)
    store.get_label_uri(label or image, tag)


@router.put("/label", summary="Save a label")
def put_label(
    image: Image,
    store: Store,
    here: Annotated[Server, Depends(server)],
    asking: Asking,
    label: Annotated[UploadFile, File()],
    tag: Tag = DefaultLabelTag.FINAL.value,
    params: JsonText = "{}",
) -> dict[str, str]:
    """Save a label of an image; one of the same tag is replaced. It goes to no store."""
    _check_may_see(image, asking)
    info = {**parse_params(params), "user": asking.name}
    with tempfile.NamedTemporaryFile(dir=here.folder.cache) as file, reporting_disk_errors():
        shutil.copyfileobj(label.file, file)
        file.flush()
        store.save_upload(image, Path(file.name), label.filename or "", tag, info)
    return {"image": image, "label": image}


@router.delete("/label", summary="Delete a label")
def delete_label(
    id: LabelId,
    tag: Tag,
    store: Store,
    asking: Annotated[Principal, Depends(Require(Role.ADMIN))],
) -> dict[str, Any]:
    """Delete a label."""
    store.remove_label(id, tag)
    return {}


@router.get("/label/info", summary="What is known of a label")
def get_label_info(label: LabelId, tag: Tag, store: Store, asking: Asking) -> dict[str, Any]:
    """Return what is known of a label."""
    return store.get_label_info(label, tag)


@router.put("/label/info", summary="Note something of a label")
def put_label_info(
    label: LabelId, tag: Tag, store: Store, asking: Asking, info: JsonText = "{}"
) -> dict[str, Any]:
    """Add to what is known of a label."""
    _check_may_see(label, asking)
    store.update_label_info(label, tag, {**parse_params(info), "user": asking.name})
    return {}


@router.get("/dataset", summary="Download approved results and their labels")
def get_dataset(
    store: Store,
    asking: Annotated[Principal, Depends(Require(Role.REVIEWER))],
    limit_cases: Annotated[int | None, Query(ge=1)] = None,
) -> FileResponse:
    """Return a ZIP archive."""
    archive = Path(store.get_dataset_archive(limit_cases))
    answer = _file(str(archive), "dataset.zip")
    answer.background = BackgroundTask(archive.unlink)
    return answer


def _check_may_see(image_id: str, asking: Principal) -> None:
    if is_original(image_id) and not asking.role.includes(Role.REVIEWER):
        raise Forbidden(Role.REVIEWER.value)


def _file(path: str, name: str) -> FileResponse:
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return FileResponse(path, media_type=media_type, filename=name)
