"""`make revision m="add orders"`: write a database revision from the difference between the models and the revisions.

It applies all revisions to a temporary database and compares the models with that, so manual changes in your database do not
get into the revision. MySQL has no embedded server: there it runs `upgrade heads` on your database and compares with it.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

ROOT = Path(__file__).resolve().parent.parent
BRANCH = "app"


def write_revision(config: Config, message: str) -> list[Path]:
    """Write a revision at the head of the branch `app`, or start that branch; return the new files.

    The current folder must be the project's.

    Raises:
        alembic.util.CommandError: the branch has two heads; one of the revisions must follow the other.
    """
    folder = Path("migrations", BRANCH).resolve()
    script = ScriptDirectory.from_config(config)
    started = [revision for revision in script.walk_revisions() if Path(revision.path).resolve().parent == folder]
    command.upgrade(config, "heads")
    if started:
        written = command.revision(config, message, autogenerate=True, head=f"{BRANCH}@head")
    else:
        written = command.revision(
            config, message, autogenerate=True, head="base", branch_label=BRANCH, version_path=str(folder)
        )
    scripts = written if isinstance(written, list) else [written]
    return [Path(one.path) for one in scripts if one is not None]


@contextlib.contextmanager
def _scratch_database() -> Iterator[None]:
    from app.core.config.database import database_settings  # noqa: PLC0415

    backend = database_settings.sqlalchemy_url.get_backend_name()
    if backend not in {"postgresql", "sqlite"}:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="revision-") as folder, contextlib.ExitStack() as stack:
        url: str | None = f"sqlite+aiosqlite:///{folder}/scratch.db"
        if backend == "postgresql":
            from devtools.servers import embedded_servers  # noqa: PLC0415

            servers = embedded_servers(Path(folder), redis=False, postgres=True, durable=False)
            url = stack.enter_context(servers).database_url
        database_settings.url = type(database_settings.url)(url or "")
        yield


def main() -> None:
    """Write a revision with the message from the command line."""
    message = " ".join(sys.argv[1:]).strip()
    if not message:
        sys.exit('revision: the message is missing. For example: make revision m="add orders"')
    os.chdir(ROOT)
    with _scratch_database():
        try:
            written = write_revision(Config("alembic.ini", toml_file="pyproject.toml"), message)
        except CommandError as error:
            sys.exit(
                f"{error}\nIf the branch has two heads, set down_revision of the newer one to the id of the older one."
            )
    for path in written:
        print(f"{path.relative_to(ROOT)}: written. Review it; `make dev` or `make migrate` applies it.")


if __name__ == "__main__":
    main()
