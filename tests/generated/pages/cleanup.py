"""docs/cleanup.md."""

from app.features.cleanup.service import expiring_tables
from app.models.base import Base
from tests.pages.hooks import Names, after


@after("class Invitation")
async def the_table_is_cleaned(names: Names) -> None:
    table = names["Invitation"].__table__
    assert table in expiring_tables()
    # There is no revision that creates it, and the tests empty every table.
    Base.metadata.remove(table)
