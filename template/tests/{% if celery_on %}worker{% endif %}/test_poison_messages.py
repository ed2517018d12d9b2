"""What a worker does with a message that it cannot run."""

import base64
import json
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection

from app.core.config.celery import celery_settings
from app.worker import dead_letters
from app.worker.poison_messages import PoisonMessageHandler
from app.worker.status import read_status


@pytest.fixture
def message() -> Iterator[Any]:
    """Give a message that a consumer got from its queue, with a record of its task."""
    task_id = str(uuid.uuid4())
    with Connection(celery_settings.broker_url.get_secret_value()) as connection:
        channel: Any = connection.default_channel
        channel.client.delete(*dead_letters.KEYS, dead_letters.FORMER, "probe")
        queue = connection.SimpleQueue("probe")
        queue.put(["secret"], headers={"task": "probe.x", "id": task_id}, serializer="json")
        got = queue.get(timeout=5)
        yield got
        channel.client.delete(*dead_letters.KEYS, dead_letters.FORMER, "probe")


def test_a_message_that_causes_any_error_is_dead_lettered_whole(
    message: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("with a secret in its text")

    consumer = SimpleNamespace(
        create_task_handler=lambda: fail, controller=SimpleNamespace(_process_task=fail), timer=None, qos=None
    )
    PoisonMessageHandler(consumer)
    consumer.create_task_handler()(message)
    (letter,) = dead_letters.read(message.channel.client)
    assert letter["headers"]["task"] == "probe.x"
    assert letter["reason"].startswith("RuntimeError: ")
    assert letter["queue"] == "probe"
    assert json.loads(base64.b64decode(letter["body"])) == ["secret"]
    assert message.acknowledged
    status = read_status(message.headers["id"])
    assert status is not None
    assert status.status == "FAILURE"
    assert status.error is not None
    assert "secret" not in status.error["message"]
    assert "secret" not in "".join(capfd.readouterr())
