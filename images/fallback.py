"""Decodes with Pillow what TensorFlow's ops can't read, such as TIFF and AVIF."""

from __future__ import annotations

import io
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps

# Not all that Pillow knows: some of its readers start other programs.
FORMATS = ("AVIF", "BMP", "ICO", "JPEG", "JPEG2000", "PPM", "TGA", "TIFF")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_UNDEFINED = ("I", "F")  # of no defined largest value
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")

# `decoding.MAX_PIXELS` is the limit here; Pillow warns of a lower one, and refuses what
# is more than twice that.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)


def decode(data: bytes) -> np.ndarray:
    """The pixels of the first frame, with alpha, [H, W, 4] uint8.

    They are upright, but for JPEG files, whose orientation `exif` reads.

    Args:
      data: the bytes of a file.

    Raises:
      ValueError: Pillow can't read it; the message says why.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode in _UNDEFINED:
                raise ValueError(
                    f"pixels of mode {image.mode!r} have no defined largest value"
                )
            if image.format == "JPEG":
                return _with_alpha(image)
            return _with_alpha(PIL.ImageOps.exif_transpose(image))
    except PIL.UnidentifiedImageError as error:
        raise ValueError("it is no image, or of a format that can't be read") from error
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def _with_alpha(image: PIL.Image.Image) -> np.ndarray:
    if image.mode in _SIXTEEN_BITS:
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        image = PIL.Image.fromarray(grey)
    has_alpha = image.mode in _WITH_ALPHA or "transparency" in image.info
    # Pillow has no way from CMYK and the like to RGBA but through RGB.
    return np.asarray((image if has_alpha else image.convert("RGB")).convert("RGBA"))
