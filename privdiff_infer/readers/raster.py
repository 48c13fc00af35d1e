"""PNG and JPEG files, read by Pillow.

They never have a pixel spacing here: a PNG's pixels per metre and a JPEG's density say how large to
print, are set by programs (72, 96, 300 dpi) and not by detectors, and would squash the image where
the two axes differ.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from privdiff_infer.errors import ImageRejected
from privdiff_infer.file_formats import SourceFormat
from privdiff_infer.radiograph import MAX_PIXELS, Decoded, check_size

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
GREY_TOLERANCE = 12 / 255
"""Largest difference of two channels, of the range, that lossy chroma makes of a grey image."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation; 1 is upright."""

PNG_DEPTH_OFFSET = len(PNG_SIGNATURE) + 8 + 8  # signature, chunk head, width and height
COLOUR_TYPES_OF_16_BITS = {2: ("RGB;16B", "RGB;16L"), 4: ("RGBA",), 6: ("RGBA;16B", "RGBA;16L")}
"""Pillow's raw modes that together give both bytes of each sample, by PNG colour type.

Pillow keeps 8 bits of a colour sample: read as big-endian it keeps the upper byte, read as
little-endian the lower. Grey with alpha is four bytes a pixel, as RGBA of 8 bits is.
"""


def recognizes(content: bytes) -> bool:
    """Tell whether a file is PNG or JPEG."""
    return content.startswith((PNG_SIGNATURE, JPEG_SIGNATURE))


def decode(content: bytes) -> Decoded:
    """Decode a grey image of 8 or 16 bits, or a colour image whose channels are equal.

    Raises
    ------
    ImageRejected
        If the file is damaged, animated, transparent or in colour.
    """
    try:
        image = _open(content)
        check_size(image.height, image.width)
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise ImageRejected(
                "the image has several frames", "export a single image", detail=f"{frames} frames"
            )
        image.load()
    except Image.DecompressionBombError as error:
        raise ImageRejected(
            f"the image claims more than {MAX_PIXELS} pixels", "check the file or reduce it"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageRejected("the image file is damaged", "export it again") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageRejected(
            "the image file is damaged or cut off", "copy or export it again"
        ) from error
    values, bits = _grey_values(image, content)
    upright = Image.fromarray(values)
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation in UPRIGHT:
        upright = upright.transpose(UPRIGHT[orientation])
    return Decoded(
        pixels=np.asarray(upright, dtype=np.float32),
        spacing_mm=None,
        source_format=SourceFormat.PNG if content.startswith(PNG_SIGNATURE) else SourceFormat.JPEG,
        bits_stored=bits,
    )


def _open(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow's own limit comes before `check_size` and would only repeat it.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(BytesIO(content), formats=["PNG", "JPEG", "MPO"])


def _grey_values(image: Image.Image, content: bytes) -> tuple[np.ndarray, int]:
    """Return float32 values (rows, columns) in [0, 1] and the bits of a stored value."""
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.float32) / 65535, 16
    if image.mode in {"1", "L"}:
        return np.asarray(image.convert("L"), dtype=np.float32) / 255, 8
    has_colour_key = "transparency" in image.info
    if content.startswith(PNG_SIGNATURE) and content[PNG_DEPTH_OFFSET] == 16 and not has_colour_key:
        return _grey_of_channels(_samples_of_16_bits(content).astype(np.float32) / 65535), 16
    has_alpha = has_colour_key or image.mode in {"LA", "RGBA", "PA"}
    samples = np.asarray(image.convert("RGBA" if has_alpha else "RGB"), dtype=np.float32)
    return _grey_of_channels(samples / 255), 8


def _samples_of_16_bits(content: bytes) -> np.ndarray:
    """Return (rows, columns, channels) uint16 of a PNG of several 16-bit channels."""
    raw_modes = COLOUR_TYPES_OF_16_BITS[content[PNG_DEPTH_OFFSET + 1]]
    planes = [_decoded_as(content, raw_mode) for raw_mode in raw_modes]
    if len(planes) == 1:
        return planes[0].view(">u2").astype(np.uint16)  # (rows, columns, 4 bytes) -> 2 samples
    upper, lower = (plane.astype(np.uint16) for plane in planes)
    return upper << 8 | lower


def _decoded_as(content: bytes, raw_mode: str) -> np.ndarray:
    """Return (rows, columns, channels) uint8 of a PNG, unpacked by `raw_mode`."""
    image: Any = _open(content)
    image.tile = [(*tile[:3], raw_mode) for tile in image.tile]
    return np.array(image)


def _grey_of_channels(samples: np.ndarray) -> np.ndarray:
    """Return the mean of equal channels.

    `samples` has the shape (rows, columns, channels), float32 in [0, 1]: grey or RGB, and alpha if
    the number of channels is even.
    """
    if samples.shape[-1] % 2 == 0:
        if samples[..., -1].min() < 1:
            raise ImageRejected("the image is partly transparent", "export it without transparency")
        samples = samples[..., :-1]
    spread = samples.max(axis=-1) - samples.min(axis=-1)
    if np.quantile(spread, 0.99) > GREY_TOLERANCE:
        raise ImageRejected(
            "the image is in colour",
            "use a grey radiograph",
            detail=f"channels differ by up to {spread.max():.2f} of the range",
        )
    return samples.mean(axis=-1, dtype=np.float32)
