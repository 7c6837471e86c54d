"""Decodes, with Pillow, formats without a TensorFlow op, such as TIFF and AVIF."""

from __future__ import annotations

import io
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps

# Pillow's other readers are left out: some of them start external programs.
FORMATS = ("AVIF", "BMP", "ICO", "JPEG", "JPEG2000", "PPM", "TGA", "TIFF")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_UNDEFINED = ("I", "F")  # modes without a defined largest value
_ALPHA_MODES = ("RGBA", "RGBa", "LA", "La", "PA")

# Pillow warns above its own, lower limit and fails above twice that limit. The warning
# is off because `decoding.MAX_PIXELS` is the limit here.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)


def decode(data: bytes) -> np.ndarray:
    """Decodes the first frame as RGBA pixels [H, W, 4] uint8.

    The pixels are upright, except those of JPEG files: `decoding.decode` turns these,
    because `exif` reads the orientation of JPEG files, but of no other format here.

    Args:
      data: the bytes of a file.

    Raises:
      ValueError: Pillow can't read the file; the message gives the reason.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode in _UNDEFINED:
                raise ValueError(
                    f"pixel mode {image.mode!r} has no defined largest value"
                )
            if image.format == "JPEG":
                return _to_rgba(image)
            return _to_rgba(PIL.ImageOps.exif_transpose(image))
    except PIL.UnidentifiedImageError as error:
        raise ValueError("not an image, or an unsupported format") from error
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def _to_rgba(image: PIL.Image.Image) -> np.ndarray:
    if image.mode in _SIXTEEN_BITS:
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        image = PIL.Image.fromarray(grey)
    has_alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
    # Pillow converts CMYK and similar modes to RGBA only by way of RGB.
    return np.asarray((image if has_alpha else image.convert("RGB")).convert("RGBA"))
