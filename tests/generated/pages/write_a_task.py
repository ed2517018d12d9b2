"""docs/write-a-task.md."""

from app.core.database import session_scope
from app.features.orders.models import Order
from app.worker.publish import enqueue
from tests.pages.hooks import Names, after, ended


@after('name="order.confirm_all"')
async def every_order_is_confirmed_once(names: Names) -> None:
    async with session_scope() as db:
        orders = [Order(owner="user-1", item="a book", quantity=1) for _ in range(2)]
        db.add_all(orders)
        await db.flush()
        number = orders[0].id
    assert (await ended((await enqueue(names["confirm_one"].s(number))).id)).result is True
    assert (await ended((await enqueue(names["confirm_all"].s())).id)).result == 1


@after('name="order.ship"')
async def every_task_runs(names: Names) -> None:
    calls = [
        names["render_invoice"].s(7),
        names["fetch_prices"].s(["a", "b"]),
        names["charge"].s(7),
        names["send_reminders"].s(),
        names["resize_photos"].s([1, 2]),
        names["digest"].s("a"),
        names["build_report"].s(7, "acme"),
        names["render_report"].s(11, 2026),
        names["ship"].s(7),
    ]
    results = [await enqueue(call) for call in calls]
    assert [(await ended(one.id)).status for one in results] == ["SUCCESS"] * len(calls)
    await names["place_order"]()
    assert (await ended(await names["resize_all"]([1, 2]))).result == 30
