"""Images made smaller; what could do harm, or is no image, is refused with a reason."""

import math
import struct
from io import BytesIO

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_BYTES = 50 * 1024 * 1024
MAX_METADATA = 5 * 1024 * 1024
"""Bytes of EXIF, XMP, color profile, comments and the like: several copies of them are in memory."""
MAX_PIXELS = {"JPEG": 50_000_000, "JPEG in several scans": 16_000_000, "PNG": 16_000_000, "WEBP": 8_500_000}
"""Pixels of a source, by how much memory its decoder takes: at these bounds a worker's process stays below `PEAK_MEMORY`."""
MAX_DECODED = 28_000_000
"""Pixels of a source that are decoded: a larger JPEG is decoded in half its size, a quarter or an eighth, where that suffices."""
PEAK_MEMORY = 420 * 1024 * 1024
"""Bytes that a worker's process takes at most while it makes an image smaller, measured by tests/e2e/images/test_image_memory.py.

tests/worker/test_worker_memory.py compares it with the workers' limits: whoever raises a bound above gives them more memory.
"""
MAX_SIDE = 4000
"""Pixels of a side that can be asked for."""

# What Pillow raises on damaged files differs from format to format; the second line is of damaged EXIF and palettes.
_DAMAGED = (
    *(EOFError, OSError, SyntaxError, ValueError),
    *(ArithmeticError, AssertionError, LookupError, TypeError, struct.error),
)


class InvalidImage(Exception):
    """The image is none that can be made smaller; the message says why."""


def resize(content: bytes, width: int, height: int) -> tuple[bytes, int, int]:
    """Return the image in its own format, made to fit into `width` x `height` pixels, and its new width and height.

    Its aspect ratio is kept, and it is never made larger. It stands upright as its camera held it; where and with what it was
    taken is left out. Of several frames the first is taken.

    Raises:
        InvalidImage: it is too large, damaged, or neither JPEG, PNG nor WebP; or the size is out of bounds.
    """
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise InvalidImage(f"a size is 1 to {MAX_SIDE} pixels each way, not {width} x {height}")
    if len(content) > MAX_BYTES:
        raise InvalidImage(f"the file is larger than {MAX_BYTES} bytes")
    try:
        small, image_format, profile = _made_smaller(content, width, height)
        # The source's memory is free again, as encoding takes about as much.
        written = BytesIO()
        small.save(written, image_format, icc_profile=profile, quality=85)
        return written.getvalue(), small.width, small.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidImage(f"there are more than {max(MAX_PIXELS.values())} pixels") from error
    except UnidentifiedImageError as error:
        raise InvalidImage(f"the file is no image of the formats {', '.join(FORMATS)}") from error
    except _DAMAGED as error:
        raise InvalidImage(f"the image is damaged: {str(error) or type(error).__name__}") from error


def _made_smaller(content: bytes, width: int, height: int) -> tuple[Image.Image, str, bytes | None]:
    # Reads the header only. Without `formats` each of Pillow's many parsers would get at what a stranger sent.
    image: Image.Image = Image.open(BytesIO(content), formats=FORMATS)
    _check_metadata(image)
    kind = image_format = str(image.format)
    if image_format == "JPEG":
        header, in_one_scan = _start_of_scan(content)
        if header > MAX_METADATA:
            raise InvalidImage(f"there are more than {MAX_METADATA} bytes of metadata")
        kind = "JPEG" if in_one_scan else "JPEG in several scans"
    if image.width * image.height > MAX_PIXELS[kind]:
        raise InvalidImage(
            f"{image.width} x {image.height} are more than {MAX_PIXELS[kind]} pixels, the most of a {kind}"
        )
    exif = image.getexif()
    if exif.get(ExifTags.Base.Orientation) in {5, 6, 7, 8}:
        # It is turned in the end, as turning makes a copy.
        width, height = height, width
    shrink = max(1.0, image.width / width, image.height / height)
    source = f"{image.width} x {image.height}"
    # Of JPEG only: decoded in a size between the wanted one and twice that, which saves most of the memory.
    image.draft(None, (math.ceil(image.width / shrink), math.ceil(image.height / shrink)))
    if image.width * image.height > MAX_DECODED:
        raise InvalidImage(f"{source} pixels are too many for a result of this size; ask for one of half the size")
    profile = image.info.get("icc_profile")
    image.load()
    # PNG may have more behind the pixels.
    _check_metadata(image)
    # 16 bits of grey, as PNG has them, would be cut off at 255, which is white.
    if image.mode not in {"L", "LA", "RGB", "RGBA", "CMYK", "I;16"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    # The quick first step is not there for 16 bits.
    gap = None if image.mode == "I;16" else 2.0
    image.thumbnail((width, height), Image.Resampling.LANCZOS, reducing_gap=gap)
    # A copy of the small pixels: the source's own object keeps its decoder.
    small = image.copy()
    ImageOps.exif_transpose(small, in_place=True)
    # What would otherwise be saved again: comments, for one.
    small.info = {}
    return small, image_format, profile


def _check_metadata(image: Image.Image) -> None:
    if sum(len(value) for value in image.info.values() if isinstance(value, bytes | str)) > MAX_METADATA:
        raise InvalidImage(f"there are more than {MAX_METADATA} bytes of metadata")


def _start_of_scan(content: bytes) -> tuple[int, bool]:
    """Return where a JPEG's pixels begin, and whether they are in one scan; elsewhere all of them are in memory while it is decoded.

    That is so if it is progressive, or has a scan for each component; one that is not understood here counts as such.
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
