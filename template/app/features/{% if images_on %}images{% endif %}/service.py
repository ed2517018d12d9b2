"""Resize images. Invalid and dangerous images are rejected with a reason."""

import math
import struct
from io import BytesIO
from typing import TYPE_CHECKING

# API and beat import this module for its limits, and workers for its exception; only `resize` needs Pillow (25 ms, 5 MB).
if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_BYTES = 50 * 1024 * 1024
MAX_METADATA = 5 * 1024 * 1024
"""Maximum bytes of metadata (EXIF, XMP, color profile, comments), of which several copies are in memory."""
MAX_PIXELS = {"JPEG": 50_000_000, "JPEG in several scans": 16_000_000, "PNG": 16_000_000, "WEBP": 8_500_000}
"""Maximum pixels of a source, by how much memory its decoder needs. With these, a process stays below `PEAK_MEMORY`."""
MAX_DECODED = 28_000_000
"""Maximum pixels to decode. A larger JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the result allows it."""
PEAK_MEMORY = 420 * 1024 * 1024
"""Maximum memory in bytes of a worker process that resizes an image, measured by tests/e2e/images/test_image_memory.py.

tests/worker/test_worker_memory.py compares it with the workers' memory limits: if you raise a limit above, raise those
too.
"""
MAX_SIDE = 4000
"""Maximum width and height of a result, in pixels."""

# Pillow's exceptions for damaged files differ by format; the second line is for damaged EXIF data and palettes.
_DAMAGED = (
    *(EOFError, OSError, SyntaxError, ValueError),
    *(ArithmeticError, AssertionError, LookupError, TypeError, struct.error),
)


class InvalidImage(Exception):
    """The image cannot be resized; the message is the reason."""


def resize(content: bytes, width: int, height: int) -> tuple[bytes, int, int]:
    """Return the image, resized to fit into `width` x `height` pixels, and its new width and height.

    Keeps the format and the aspect ratio; never enlarges the image. Applies the EXIF orientation and removes all other
    metadata, such as location and camera. Of an animation, only the first frame is used.

    Raises:
        InvalidImage: the image is too large, damaged, or not JPEG, PNG or WebP; or the requested size is invalid.
    """
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise InvalidImage(f"the size {width} x {height} is invalid; width and height must be 1 to {MAX_SIDE} pixels")
    if len(content) > MAX_BYTES:
        raise InvalidImage(f"the file is larger than {MAX_BYTES} bytes")
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    try:
        small, image_format, profile = _resized(content, width, height)
        # The source is freed by now; encoding needs about as much memory.
        written = BytesIO()
        small.save(written, image_format, icc_profile=profile, quality=85)
        return written.getvalue(), small.width, small.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidImage(f"the image has more than {max(MAX_PIXELS.values())} pixels") from error
    except UnidentifiedImageError as error:
        raise InvalidImage(f"the file is not an image in one of the formats {', '.join(FORMATS)}") from error
    except _DAMAGED as error:
        raise InvalidImage(f"the image is damaged: {str(error) or type(error).__name__}") from error


def _resized(content: bytes, width: int, height: int) -> "tuple[Image.Image, str, bytes | None]":
    from PIL import ExifTags, Image, ImageOps  # noqa: PLC0415

    # Reads only the header. `formats` restricts which of Pillow's parsers get untrusted data.
    image: Image.Image = Image.open(BytesIO(content), formats=FORMATS)
    _check_metadata(image)
    kind = image_format = str(image.format)
    if image_format == "JPEG":
        header, is_single_scan = _start_of_scan(content)
        if header > MAX_METADATA:
            raise InvalidImage(f"the image has more than {MAX_METADATA} bytes of metadata")
        kind = "JPEG" if is_single_scan else "JPEG in several scans"
    if image.width * image.height > MAX_PIXELS[kind]:
        raise InvalidImage(
            f"{image.width} x {image.height} pixels are too many; a {kind} may have at most {MAX_PIXELS[kind]}"
        )
    exif = image.getexif()
    if exif.get(ExifTags.Base.Orientation) in {5, 6, 7, 8}:
        # The image is rotated after resizing, because rotating makes a copy.
        width, height = height, width
    shrink = max(1.0, image.width / width, image.height / height)
    source = f"{image.width} x {image.height}"
    # Affects only JPEG: decode at one to two times the requested size, which saves most of the memory.
    image.draft(None, (math.ceil(image.width / shrink), math.ceil(image.height / shrink)))
    if image.width * image.height > MAX_DECODED:
        raise InvalidImage(f"{source} pixels are too many for a result of this size; request at most half the size")
    profile = image.info.get("icc_profile")
    image.load()
    # PNG may have more metadata after the pixels.
    _check_metadata(image)
    # Converting the 16-bit grayscale of PNG would clip values at 255, which is white.
    if image.mode not in {"L", "LA", "RGB", "RGBA", "CMYK", "I;16"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    # The fast first step (`reducing_gap`) does not support 16 bits.
    gap = None if image.mode == "I;16" else 2.0
    image.thumbnail((width, height), Image.Resampling.LANCZOS, reducing_gap=gap)
    # Copy the pixels: the source's object keeps its decoder in memory.
    small = image.copy()
    ImageOps.exif_transpose(small, in_place=True)
    # Otherwise metadata such as comments would be saved again.
    small.info = {}
    return small, image_format, profile


def _check_metadata(image: "Image.Image") -> None:
    if sum(len(value) for value in image.info.values() if isinstance(value, bytes | str)) > MAX_METADATA:
        raise InvalidImage(f"the image has more than {MAX_METADATA} bytes of metadata")


def _start_of_scan(content: bytes) -> tuple[int, bool]:
    """Return where a JPEG's pixel data starts, and whether it is in one scan.

    Otherwise the decoder keeps all pixels in memory: for progressive JPEGs, and for those with a scan per component. A
    file that this function cannot parse counts as one of these.
    """
    position, components = 2, 0
    while content[position : position + 1] == b"\xff":
        marker = content[position + 1 : position + 2]
        if marker == b"\xff":
            position += 1
            continue
        segment = content[position + 4 : position + 10]
        if marker in {b"\xc0", b"\xc1"} and len(segment) == 6:
            components = segment[5]
        elif marker == b"\xda":
            return position, bool(components) and segment[:1] == bytes([components])
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return position, False
