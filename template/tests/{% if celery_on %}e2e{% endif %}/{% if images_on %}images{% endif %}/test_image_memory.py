"""The memory that a worker process needs for the largest accepted image of each kind."""

import io
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.features.images.service import MAX_BYTES, MAX_DECODED, MAX_PIXELS, PEAK_MEMORY
from tests import ROOT

# In a process that has imported everything that a worker imports.
MEASURE = """
import re, sys
from pathlib import Path
from app.core.celery import celery_app
from app.features.images.service import resize

celery_app.loader.import_default_modules()
resize(Path(sys.argv[1]).read_bytes(), int(sys.argv[2]), int(sys.argv[2]))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def _saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    written = io.BytesIO()
    image.save(written, image_format, exif=exif, **options)
    return written.getvalue()


def _jpeg(size: tuple[int, int]) -> bytes:
    return _saved(Image.new("RGB", size, "red"), "JPEG")


def _progressive_jpeg(size: tuple[int, int]) -> bytes:
    return _saved(Image.new("CMYK", size, "red"), "JPEG", progressive=True, subsampling=0)


def _png(size: tuple[int, int]) -> bytes:
    return _saved(Image.new("RGBA", size, "red"), "PNG", compress_level=1)


def _animated_webp(size: tuple[int, int]) -> bytes:
    frames = [Image.new("RGBA", size, (number, 0, 0, 99)) for number in range(2)]
    return _saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], method=0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports the peak memory of a process")
@pytest.mark.parametrize(
    ("pixels", "made"),
    [
        # A larger image is decoded at half its size.
        (MAX_DECODED, _jpeg),
        (MAX_PIXELS["JPEG in several scans"], _progressive_jpeg),
        (MAX_PIXELS["PNG"], _png),
        (MAX_PIXELS["WEBP"], _animated_webp),
    ],
)
def test_the_largest_image_stays_within_peak_memory(
    pixels: int, made: Callable[[tuple[int, int]], bytes], tmp_path: Path
) -> None:
    height = math.isqrt(pixels)
    size = (pixels // height, height)
    # The largest accepted file: the padding after the image is ignored, but in memory.
    (tmp_path / "image").write_bytes(made(size).ljust(MAX_BYTES, b"\0"))
    # The largest result that is still smaller than the source: the result needs memory too.
    side = min(4000, size[0] - 10)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "image"), str(side)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < PEAK_MEMORY, f"{int(done.stdout) // 1024} MiB"
