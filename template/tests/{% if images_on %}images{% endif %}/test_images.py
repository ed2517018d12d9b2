"""Thumbnails of valid, invalid and dangerous images."""

import io
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2 as httpx
import obstore
import pytest
from PIL import Image

from app.api import owner
from app.features.images import service as images
from app.features.images.service import InvalidImage, resize
from app.features.storage.service import store
from app.main import create_app
from app.tasks.image_task import resize_image


def picture(width: int, height: int, image_format: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """Return an image; if it is RGB, its left half is red."""
    image = Image.new(mode, (width, height))
    if mode == "RGB":
        image.paste((255, 0, 0), (0, 0, width // 2, height))
    written = io.BytesIO()
    image.save(written, image_format, **options)
    return written.getvalue()


def opened(content: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(content))
    image.load()
    return image


@pytest.fixture
def files() -> Iterator[None]:
    """Delete the files after the test."""
    yield
    for chunk in obstore.list(store(), "files"):
        obstore.delete(store(), [meta["path"] for meta in chunk])


@pytest.mark.parametrize("image_format", images.FORMATS)
@pytest.mark.parametrize(
    ("source", "box", "size"),
    [
        ((800, 400), (100, 100), (100, 50)),
        ((400, 800), (100, 100), (50, 100)),
        ((60, 30), (100, 100), (60, 30)),
        ((3000, 1), (10, 10), (10, 1)),
    ],
)
def test_the_aspect_ratio_and_the_format_are_kept(
    image_format: str, source: tuple[int, int], box: tuple[int, int], size: tuple[int, int]
) -> None:
    content, width, height = resize(picture(*source, image_format), *box)
    image = opened(content)
    assert (image.size, (width, height), image.format) == (size, size, image_format)


@pytest.mark.parametrize(
    ("image_format", "mode"),
    [("PNG", "P"), ("PNG", "1"), ("PNG", "LA"), ("PNG", "RGBA"), ("JPEG", "CMYK"), ("JPEG", "L")],
)
def test_other_modes_than_rgb_work(image_format: str, mode: str) -> None:
    assert opened(resize(picture(80, 40, image_format, mode), 20, 20)[0]).size == (20, 10)


def test_16_bit_grayscale_is_preserved() -> None:
    row = struct.pack("<80H", *[60_000] * 40, *[20_000] * 40)
    image = Image.frombytes("I;16", (80, 40), row * 40)
    written = io.BytesIO()
    image.save(written, "PNG")
    small = opened(resize(written.getvalue(), 20, 20)[0])
    assert small.size == (20, 10)
    assert small.getpixel((3, 5)) == 60_000
    assert small.getpixel((16, 5)) == 20_000


def test_the_exif_orientation_is_applied_and_other_metadata_removed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    exif[0x0110] = "Secret Camera"
    exif.get_ifd(0x8825)[1] = "N"
    content, width, height = resize(picture(800, 400, exif=exif.tobytes(), comment=b"secret comment"), 100, 100)
    image = opened(content)
    assert (width, height) == image.size == (50, 100)
    red, green, blue = image.getpixel((25, 10))  # type: ignore[misc]
    assert (red > 200, green < 50, blue < 50) == (True, True, True), "the left half is on top"
    assert not dict(image.getexif())
    assert b"ecret" not in content


def _png(side: int, kind: int, size: int) -> bytes:
    """Return a PNG whose header claims `side` x `side` pixels of this color type; its data are `size` zeros."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8 if kind == 6 else 1, kind, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * size))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


def _with_damaged_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0110] = "Camera"
    # The tag of the camera's name becomes that of the image's width.
    return picture(80, 40, exif=exif.tobytes().replace(b"\x01\x10\x00\x02", b"\x01\x00\x00\x02"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not an image"),
        (b"just text", "is not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image"),
        (picture(10, 10, "GIF"), "is not an image"),
        (picture(800, 800)[:2000], "is damaged"),
        (picture(800, 800, "PNG")[:-40], "is damaged"),
        (picture(800, 800, "WEBP")[:60], "is "),
        (_png(30_000, 0, 4_000_000), "pixels"),
        (_png(8, 3, 16), "is damaged: AssertionError"),
        (_with_damaged_exif(), "is damaged"),
        (picture(4001, 4000, "PNG", "1"), "4001 x 4000 pixels are too many; a PNG may have at most 16000000"),
        (picture(12_000, 8000, "PNG", "1"), "pixels"),
        (picture(3401, 2500, "WEBP", "1", method=0), "a WEBP may have at most 8500000"),
        (picture(8001, 6250, "JPEG", "L"), "a JPEG may have at most 50000000"),
        (
            picture(4001, 4000, "JPEG", "L", progressive=True),
            "a JPEG in several scans may have at most 16000000",
        ),
    ],
)
def test_an_invalid_image_is_rejected_with_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidImage, match=reason):
        resize(content, 100, 100)


def test_a_large_jpeg_is_decoded_at_half_its_size_or_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_DECODED", 80 * 40)
    photo = picture(160, 80)
    assert resize(photo, 80, 80)[1:] == (80, 40)
    # If the image is rotated, width and height are swapped.
    exif = Image.Exif()
    exif[0x0112] = 6
    assert resize(picture(160, 80, exif=exif.tobytes()), 40, 160)[1:] == (40, 80)
    with pytest.raises(InvalidImage, match="160 x 80 pixels are too many for a result of this size"):
        resize(photo, 81, 81)


@pytest.mark.parametrize("image_format", images.FORMATS)
def test_too_much_metadata_is_rejected(image_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow keeps several copies of the metadata."""
    monkeypatch.setattr(images, "MAX_METADATA", 20_000)
    exif = Image.Exif()
    exif[0x0110] = "c" * 10_000
    assert resize(picture(20, 10, image_format, exif=exif.tobytes()), 10, 10)[1:] == (10, 5)
    exif[0x0110] = "c" * 30_000
    with pytest.raises(InvalidImage, match="more than 20000 bytes of metadata"):
        resize(picture(20, 10, image_format, exif=exif.tobytes()), 10, 10)


def test_metadata_that_pillow_does_not_report_is_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_METADATA", 20_000)
    jpeg, png = picture(20, 10), picture(20, 10, "PNG")
    end = png.index(b"IEND") - 4
    text = b"tEXt" + b"key\0" + b"c" * 20_001
    behind = png[:end] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + png[end:]
    for content in (jpeg[:2] + b"\xff\xe5\xff\xff" + b"c" * 65_533 + jpeg[2:], behind):
        with pytest.raises(InvalidImage, match="more than 20000 bytes of metadata"):
            resize(content, 10, 10)


def _one_scan_each(content: bytes) -> bytes:
    """Change a JPEG with three components in one scan: its first scan has only one component."""
    start = content.index(b"\xff\xda")
    return content[:start] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + content[start + 14 :]


def test_a_jpeg_with_several_scans_has_a_lower_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(images.MAX_PIXELS, "JPEG in several scans", 100)
    for baseline in (
        picture(20, 10),
        picture(20, 10, mode="L"),
        picture(20, 10, mode="CMYK", quality=95, subsampling=0),
    ):
        assert resize(baseline, 10, 10)[1:] == (10, 5)
    for other in (picture(20, 10, progressive=True), _one_scan_each(picture(20, 10))):
        with pytest.raises(InvalidImage, match="a JPEG in several scans may have at most"):
            resize(other, 10, 10)


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (4001, 10)])
def test_sizes_out_of_range_are_rejected(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidImage, match="must be 1 to 4000 pixels"):
        resize(picture(10, 10), *size)


def test_each_size_is_a_separate_file_and_the_source_is_kept(files: None) -> None:
    """Thumbnails of different sizes must not overwrite each other."""
    source = picture(800, 400)
    obstore.put(store(), "files/ada/photo.v1.jpg", source)
    for _ in range(2):
        made = [resize_image("photo.v1.jpg", size, size, "ada") for size in (100, 200)]
    assert [one["filename"] for one in made] == ["photo.v1_100x100.jpg", "photo.v1_200x200.jpg"]
    stored = {meta["path"] for chunk in obstore.list(store(), "files/ada") for meta in chunk}
    assert stored == {"files/ada/photo.v1.jpg", *(f"files/ada/{one['filename']}" for one in made)}
    for one in made:
        image = opened(bytes(obstore.get(store(), f"files/ada/{one['filename']}").bytes()))
        assert image.size == (one["width"], one["height"])
    assert bytes(obstore.get(store(), "files/ada/photo.v1.jpg").bytes()) == source


def test_path_traversal_is_rejected(files: None) -> None:
    obstore.put(store(), "files/eve/x.jpg", picture(10, 10))
    for name, folder in (("../eve/x.jpg", "ada"), ("x.jpg", "../files/eve"), ("/etc/passwd", "ada")):
        with pytest.raises(ValueError, match="is not a valid file name"):
            resize_image(name, 10, 10, folder)


def test_a_large_or_missing_file_is_rejected_before_reading(files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tasks.image_task.MAX_BYTES", 10)
    obstore.put(store(), "files/ada/x.jpg", picture(10, 10))
    with pytest.raises(InvalidImage, match="larger than 10 bytes"):
        resize_image("x.jpg", 10, 10, "ada")
    with pytest.raises(InvalidImage, match=r"the file y\.jpg does not exist"):
        resize_image("y.jpg", 10, 10, "ada")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an owner."""
    app = create_app()
    app.dependency_overrides[owner.current_owner] = lambda: "ada"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as session:
        yield session


@pytest.mark.anyio
async def test_invalid_requests_are_rejected(client: httpx.AsyncClient, files: None) -> None:
    long = f"{'x' * 118}.jpg"
    for name in ("x.jpg", long):
        await client.put(f"/files/{name}", content=picture(10, 10))
    for body, status in (
        ({"file": "x.jpg"}, 202),
        ({"file": "x.jpg", "sizes": [[10, 20]]}, 202),
        ({"file": "y.jpg"}, 404),
        ({"file": "../x.jpg"}, 422),
        ({"file": long}, 422),
        ({"file": long, "sizes": [[1, 1]]}, 202),
        ({"file": "x" * 128}, 422),
        ({"file": "x.jpg", "sizes": []}, 422),
        ({"file": "x.jpg", "sizes": [[0, 10]]}, 422),
        ({"file": "x.jpg", "sizes": [[10, 4001]]}, 422),
        ({"file": "x.jpg", "sizes": [[10, 10]] * 21}, 422),
    ):
        assert (await client.post("/thumbnails", json=body)).status_code == status, body
