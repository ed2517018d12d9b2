"""docs/database-and-tasks.md."""

from sqlalchemy import func, select

from app.core.database import session_scope
from app.features.orders.models import Order
from app.worker.publish import enqueue
from tests.pages.hooks import Names, after, ended


@after("outbox=True")
async def the_order_is_stored(names: Names) -> None:
    async with session_scope() as db:
        assert await db.get(Order, names["order"].id) is not None


@after("idempotency_key=")
async def the_same_key_gives_the_same_task(names: Names) -> None:
    order = names["order"]
    again = await enqueue(names["confirm_order"].s(order.id), "user-1", idempotency_key=f"confirm {order.id}")
    assert again.id == names["result"].id
    await ended(again.id)


@after("await once(")
async def the_second_run_does_nothing(names: Names) -> None:
    tasks = [await enqueue(names["repeat_order"].s(names["order"].id)) for _ in range(2)]
    assert sorted([(await ended(task.id)).result for task in tasks]) == [False, True]
    async with session_scope() as db:
        assert await db.scalar(select(func.count()).where(Order.item == "a pen")) == 2
