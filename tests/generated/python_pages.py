"""Runs the Python of a page in a project: its tasks on a worker, its tests with pytest, the rest line by line."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from forge_template import project_environment
from tests.generated.blocks import Block
from tests.generated.life import stop, wait_until

READERS = Path(__file__).parent / "pages"
LIMIT = 120.0
# The project's own embedded servers, shared by the tests of all pages.
SERVERS = """
import sys
from pathlib import Path
from devtools.servers import embedded_servers
with embedded_servers(Path(sys.argv[1]), redis=True, postgres=True, name="pages", durable=False) as servers:
    print(servers.redis_url(0), servers.database_url, servers.database_programs, flush=True)
    sys.stdin.read()
"""


@contextmanager
def running_servers(project: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Run Valkey and PostgreSQL by the project's own means; give their addresses as environment variables.

    The tests of the pages delete their data.
    """
    log = folder / "servers"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["uv", "run", "--no-sync", "python", "-c", SERVERS, str(folder / "data")],
            cwd=project,
            env=project_environment(),
            stdin=subprocess.PIPE,
            stdout=output,
            start_new_session=True,
        )
    try:
        wait_until("the servers", lambda: b"\n" in log.read_bytes(), process, LIMIT)
        redis, database, programs = log.read_text(encoding="utf-8").split()
        yield {"TEST_REDIS_URL": redis, "TEST_DATABASE_URL": database, "BACKUP_PROGRAMS": programs}
    finally:
        assert process.stdin
        process.stdin.close()
        stop(process, 60)


def reader_of(page: str) -> Path:
    """Return the file with what a page takes from its reader."""
    path = Path(page)
    stem = path.stem.replace("-", "_").lower()
    return READERS / (f"{stem}.py" if page.startswith("project/") else f"forge_{stem}.py")


def is_test(block: Block) -> bool:
    """Return whether pytest runs a block."""
    return re.search(r"^(?:async )?def test_", block.text, re.MULTILINE) is not None


def is_task(block: Block) -> bool:
    """Return whether a worker needs a block that its page puts into no file."""
    return block.file is None and defines_task(block.text)


def defines_task(text: str) -> bool:
    """Return whether a text registers a task or an entry of the schedule."""
    return re.search(r"^@celery_app\.task|\.conf\.beat_schedule\[", text, re.MULTILINE) is not None


def syntax_problem(block: Block) -> str | None:
    """Return why a block is no Python, with `await` at the top allowed; or None."""
    try:
        compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        return f"{block.page}:{block.line + (error.lineno or 1) - 1}: {error.msg}"
    return None


def run_pages(project: Path, blocks_of: Mapping[str, list[Block]], servers: Mapping[str, str]) -> str | None:
    """Run the blocks of pages in one process and return what pytest printed if one failed, or None."""
    root = project / "tests" / "pages"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    written: list[Path] = []
    try:
        (root / "__init__.py").touch()
        shutil.copy(READERS / "hooks.py", root)
        for page, blocks in blocks_of.items():
            written += write_files(project, blocks)
            written.append(_write_page(project, page, blocks))
        return _run_pytest(project, servers)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        for path in written:
            path.unlink(missing_ok=True)


def write_files(project: Path, blocks: Iterable[Block]) -> list[Path]:
    """Write the blocks that a page puts into a file, all or none, and return the files."""
    found = [(block, project / block.file) for block in blocks if block.file]
    for block, path in found:
        assert not path.exists(), f"{block}: the project has a {block.file} already"
    for block, path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A page may show a file in parts.
        with path.open("a", encoding="utf-8") as file:
            file.write(block.text)
    return [path for _, path in found]


def _write_page(project: Path, page: str, blocks: list[Block]) -> Path:
    """Write the test of a page, and the module with its tasks, which is returned."""
    name = reader_of(page).stem
    folder = project / "tests" / "pages" / name
    folder.mkdir()
    reader = reader_of(page)
    given = reader.read_text(encoding="utf-8") if reader.is_file() else ""
    (folder / "__init__.py").touch()
    (folder / "reader.py").write_text(given, encoding="utf-8")
    shutil.copy(READERS / "run_page.py", folder / "test_page.py")
    for block in blocks:
        if not is_test(block):
            continue
        if block.file:
            # Under its own name: the folder's modules are all that is run.
            (project / block.file).unlink()
        write_lines(folder / f"test_line_{block.line}.py", "", [block])
    tasks = project / "app" / "tasks" / f"page_{name}.py"
    if any(map(is_task, blocks)) or defines_task(given):
        write_lines(tasks, f"from tests.pages.{name}.reader import *  # noqa: F403", list(filter(is_task, blocks)))
    steps = [
        {"line": one.line, "language": one.language, "text": one.text, "module": _module(one, tasks)}
        for one in blocks
        if not is_test(one)
    ]
    queues = re.search(r"\benqueue|\.delay\(|\.apply_async\(", given + "".join(block.text for block in blocks))
    content = {"page": page, "blocks": steps, "needs_worker": bool(queues)}
    (folder / "page.json").write_text(json.dumps(content), encoding="utf-8")
    return tasks


def _module(block: Block, tasks: Path) -> str | None:
    """Return the module that has a block, or None for one that is run where it stands."""
    if block.file:
        return block.file.removesuffix(".py").replace("/", ".")
    return f"app.tasks.{tasks.stem}" if is_task(block) else None


def _run_pytest(project: Path, servers: Mapping[str, str]) -> str | None:
    options = (
        "-q",
        "--no-header",
        "--tb=short",
        "--show-capture=no",
        "-p",
        "no:cacheprovider",
        "--timeout",
        f"{LIMIT:.0f}",
    )
    done = subprocess.run(
        ["uv", "run", "--no-sync", "pytest", *options, "tests/pages"],
        cwd=project,
        env=project_environment(servers),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode else None


def write_lines(path: Path, first: str, blocks: list[Block]) -> None:
    """Write blocks into a module, each at the lines that it has in its page, so that tracebacks name these."""
    lines = [first, *[""] * max((block.line + block.text.count("\n") for block in blocks), default=0)]
    for block in blocks:
        for number, line in enumerate(block.text.splitlines()):
            lines[block.line - 1 + number] = line
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
