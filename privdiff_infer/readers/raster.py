"""PNG and JPEG files, read by Pillow."""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from privdiff_infer.errors import ImageRejected
from privdiff_infer.radiograph import MAX_PIXELS, Decoded, SourceFormat, check_size

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
GREY_TOLERANCE = 12
"""Largest difference of two channels, in 8-bit steps, that lossy chroma makes of a grey image."""


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
    is_png = content.startswith(PNG_SIGNATURE)
    try:
        with warnings.catch_warnings():
            # Pillow's own limit comes after `check_size` and would only repeat it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content), formats=["PNG", "JPEG", "MPO"])
            check_size(image.height, image.width)
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise ImageRejected(f"the image has {frames} frames", "export a single image")
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
    upright = ImageOps.exif_transpose(image)
    values, bits = _grey_values(upright)
    return Decoded(
        pixels=(values / np.float32(2**bits - 1)).astype(np.float32),
        spacing_mm=_spacing(image),
        source_format=SourceFormat.PNG if is_png else SourceFormat.JPEG,
        bits_stored=bits,
    )


def _grey_values(image: Image.Image) -> tuple[np.ndarray, int]:
    """Return stored values (rows, columns) and their bits."""
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.float32), 16
    if image.mode in {"1", "L"}:
        return np.asarray(image.convert("L"), dtype=np.float32), 8
    if image.mode in {"LA", "RGBA", "PA"} or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            raise ImageRejected("the image is partly transparent", "export it without transparency")
    channels = np.asarray(image.convert("RGB"), dtype=np.float32)
    spread = channels.max(axis=-1) - channels.min(axis=-1)
    if np.quantile(spread, 0.99) > GREY_TOLERANCE:
        raise ImageRejected(
            f"the image is in colour (channels differ by up to {spread.max():.0f} of 255)",
            "use a grey radiograph",
        )
    return channels.mean(axis=-1), 8


def _spacing(image: Image.Image) -> tuple[float, float] | None:
    """Return spacing from a PNG's pixels per metre; other resolutions are printing advice."""
    if image.format != "PNG" or "dpi" not in image.info:
        return None
    across, down = (float(value) for value in image.info["dpi"])
    if across <= 0 or down <= 0:
        return None
    spacing = (25.4 / down, 25.4 / across)
    # Screen resolutions such as 72 or 96 dpi are defaults of programs, not measurements.
    return spacing if all(0.02 <= value <= 0.26 for value in spacing) else None
