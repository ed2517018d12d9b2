"""Dead letters: what is stored, and what a replay queues."""

import base64
import json
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject, Retry
from celery.signals import after_task_publish, before_task_publish
from redis.exceptions import RedisError, ResponseError

from app.core.celery import celery_app
from app.tasks.process_task import process_task
from app.worker import dead_letters, flow_control, history, messages, replay
from app.worker.redelivery import RedeliveryLimitExceeded
from app.worker.replay import NotReplayable
from app.worker.request import AppRequest

ENDED = ValueError("no")


@pytest.fixture
def broker() -> Iterator[Any]:
    """Give a client of the broker's database, emptied before and after."""
    client: Any = flow_control.client()
    client.flushdb()
    yield client
    client.flushdb()


def received(*args: Any, queue: str = "default", embedded: dict[str, Any] | None = None, **headers: Any) -> Any:
    """Return a message as a worker has it."""
    amqp: Any = celery_app.amqp
    task_id = str(uuid.uuid4())
    made = amqp.as_task_v2(task_id, process_task.name, args or ({"a": 1},), {})
    body = [*made.body[:2], {**made.body[2], **(embedded or {})}]
    return SimpleNamespace(
        body=json.dumps(body).encode(),
        headers={**made.headers, **headers},
        properties={**made.properties, "priority": 3, "delivery_tag": "tag", "delivery_info": {"exchange": ""}},
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info={"routing_key": queue},
        acknowledged=[],
        ack=lambda: None,
    )


def _stored(broker: Any, message: Any, reason: BaseException = ENDED) -> str:
    dead_letters.keep(message, reason)
    return str(dead_letters.letters(broker)[0].letter_id)


def _queued(broker: Any, queue: str = "default") -> list[dict[str, Any]]:
    names = [queue, *(queue + ending for ending in messages.keys().endings)]
    return [json.loads(text) for name in names for text in broker.lrange(name, 0, -1)]


def test_a_message_is_stored_whole_with_what_a_list_shows(broker: Any) -> None:
    message = received({"a": "secret"})
    letter_id = _stored(broker, message)
    found = dead_letters.find(broker, letter_id)
    assert found is not None
    letter, stored = found
    assert (letter.summary.task, letter.summary.task_id) == (process_task.name, message.headers["id"])
    assert (letter.summary.queue, letter.summary.error, letter.summary.reason) == (
        "default",
        "ValueError",
        "ValueError: no",
    )
    assert (letter.summary.redacted, letter.summary.size) == (False, len(message.body))
    assert abs((datetime.now(UTC) - letter.time).total_seconds()) < 10
    assert base64.b64decode(stored["body"]) == message.body
    assert (stored["headers"], stored["properties"]["priority"]) == (message.headers, 3)
    assert dead_letters.read(broker, 1)[0]["reason"] == "ValueError: no"
    assert dead_letters.find(broker, "0" * 32) is None


def test_a_message_that_is_stored_again_is_the_same_letter(broker: Any) -> None:
    message = received()
    assert _stored(broker, message) == _stored(broker, message, RuntimeError("again"))
    (letter,) = dead_letters.letters(broker)
    assert letter.summary.error == "RuntimeError"


def test_the_oldest_letters_are_dropped(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_LETTERS", 2)
    for number in range(4):
        dead_letters.keep(received(), ValueError(str(number)))
    assert [letter.summary.reason for letter in dead_letters.letters(broker)] == ["ValueError: 3", "ValueError: 2"]
    assert broker.hlen(dead_letters.MESSAGES) == broker.hlen(dead_letters.SUMMARIES) == 2
    for key in dead_letters.KEYS:
        assert 0 < broker.ttl(key) <= dead_letters.EXPIRES


def test_the_oldest_letters_are_dropped_when_all_are_too_large_but_not_the_newest(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "MAX_BYTES", 10_000)
    for length in (1000, 2000, 3000, 50_000):
        dead_letters.keep(received("x" * length), ValueError(str(length)))
    assert [letter.summary.reason for letter in dead_letters.letters(broker)] == ["ValueError: 50000"]
    dead_letters.keep(received("x"), ValueError("small"))
    assert [letter.summary.reason for letter in dead_letters.letters(broker)] == ["ValueError: small"]


def test_the_letters_of_earlier_releases_are_found(broker: Any) -> None:
    message = received()
    for number in (1, 2):
        former = {
            "time": 1_700_000_000.5 + number,
            "reason": f"DecodeError: {number}",
            "queue": "default",
            "headers": {**message.headers, "id": str(number)},
            "properties": message.properties,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "body": base64.b64encode(message.body).decode(),
        }
        broker.lpush(dead_letters.FORMER, json.dumps(former))
    found = dead_letters.letters(broker)
    assert [(one.summary.task_id, one.summary.error) for one in found] == [("2", "DecodeError"), ("1", "DecodeError")]
    assert found[0].time == datetime.fromtimestamp(1_700_000_002.5, UTC)
    assert not broker.exists(dead_letters.FORMER)
    assert replay.replay(broker, found[0].letter_id)


def test_a_replay_queues_the_message_as_a_new_task(broker: Any) -> None:
    message = received(owner="somebody", retries=3, eta="2020-01-01T00:00:00", expires="2020-01-01T00:00:00")
    letter_id = _stored(broker, message)
    task_id = replay.replay(broker, letter_id)
    assert dead_letters.letters(broker) == []
    assert replay.replay(broker, letter_id) is None
    (queued,) = _queued(broker)
    headers = queued["headers"]
    assert broker.llen("default" + messages.keys().ending(3)) == 1
    assert base64.b64decode(queued["body"]) == message.body
    assert (headers["id"], headers["root_id"], headers["retries"]) == (task_id, task_id, 0)
    assert (headers["eta"], headers["expires"], headers["owner"]) == (None, None, "somebody")
    assert (queued["properties"]["correlation_id"], queued["properties"]["delivery_info"]["routing_key"]) == (
        task_id,
        "default",
    )
    record = history.read(str(task_id))
    assert record is not None
    assert (record.state, record.replay_of, record.queue) == ("PENDING", message.headers["id"], "default")


def test_of_two_replays_at_once_one_queues_the_message(broker: Any) -> None:
    for _ in range(10):
        letter_id = _stored(broker, received())
        both = threading.Barrier(2)
        outcomes: list[str | None] = []

        def run(letter_id: str = letter_id, both: threading.Barrier = both, outcomes: Any = outcomes) -> None:
            both.wait()
            outcomes.append(replay.replay(broker, letter_id))

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        queued = [one["headers"]["id"] for one in _queued(broker)]
        assert [outcome for outcome in outcomes if outcome] == queued
        assert len(queued) == 1
        broker.delete("default" + messages.keys().ending(3))


def test_a_replay_that_runs_twice_because_its_answer_was_lost_queues_one_message(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_id = _stored(broker, received())
    run = replay._REPLAY

    def twice(*args: Any) -> Any:
        run(*args)
        return run(*args)

    monkeypatch.setattr(replay, "_REPLAY", twice)
    task_id = replay.replay(broker, letter_id)
    assert [one["headers"]["id"] for one in _queued(broker)] == [task_id]


def test_a_replay_that_redis_refuses_keeps_the_letter_and_leaves_no_record(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_id = _stored(broker, received())
    broker.set("default" + messages.keys().ending(3), "no list")
    seen: list[str] = []

    def new_id() -> str:
        seen.append(str(uuid.uuid4()))
        return seen[-1]

    monkeypatch.setattr(replay, "uuid", new_id)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        replay.replay(broker, letter_id)
    assert [letter.letter_id for letter in dead_letters.letters(broker)] == [letter_id]
    assert [history.read(task_id) for task_id in seen] == [None] * len(seen)
    assert seen


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (received(argsrepr=dead_letters.HIDDEN), "redacted"),
        (received(task=None), "names no task"),
        (received(queue="gone"), "'gone' is not one"),
        (received(embedded={"chain": [{"task": "x"}]}), "step of a workflow"),
    ],
)
def test_what_cannot_be_replayed_is_kept(message: Any, reason: str, broker: Any) -> None:
    letter_id = _stored(broker, message)
    for change in (replay.replay, replay.check):
        with pytest.raises(NotReplayable, match=reason):
            change(broker, letter_id)
    assert dead_letters.find(broker, letter_id)
    assert _queued(broker) == []


def test_the_arguments_of_a_task_that_redacts_them_are_redacted_whoever_published_it(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_task, "redact_arguments", True)
    with pytest.raises(NotReplayable, match="redacted"):
        replay.replay(broker, _stored(broker, received()))


def test_a_step_of_a_workflow_is_replayed_alone_if_asked_for(broker: Any) -> None:
    message = received({"a": 1}, embedded={"chain": [{"task": "x"}], "chord": {"task": "y"}}, group="g")
    assert replay.replay(broker, _stored(broker, message), alone=True)
    (queued,) = _queued(broker)
    args, kwargs, embedded = json.loads(base64.b64decode(queued["body"]))
    assert (args, kwargs) == ([{"a": 1}], {})
    assert [embedded[step] for step in ("callbacks", "chain", "chord")] == [None] * 3
    assert queued["headers"]["group"] is None


def test_a_replay_is_announced_with_the_body_as_celery_announces_it(broker: Any) -> None:
    seen: list[Any] = []

    def note(body: Any, **_: object) -> None:
        seen.append(body[:2])

    before_task_publish.connect(note)
    after_task_publish.connect(note)
    try:
        assert replay.replay(broker, _stored(broker, received({"a": 1})))
    finally:
        before_task_publish.disconnect(note)
        after_task_publish.disconnect(note)
    assert seen == [([{"a": 1}], {})] * 2


def test_a_message_that_cannot_be_decoded_is_replayed_as_it_is(broker: Any) -> None:
    message = received()
    message.body = b"\xff no JSON"
    assert replay.replay(broker, _stored(broker, message))
    (queued,) = _queued(broker)
    assert base64.b64decode(queued["body"]) == message.body


class _Failed:
    """A request whose task has raised."""

    def __init__(self, *, dead_letter: bool) -> None:
        self.message = received()
        self.task = SimpleNamespace(dead_letter=dead_letter)
        self.was_stored = False

    def _success_was_stored(self) -> bool:
        return self.was_stored


@pytest.mark.parametrize(
    ("dead_letter", "error", "is_kept"),
    [
        (True, ENDED, True),
        (False, ENDED, False),
        (False, RedeliveryLimitExceeded("x"), True),
        (True, Retry("later"), False),
        (True, Reject("x", requeue=True), False),
    ],
)
def test_which_failed_tasks_become_dead_letters(
    dead_letter: bool, error: BaseException, is_kept: bool, broker: Any
) -> None:
    request: Any = _Failed(dead_letter=dead_letter)
    AppRequest.before_acknowledging(request, error)
    assert bool(dead_letters.letters(broker)) is is_kept


def test_a_failed_task_whose_dead_letter_is_refused_is_requeued(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RedisError("refused")

    monkeypatch.setattr(dead_letters, "keep", refuse)
    request: Any = _Failed(dead_letter=True)
    with pytest.raises(Reject) as rejected:
        AppRequest.before_acknowledging(request, ENDED)
    assert rejected.value.requeue
