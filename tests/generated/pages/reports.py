"""docs/reports.md."""

from app.core.database import session_scope
from app.features.orders.models import Order
from app.features.reports.data import sources
from app.features.reports.service import Month
from tests.pages.hooks import Names, after


@after("async def order_series")
async def orders_are_counted(names: Names) -> None:
    names["connect"]()
    assert sources.pop() is names["order_series"]
    async with session_scope() as db:
        order = Order(owner="user-1", item="a book", quantity=1)
        db.add(order)
        await db.flush()
        month = Month(order.created_at.year, order.created_at.month)
        (series,) = await names["order_series"](db, month)
    assert sum(series.values) == 1
