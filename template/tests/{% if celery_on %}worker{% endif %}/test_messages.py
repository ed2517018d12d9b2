"""What may be queued, and what a worker does with a message that it cannot run."""

import base64
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from kombu import Connection

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker import dead_letters
from app.worker.messages import MessageGuard
from app.worker.publish import enqueue
from app.worker.records import read_status
from app.worker.serializer import MAX_DEPTH, MAX_VALUES, InvalidArguments, check_arguments, decode, encode_message

pytestmark = pytest.mark.anyio
RESERVED = {"__type__": "uuid", "__value__": {}}


def nested(levels: int, inner: Any = 1) -> Any:
    """Return lists inside of each other."""
    value = inner
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (({"a": [RESERVED]},), "args[0]['a'][0]: the key '__type__' is reserved"),
        (({"__value__": 1},), "args[0]: the key '__value__' is reserved"),
        ((nested(MAX_DEPTH + 1),), f"nested deeper than {MAX_DEPTH} levels"),
        ((nested(100_000),), f"nested deeper than {MAX_DEPTH} levels"),
        (([0] * (MAX_VALUES + 1),), f"more than {MAX_VALUES} values"),
    ],
)
def test_what_no_message_can_hold_is_refused_where_it_is_queued(args: tuple[Any, ...], words: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_arguments(args=args)
    assert words in str(caught.value)
    with pytest.raises(InvalidArguments):
        process_task.delay(*args)


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, "x" * (celery_settings.message_max_bytes + 1), 10**5000],
    ids=["object", "set", "large", "long number"],
)
def test_what_is_no_json_or_too_large_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"^process_task: "):
        process_task.delay({"a": value})


def test_headers_and_later_steps_are_checked_too() -> None:
    with pytest.raises(InvalidArguments, match="headers"):
        process_task.apply_async(({},), headers={"a": RESERVED})
    with pytest.raises(InvalidArguments, match="reserved"):
        (process_task.s({}) | process_task.si({"a": RESERVED})).delay()


def test_python_types_that_code_passes_come_back_as_themselves() -> None:
    values = [uuid.uuid4(), datetime.now(UTC), Decimal("1.5"), b"x", nested(MAX_DEPTH - 2)]
    assert decode(encode_message([values])) == [values]


async def test_a_route_answers_422_and_queues_nothing(client: httpx.AsyncClient) -> None:
    for body in ({"a": RESERVED}, {"a": nested(MAX_DEPTH)}):
        answer = await client.post("/process", content=json.dumps(body), headers={"content-type": "application/json"})
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"][0]["type"] == "invalid_arguments"
    with pytest.raises(InvalidArguments):
        await enqueue(process_task.s(RESERVED))


@pytest.fixture
def message() -> Iterator[Any]:
    """Give a message that a consumer got from its queue, with a record of its task."""
    task_id = str(uuid.uuid4())
    with Connection(celery_settings.broker_url.get_secret_value()) as connection:
        channel: Any = connection.default_channel
        channel.client.delete(dead_letters.KEY, "probe")
        queue = connection.SimpleQueue("probe")
        queue.put(["secret"], headers={"task": "probe.x", "id": task_id}, serializer="json")
        got = queue.get(timeout=5)
        yield got
        channel.client.delete(dead_letters.KEY, "probe")


def test_whatever_a_message_brings_about_it_is_put_aside_whole(message: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("with a secret in its text")

    consumer = SimpleNamespace(
        create_task_handler=lambda: fail, controller=SimpleNamespace(_process_task=fail), timer=None, qos=None
    )
    MessageGuard(consumer)
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


def test_dead_letters_are_bounded(message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "KEPT", 2)
    client = message.channel.client
    monkeypatch.setattr(message, "ack", lambda: None)
    for number in range(4):
        dead_letters.put_aside(message, ValueError(str(number)))
    assert [letter["reason"] for letter in dead_letters.read(client)] == ["ValueError: 3", "ValueError: 2"]
    assert 0 < client.ttl(dead_letters.KEY) <= dead_letters.EXPIRES


def test_results_are_checked_as_arguments_are() -> None:
    backend: Any = celery_app.backend
    with pytest.raises(Exception, match="reserved"):
        backend.store_result(str(uuid.uuid4()), {"a": RESERVED}, "SUCCESS")
