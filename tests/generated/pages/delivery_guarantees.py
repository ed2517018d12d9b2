"""docs/delivery-guarantees.md."""

from sqlalchemy import text

from app.core.database import session_scope
from app.worker.publish import enqueue
from tests.pages.hooks import Names, after, ended


@after('name="points.credit"')
async def points_are_credited_once(names: Names) -> None:
    async with session_scope() as db:
        await db.execute(text("CREATE TABLE balances (user_id integer, points integer)"))
        await db.execute(text("INSERT INTO balances VALUES (1, 0)"))
    tasks = [await enqueue(names["credit_points"].s(7, 1)) for _ in range(2)]
    assert sorted([(await ended(task.id)).result for task in tasks]) == [False, True]
    async with session_scope() as db:
        assert await db.scalar(text("SELECT points FROM balances")) == 10
        await db.execute(text("DROP TABLE balances"))
