"""What may be queued: JSON of limited depth and size, without the keys that kombu reserves."""

import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.tasks.process_task import process_task
from app.worker.publish import enqueue
from app.worker.serializer import MAX_DEPTH, MAX_VALUES, InvalidArguments, check_arguments, decode, encode_message

pytestmark = pytest.mark.anyio
RESERVED = {"__type__": "uuid", "__value__": {}}


def nested(levels: int, inner: Any = 1) -> Any:
    """Return nested lists."""
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
def test_what_no_message_can_contain_is_refused_where_it_is_queued(args: tuple[Any, ...], words: str) -> None:
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
def test_what_is_not_json_or_too_large_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"^process_task: "):
        process_task.delay({"a": value})


def test_headers_and_later_steps_are_checked_too() -> None:
    with pytest.raises(InvalidArguments, match="headers"):
        process_task.apply_async(({},), headers={"a": RESERVED})
    with pytest.raises(InvalidArguments, match="reserved"):
        (process_task.s({}) | process_task.si({"a": RESERVED})).delay()


def test_python_types_survive_the_serializer() -> None:
    values = [uuid.uuid4(), datetime.now(UTC), Decimal("1.5"), b"x", nested(MAX_DEPTH - 2)]
    assert decode(encode_message([values])) == [values]


async def test_a_route_answers_422_and_queues_nothing(client: httpx.AsyncClient) -> None:
    for body in ({"a": RESERVED}, {"a": nested(MAX_DEPTH)}):
        answer = await client.post("/process", content=json.dumps(body), headers={"content-type": "application/json"})
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"][0]["type"] == "invalid_arguments"
    with pytest.raises(InvalidArguments):
        await enqueue(process_task.s(RESERVED))


def test_results_are_checked_as_arguments_are() -> None:
    backend: Any = celery_app.backend
    with pytest.raises(Exception, match="reserved"):
        backend.store_result(str(uuid.uuid4()), {"a": RESERVED}, "SUCCESS")
