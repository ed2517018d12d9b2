"""docs/command-line.md."""

import asyncio

from typer.testing import CliRunner

from app.core.database import session_scope
from app.features.orders.models import Order
from tests.pages.hooks import Names, after


@after("def show(order_id")
async def it_shows_an_order(names: Names) -> None:
    async with session_scope() as db:
        order = Order(owner="user-1", item="a book", quantity=1)
        db.add(order)
        await db.flush()
        number = order.id
    # In a thread, as a command runs an event loop.
    shown = await asyncio.to_thread(CliRunner().invoke, names["command"], ["show", str(number)])
    assert (shown.exit_code, shown.output) == (0, "a book\n")
    unknown = await asyncio.to_thread(CliRunner().invoke, names["command"], ["show", "0"])
    assert unknown.exit_code == names["ExitCode"].NOT_FOUND
