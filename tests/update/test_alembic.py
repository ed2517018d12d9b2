"""Database revisions across updates: no second head, no manual step, and nothing that a database stands on goes away."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from forge_template import run
from tests.generated.life import INSTALL_LIMIT, find_python
from tests.update.world import Person, World, next_tag

MODEL = '''"""Orders."""

from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Order(Base):
    """An order."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
'''

TABLE = '''"""A later revision of the template."""

import sqlalchemy as sa
from alembic import op

revision = "forge_accounts_0099"
down_revision = "forge_accounts_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table("invitations", sa.Column("id", sa.Integer(), primary_key=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_table("invitations")
'''


class Database:
    """A person's project with its SQLite database, used through the project's own environment."""

    def __init__(self, person: Person, folder: Path) -> None:
        self.person = person
        self.environment = {"DATABASE_URL": f"sqlite+aiosqlite:///{folder}/app.db"}

    def sync(self) -> None:
        """Install what the project needs now, and commit the lock file."""
        run(["uv", "sync", "--python", find_python("3.11") or "3.11"], self.person.folder, timeout=INSTALL_LIMIT)
        if self.person.status():
            self.person.commit("Lock")

    def alembic(self, *arguments: str) -> str:
        """Run Alembic."""
        return self.module("alembic", *arguments)

    def module(self, *arguments: str) -> str:
        """Run a module of the project's environment."""
        return run(
            ["uv", "run", "--no-sync", "python", "-m", *arguments], self.person.folder, self.environment, timeout=120
        )

    def tables(self) -> set[str]:
        """Return the tables of the database."""
        code = "import sqlite3, sys; print(*[r[0] for r in sqlite3.connect(sys.argv[1]).execute(\"SELECT name FROM sqlite_master WHERE type = 'table'\")])"
        path = self.environment["DATABASE_URL"].partition("///")[2]
        return set(run(["uv", "run", "--no-sync", "python", "-c", code, path], self.person.folder, timeout=60).split())


def add_table(template: Path) -> None:
    """Give the template a revision that adds a table."""
    name = "{% if accounts_on %}0099_invitations.py{% endif %}"
    (template / "template" / "migrations" / "forge" / name).write_text(TABLE, encoding="utf-8")


@pytest.mark.matrix
def test_a_release_adds_a_table_beside_the_owners_revisions(own_world: World, tmp_path: Path) -> None:
    own_world.release("v9.0.0", add_table)
    person = own_world.project("v0.1.0", {"database": "sqlite"})
    database = Database(person, tmp_path)
    database.sync()
    person.write("app/models/order.py", MODEL)
    database.module("devtools.revision", "add orders")
    database.alembic("upgrade", "heads")
    person.commit()

    assert person.update().code == 0
    assert person.stages() == {}
    person.commit("Update")
    database.sync()
    heads = database.alembic("heads").split()
    assert [word for word in heads if word.startswith("forge_accounts_")] == ["forge_accounts_0099"]
    database.alembic("upgrade", "heads")
    assert {"users", "orders", "invitations"} <= database.tables()
    database.alembic("downgrade", "forge_accounts@-1")
    assert "invitations" not in database.tables()
    database.alembic("upgrade", "heads")


@pytest.mark.matrix
def test_accounts_switched_off_and_on_again(world: World, tmp_path: Path) -> None:
    person = world.project("v0.1.0", {"database": "sqlite"})
    database = Database(person, tmp_path)
    database.sync()
    database.alembic("upgrade", "heads")

    updated = person.update("--data", "auth=none")
    assert "migrations/forge/0001_accounts.py" in updated.report
    person.commit("Without accounts")
    database.sync()
    database.alembic("upgrade", "heads")
    person.write("app/models/order.py", MODEL)
    database.module("devtools.revision", "add orders")
    (written,) = (person.folder / "migrations" / "app").glob("*.py")
    assert "drop_table" not in written.read_text(encoding="utf-8").partition("def downgrade")[0]
    database.alembic("upgrade", "heads")
    assert {"users", "sessions", "orders"} <= database.tables()
    person.commit("Orders")

    person.update("--data", "auth=basic", "--vcs-ref", next_tag())
    assert person.stages() == {}
    database.sync()
    database.alembic("upgrade", "heads")
    database.alembic("check")


REGISTER = """
import asyncio, sys
from pydantic import SecretStr
from app.core.database import session_scope
from app.{accounts} import create_user

async def register() -> None:
    async with session_scope() as db:
        await create_user(db, sys.argv[1], SecretStr("correct horse battery"))

asyncio.run(register())
"""


@pytest.mark.matrix
def test_accounts_that_were_basic_can_log_in_when_they_are_complete(world: World, tmp_path: Path) -> None:
    person = world.project("v0.1.0", {"database": "sqlite", "auth": "basic"})
    database = Database(person, tmp_path)

    def register(email: str, accounts: str) -> None:
        run(
            ["uv", "run", "--no-sync", "python", "-c", REGISTER.format(accounts=accounts), email],
            person.folder,
            database.environment,
            timeout=120,
        )

    def switch(auth: str) -> None:
        updated = person.update("--data", f"auth={auth}", "--vcs-ref", next_tag())
        assert updated.code == 0, updated.report
        assert person.stages() == {}
        person.commit(f"auth={auth}")
        database.sync()
        database.alembic("upgrade", "heads")
        database.alembic("check")

    def unverified() -> list[str]:
        with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
            return [row[0] for row in connection.execute("SELECT email FROM users WHERE NOT is_verified")]

    database.sync()
    database.alembic("upgrade", "heads")
    register("first@example.com", "services.accounts")
    switch("complete")
    assert unverified() == []
    switch("basic")
    register("second@example.com", "features.accounts.service")
    switch("none")
    switch("complete")
    assert unverified() == []
