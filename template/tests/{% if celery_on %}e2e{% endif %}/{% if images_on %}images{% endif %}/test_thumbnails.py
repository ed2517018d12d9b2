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
    """Give a photo of Ada's."""
    written = io.BytesIO()
    Image.new("RGB", (800, 400)).save(written, "JPEG")
    obstore.put(store(), "files/ada/photo.jpg", written.getvalue())
    yield "photo.jpg"
    for chunk in obstore.list(store(), "files/ada"):
        obstore.delete(store(), [meta["path"] for meta in chunk])


def _names() -> set[str]:
    return {meta["path"].rpartition("/")[2] for chunk in obstore.list(store(), "files/ada") for meta in chunk}


def test_each_size_is_a_task_of_its_own(stack: Stack, photo: str) -> None:
    task_id = generate_thumbnails.delay(photo, "ada", [(100, 100), (200, 200), (400, 400)]).id
    state = stack.state(task_id)
    assert state["status"] == "SUCCESS", state
    assert [(one["width"], one["height"]) for one in state["result"]] == [(100, 50), (200, 100), (400, 200)]
    assert {one["filename"] for one in state["result"]} == _names() - {photo}
    resized = [line for line in stack.worker.lines("task_finished") if line["task"] == resize_image.name]
    assert len({line["task_id"] for line in resized}) >= 3, "a group, not one call after the other in one task"


def test_one_that_fails_leaves_the_others_and_is_a_failure(stack: Stack, photo: str) -> None:
    state = stack.state(generate_thumbnails.delay(photo, "ada", [(100, 100), (0, 0), (200, 200)]).id)
    assert state["status"] == "FAILURE"
    assert "1 to 4000 pixels" in state["error"]["message"]
    assert _names() >= {photo, "photo_100x100.jpg"}


def test_a_file_that_is_no_image_is_a_failure_with_its_reason(stack: Stack, photo: str) -> None:
    obstore.put(store(), "files/ada/text.jpg", b"just text")
    state = stack.state(resize_image.delay("text.jpg", 100, 100, "ada").id)
    assert (state["status"], state["error"]["type"]) == ("FAILURE", "InvalidImage")
    assert "is no image" in state["error"]["message"]
