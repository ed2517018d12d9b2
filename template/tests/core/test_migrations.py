"""Database revisions: the template's and the project's own, in separate branches."""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.core.config.database import database_settings
from app.models import Base, load_models
from tests import ROOT

load_models()
TABLES = set(Base.metadata.tables)

MODEL = '''
"""Things."""

from sqlalchemy import {imports}
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, UtcDateTime, utc_now


class Thing(Base):
    """A thing."""

    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), index=True)
    made_at = mapped_column(UtcDateTime, default=utc_now)
    {column}
'''


LATER = '''
"""A later revision of the template."""

import sqlalchemy as sa
from alembic import op

revision = "forge_accounts_0099"
down_revision = "forge_accounts_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column."""
    op.add_column("users", sa.Column("nickname", sa.String(20)))


def downgrade() -> None:
    """Drop it."""
    with op.batch_alter_table("users") as batch:
        batch.drop_column("nickname")
'''


def _scripts() -> ScriptDirectory:
    scripts = ScriptDirectory.from_config(Config("alembic.ini"))
    # Load them now, while this is the current folder.
    scripts.revision_map.heads  # noqa: B018
    return scripts


class Project:
    """A copy of this project with a separate database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accounts = "users" in TABLES
        for part in ("app", "devtools", "migrations"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("alembic.ini", "pyproject.toml"):
            shutil.copy(ROOT / part, folder)
        # The tests write their own revisions.
        for revision in (folder / "migrations" / "app").glob("*.py"):
            revision.unlink()
        url = database_settings.sqlalchemy_url
        self.name = (
            str(folder / "data" / "owner.db") if url.get_backend_name() == "sqlite" else f"owner_{secrets.token_hex(4)}"
        )
        self.url = url.set(database=self.name)

    def execute(self, statement: str) -> None:
        """Run a statement on the server, outside of a transaction."""

        async def run() -> None:
            engine = create_async_engine(
                database_settings.sqlalchemy_url, poolclass=NullPool, isolation_level="AUTOCOMMIT"
            )
            async with engine.connect() as connection:
                await connection.execute(text(statement))
            await engine.dispose()

        if self.url.get_backend_name() != "sqlite":
            asyncio.run(run())

    def run(self, *command: str) -> str:
        """Run a module in the copy and return what it printed."""
        result = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env={**os.environ, "DATABASE_URL": self.url.render_as_string(hide_password=False)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def sql(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements on the copy's database and return the rows of the last."""

        async def run() -> list[tuple[object, ...]]:
            engine = create_async_engine(self.url, poolclass=NullPool)
            async with engine.begin() as connection:
                for statement in statements:
                    result = await connection.execute(text(statement))
                rows = [tuple(row) for row in result] if result.returns_rows else []
            await engine.dispose()
            return rows

        return asyncio.run(run())

    def add_model(self, *, note: bool = False) -> None:
        """Add a table; with `note`, add a column to it."""
        column = 'user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))' if self.accounts else ""
        extra = "\n    note: Mapped[str | None] = mapped_column(String(20))" if note else ""
        imports = "ForeignKey, String" if self.accounts else "String"
        code = MODEL.format(imports=imports, column=column + extra)
        (self.folder / "app" / "models" / "thing.py").write_text(code.lstrip())

    def scripts(self) -> ScriptDirectory:
        """Return the revisions."""
        with contextlib.chdir(self.folder):
            return _scripts()

    def columns(self) -> dict[str, set[str]]:
        """Return the tables of the database and their columns."""

        async def read() -> dict[str, set[str]]:
            engine = create_async_engine(self.url, poolclass=NullPool)
            async with engine.connect() as connection:
                found = await connection.run_sync(
                    lambda sync: {
                        table: {column["name"] for column in inspect(sync).get_columns(table)}
                        for table in inspect(sync).get_table_names()
                    }
                )
            await engine.dispose()
            return found

        return asyncio.run(read())


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Give a copy of this project."""
    project = Project(tmp_path)
    project.execute(f"CREATE DATABASE {project.name}")
    yield project
    project.execute(f"DROP DATABASE {project.name}")


@pytest.mark.processes
def test_own_revisions_upgrade_and_downgrade_next_to_the_templates(project: Project) -> None:
    project.add_model()
    assert "migrations/app/" in project.run("devtools.revision", "add", "things")
    project.add_model(note=True)
    project.run("devtools.revision", "add a note")

    assert len(project.scripts().get_revisions("app@heads")) == 1
    first, second = sorted((project.folder / "migrations" / "app").glob("*.py"), key=lambda path: "note" in path.name)
    assert ("forge_accounts" in first.read_text()) is project.accounts, (
        "it must depend on the revisions of the tables it refers to"
    )
    assert "UtcDateTime()" in first.read_text()
    assert "things" in second.read_text()

    project.run("alembic", "upgrade", "heads")
    columns = project.columns()
    assert set(columns) == {"alembic_version", "things"} | TABLES
    assert "note" in columns["things"]
    project.run("alembic", "check")

    project.run("alembic", "downgrade", "app@-1")
    assert "note" not in project.columns()["things"]
    project.run("alembic", "upgrade", "heads")
    project.run("alembic", "downgrade", "base")
    assert set(project.columns()) == {"alembic_version"}
    project.run("alembic", "upgrade", "heads")

    if project.accounts:
        # As an update of the template would.
        (project.folder / "migrations" / "forge" / "0099_nickname.py").write_text(LATER)
        project.run("alembic", "upgrade", "heads")
        columns = project.columns()
        assert "nickname" in columns["users"]
        assert "note" in columns["things"]
        project.run("alembic", "downgrade", "forge_accounts@-1")
        assert "nickname" not in project.columns()["users"]


ACCOUNTS = """INSERT INTO users (id, email, password_hash, is_active, created_at, last_activity) VALUES
    (1, 'used@example.com', 'x', true, '2026-01-01 00:00:00', '2026-01-02 00:00:00'),
    (2, 'unused@example.com', 'x', true, '2026-01-01 00:00:00', NULL)"""
LOGIN = """INSERT INTO sessions (id, user_id, token_hash, created_at, expires_at) VALUES
    (1, 1, 'x', '2026-01-02 00:00:00', '2099-01-01 00:00:00')"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("before", "verified"),
    [
        (["forge_accounts_0001"], {1, 2}),
        (["forge_accounts_0002"], {1, 2}),
        # The second user may have registered later without using the code.
        (["forge_accounts_0002", "forge_codes_0001"], {1}),
    ],
    ids=["of the first release", "of basic accounts", "of complete accounts"],
)
def test_accounts_older_than_verification_count_as_verified(
    project: Project, before: list[str], verified: set[int]
) -> None:
    if "account_codes" not in TABLES:
        pytest.skip("accounts are not complete")
    for revision in before:
        project.run("alembic", "upgrade", revision)
    project.sql(ACCOUNTS, LOGIN)
    project.run("alembic", "upgrade", "heads")
    assert {row[0] for row in project.sql("SELECT id FROM users WHERE is_verified")} == verified
    project.run("alembic", "downgrade", "forge_codes@-1")
    project.run("alembic", "upgrade", "heads")
    assert {row[0] for row in project.sql("SELECT id FROM users WHERE is_verified")} == verified
    assert project.sql("SELECT user_id FROM sessions") == [(1,)]


@pytest.mark.processes
def test_two_heads_of_the_own_branch_are_refused(project: Project) -> None:
    project.add_model()
    project.run("devtools.revision", "add things")
    folder = project.folder / "migrations" / "app"
    (first,) = folder.glob("*.py")
    (head,) = [head for head in project.scripts().get_revisions("heads") if "app" in head.branch_labels]
    for name in ("aaaa", "bbbb"):
        code = f'revision = "{name}"\ndown_revision = "{head.revision}"\n\n\ndef upgrade():\n    pass\n'
        (folder / f"{name}.py").write_text(code)
    with pytest.raises(AssertionError, match="two heads"):
        project.run("devtools.revision", "add more")
    assert len(list(folder.glob("*.py"))) == 3
    assert first.exists()


def test_models_and_revisions_agree() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "alembic", "check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_branch_has_one_head() -> None:
    scripts = _scripts()
    labels = [label for head in scripts.get_revisions("heads") for label in head.branch_labels]
    assert len(labels) == len(set(labels))
    assert set(labels) <= {"app", "forge_accounts", "forge_codes", "forge_outbox"}


def test_revisions_can_be_rendered_as_sql() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "heads", "--sql"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_settings.url.get_secret_value()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert ("CREATE TABLE users" in result.stdout) is ("users" in TABLES)
