"""`make revision m="add orders"`: writes a database revision from the difference between the models and the revisions.

Compares with an empty database that all revisions were applied to, not with yours: what somebody tried out there does not
get in. MySQL has no embedded server, so its own is used, after `upgrade heads`.
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
    """Write a revision at the end of the owner's branch, or start that branch; return the files written.

    Runs in the project's folder.

    Raises:
        alembic.util.CommandError: the branch has two ends: somebody's revision must first be put behind the other's.
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
    """Write the revision that the command line asks for."""
    message = " ".join(sys.argv[1:]).strip()
    if not message:
        sys.exit('What does it change? make revision m="add orders"')
    os.chdir(ROOT)
    with _scratch_database():
        try:
            written = write_revision(Config("alembic.ini", toml_file="pyproject.toml"), message)
        except CommandError as error:
            sys.exit(f"{error}\nIf the branch has two heads, set down_revision of the later one to the other.")
    for path in written:
        print(f"{path.relative_to(ROOT)}: written; read it before `make dev`, or `make migrate` beside it, applies it")


if __name__ == "__main__":
    main()
