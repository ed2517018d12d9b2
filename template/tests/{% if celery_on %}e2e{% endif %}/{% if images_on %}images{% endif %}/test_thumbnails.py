"""Thumbnails on a real worker."""

import io
from collections.abc import Iterator

import obstore
import pytest
from PIL import Image

from app.features.storage.service import store
from app.tasks.image_task import generate_thumbnails, resize_image
from tests.e2e.conftest import Stack


@pytest.fixture
def photo() -> Iterator[str]:
    """Store a photo and yield its name."""
    written = io.BytesIO()
    Image.new("RGB", (800, 400)).save(written, "JPEG")
    obstore.put(store(), "files/ada/photo.jpg", written.getvalue())
    yield "photo.jpg"
    for chunk in obstore.list(store(), "files/ada"):
        obstore.delete(store(), [meta["path"] for meta in chunk])


def _names() -> set[str]:
    return {meta["path"].rpartition("/")[2] for chunk in obstore.list(store(), "files/ada") for meta in chunk}


def test_each_size_is_a_separate_task(stack: Stack, photo: str) -> None:
    task_id = generate_thumbnails.delay(photo, "ada", [(100, 100), (200, 200), (400, 400)]).id
    state = stack.state(task_id)
    assert state["status"] == "SUCCESS", state
    assert [(one["width"], one["height"]) for one in state["result"]] == [(100, 50), (200, 100), (400, 200)]
    assert {one["filename"] for one in state["result"]} == _names() - {photo}
    resized = [line for line in stack.worker.lines("task_finished") if line["task"] == resize_image.name]
    assert len({line["task_id"] for line in resized}) >= 3, "a group, not several calls in one task"


def test_one_failed_size_fails_the_task_but_keeps_the_other_files(stack: Stack, photo: str) -> None:
    state = stack.state(generate_thumbnails.delay(photo, "ada", [(100, 100), (0, 0), (200, 200)]).id)
    assert state["status"] == "FAILURE"
    assert "must be 1 to 4000 pixels" in state["error"]["message"]
    assert _names() >= {photo, "photo_100x100.jpg"}


def test_an_invalid_image_reports_its_reason(stack: Stack, photo: str) -> None:
    obstore.put(store(), "files/ada/text.jpg", b"just text")
    state = stack.state(resize_image.delay("text.jpg", 100, 100, "ada").id)
    assert (state["status"], state["error"]["type"]) == ("FAILURE", "InvalidImage")
    assert "is not an image" in state["error"]["message"]
