"""Tasks with `pydantic=True` take and return models, however they are queued."""

from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from celery import chain, chord, group
from pydantic import BaseModel, ConfigDict, HttpUrl, ValidationError

from app.core.celery import celery_app
from app.worker.flow_control import Unique
from app.worker.publish import Duplicate, enqueue, enqueue_many, status_of
from tests.worker.fixtures import AssertQueued, Drain, Queued

pytestmark = pytest.mark.anyio


class Size(StrEnum):
    """A size."""

    SMALL = "s"


class Order(BaseModel):
    """An order, whose error must not have the customer's data."""

    model_config = ConfigDict(hide_input_in_errors=True)

    key: UUID
    price: Decimal
    page: HttpUrl
    size: Size = Size.SMALL


class Receipt(BaseModel):
    """What is returned."""

    key: UUID
    total: Decimal


ORDER = Order(key=UUID(int=7), price=Decimal("9.90"), page=HttpUrl("https://shop.example/7"))
SENT = {"key": str(UUID(int=7)), "price": "9.90", "page": "https://shop.example/7", "size": "s"}
RECEIPT = {"key": str(UUID(int=7)), "total": "19.80"}


def _receipt(order: Order, count: int) -> Receipt:
    assert isinstance(order, Order)
    return Receipt(key=order.key, total=order.price * count)


def _charge(order: Order, count: int = 2) -> Receipt:
    return _receipt(order, count)


async def _charge_async(order: Order, count: int = 2) -> Receipt:
    return _receipt(order, count)


async def _charge_bound(self: Any, order: Order, count: int = 2) -> Receipt:
    assert self.request.id
    return _receipt(order, count)


TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "def": (_charge, {}),
    "async def": (_charge_async, {}),
    "bound": (_charge_bound, {"bind": True}),
    "unique": (_charge, {"unique": Unique(key="order")}),
}


@pytest.fixture
def charge(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give a task that takes a model and returns one."""
    function, options = TASKS[getattr(request, "param", "async def")]
    made = celery_app.task(name="test.charge", pydantic=True, **options)(function)
    celery_app.finalize()
    yield celery_app.tasks["test.charge"]
    celery_app.tasks.unregister(made)


@pytest.mark.parametrize("charge", TASKS, indirect=True)
async def test_the_function_gets_the_model_and_the_result_is_json(
    charge: Any, assert_queued: AssertQueued, queued: Queued, drain: Drain
) -> None:
    await enqueue(charge.s(ORDER))
    assert [one.args for one in queued()] == [[SENT]]
    (task_id,) = assert_queued(charge, ORDER)
    drain()
    status = await status_of(task_id)
    assert status is not None
    assert (status.status, status.result) == ("SUCCESS", RECEIPT)


async def test_each_way_to_queue_sends_the_model_as_json(charge: Any, queued: Queued) -> None:
    charge.delay(ORDER)
    charge.apply_async((ORDER,), countdown=1)
    charge.apply_async(kwargs={"order": ORDER})
    await enqueue(charge.s(order=ORDER), idempotency_key="one")
    await enqueue_many([charge.s(ORDER), charge.si(ORDER, count=1)])
    sent = [one.args[0] if one.args else one.kwargs["order"] for one in queued()]
    assert sent == [SENT] * 6


async def test_each_step_of_a_workflow_may_have_a_model(charge: Any, queued: Queued, drain: Drain) -> None:
    await enqueue(chain(charge.s(ORDER), charge.si(ORDER)))
    await enqueue(chord([charge.s(ORDER), charge.s(ORDER)], charge.si(ORDER)))
    await enqueue(group(charge.s(ORDER) for _ in range(2)))
    assert len(drain()) == 7


@pytest.mark.parametrize("charge", ["unique"], indirect=True)
async def test_a_rule_may_have_the_model_as_its_key(charge: Any, queued: Queued) -> None:
    await enqueue(charge.s(ORDER))
    assert isinstance(await enqueue(charge.s(ORDER)), Duplicate)
    assert isinstance(charge.delay(ORDER), Duplicate)
    await enqueue(charge.s(ORDER.model_copy(update={"price": Decimal(1)})))
    assert len(queued()) == 2


@pytest.mark.parametrize("charge", ["def", "async def"], indirect=True)
async def test_invalid_arguments_fail_the_task(charge: Any, queued: Queued, drain: Drain) -> None:
    result = await enqueue(charge.s({**SENT, "page": "secret"}))
    with pytest.raises(ValidationError, match="page"):
        drain()
    status = await status_of(result.id)
    assert status is not None
    assert status.status == "FAILURE"
    assert "secret" not in str(status)


async def test_a_call_without_a_message_takes_the_model(charge: Any) -> None:
    assert charge(ORDER) == RECEIPT
