"""The blocks of code of the pages: Forge's, and those of a project with everything."""

from __future__ import annotations

import ast
import fnmatch
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from forge_template import ROOT, working_files
from tests.proofs import Proof, problem

COMMANDS = ("bash", "sh", "console")
# What is read by a parser of its language, and run by nobody.
PARSED = ("yaml", "toml", "ini", "json", "diff", "markdown", "html", "caddy")
TEXT = ("", "text")
LANGUAGES = ("python", "sql", "http", *COMMANDS, *PARSED, *TEXT)
# A line of text that starts like this is a command, whatever its block is called.
PROGRAMS = (
    "make|uv|uvx|docker|curl|git|copier|alembic|celery|python|python3|ssh|scp|pip|kubectl|helm|systemctl|journalctl|sudo|psql|"
    "redis-cli|valkey-cli|pg_dump|pg_restore|kill|cd|cp|mv|rm|mkdir|export|source|bash|sh|my-app"
)
COMMAND = re.compile(rf"(?:[A-Z_]+=\S* )*(?:{PROGRAMS})(?: .*)?")
REQUEST = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE) /\S*")


@dataclass(frozen=True)
class Block:
    """A block of code of a page, and where its first line is."""

    page: str
    line: int
    language: str
    text: str
    # The file that the line before the block names: `app/tasks/order_tasks.py`:
    file: str | None = None

    def __str__(self) -> str:
        """Return where it is, as an editor opens it."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line of a shell, and where it is; `text` has its continuation lines too."""

    page: str
    line: int
    text: str
    is_inline: bool = False

    def __str__(self) -> str:
        """Return it with its place."""
        return f"{self.page}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Listed:
    """Blocks or commands that nobody can run here, and the test that proves them instead.

    `pages` is a pattern of page names, `text` a regular expression for a whole command or the beginning of a block. `proof` names a
    test, `path::name`; the path of a test of the generated project begins with `project/`.
    """

    text: str
    reason: str
    proof: str
    pages: str = "*"

    def covers(self, thing: Block | Command) -> bool:
        """Return whether this is the entry for a block or a command."""
        if not fnmatch.fnmatchcase(thing.page, self.pages):
            return False
        if isinstance(thing, Command):
            return re.fullmatch(self.text, thing.text, re.DOTALL) is not None
        return re.match(self.text, thing.text, re.DOTALL) is not None

    def problem(self, project: Path) -> str | None:
        """Return why the test proves nothing, or None."""
        path, _, name = self.proof.partition("::")
        file = path.removeprefix("project/")
        return problem(Proof("" if file == path else "project", file, name), project)


def read_pages(project: Path) -> dict[str, str]:
    """Return the text of each page: Forge's by their paths, those of the project below `project/`, in a reader's order."""
    # docs/project/ is what this project's pages were when they were last rendered; tests compare both.
    own = [name for name in working_files("*.md") if not name.startswith(("template/", "tests/", "docs/project/"))]
    first = [project / "README.md", project / "docs" / "features.md", project / "docs" / "accounts.md"]
    rest = [page for page in sorted((project / "docs").rglob("*.md")) if page not in first]
    found = {f"project/{page.relative_to(project)}": page for page in (*first, *rest)}
    # After those, as some go on where they end: with a user who has registered, say.
    found.update({name: ROOT / name for name in own if name != "CHANGELOG.md"})
    return {name: page.read_text(encoding="utf-8") for name, page in found.items()}


def read_blocks(page: str, text: str) -> list[Block]:
    """Return the fenced and the indented blocks of a page."""
    blocks: list[Block] = []
    lines = text.splitlines()
    number = 0
    in_list = False
    while number < len(lines):
        line = lines[number]
        fence = re.match(r" *(```+|~~~+) *([\w+-]*)", line)
        if fence:
            end = next(
                (at for at in range(number + 1, len(lines)) if lines[at].strip() == fence[1]),
                None,
            )
            if end is None:
                raise ValueError(f"{page}:{number + 1}: the block never ends")
            block = _block(page, number + 2, fence[2], lines[number + 1 : end])
            before = next((one for one in reversed(lines[:number]) if one.strip()), "")
            named = re.match(r"`((?:app|tests)/[\w/]+\.py)`.*:$", before)
            blocks.append(replace(block, file=named[1]) if named else block)
            number = end + 1
        elif line.startswith("    ") and not in_list and (number == 0 or not lines[number - 1].strip()):
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            blocks.append(_block(page, number + 1, "", lines[number:end]))
            number = end
        else:
            if line.strip() and not line.startswith(" "):
                in_list = bool(re.match(r"([-*+]|\d+[.)]) ", line))
            number += 1
    return blocks


def _block(page: str, line: int, language: str, lines: list[str]) -> Block:
    text = textwrap.dedent("\n".join(lines)).rstrip() + "\n"
    return Block(page, line, language, text)


def problem_of(block: Block) -> str | None:
    """Return why nobody can tell what to do with a block, and what its author should do; None if it is clear."""
    if block.language not in LANGUAGES:
        known = ", ".join(sorted(filter(None, LANGUAGES)))
        return f"{block}: no test reads {block.language!r}. Use one of {known}, or add a parser to test_pages.py"
    if block.language not in TEXT:
        return None
    if REQUEST.match(block.text):
        return f"{block}: call the block ```http, so that its requests are sent"
    if _is_python(block.text):
        return f"{block}: call the block ```python, so that it is run"
    return None


def _is_python(text: str) -> bool:
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return False
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Await)
    return any(isinstance(one.value if isinstance(one, ast.Expr) else one, kinds) for one in body)


def is_script(block: Block) -> bool:
    """Return whether a block is a whole script, which is only parsed."""
    return block.text.startswith("#!/bin/sh\n")


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a block of a shell, and of a text those lines that are commands."""
    if block.language not in (*COMMANDS, *TEXT) or is_script(block):
        return []
    return [
        command
        for command in _joined(block)
        if block.language in COMMANDS or COMMAND.fullmatch(command.text.partition("\n")[0])
    ]


def _joined(block: Block) -> Iterator[Command]:
    """Yield the lines without comments; a line that ends with a backslash goes on in the next."""
    first = 0
    parts: list[str] = []
    for number, line in enumerate(block.text.splitlines()):
        first = first if parts else number
        if line.endswith("\\"):
            parts.append(line[:-1].strip())
            continue
        text = re.sub(r"(^|\s+)# .*$|^#.*$", "", " ".join([*parts, line.strip()])).removeprefix("$ ").strip()
        parts = []
        if text:
            yield Command(block.page, block.line + first, text)


def inline_commands(page: str, text: str) -> list[Command]:
    """Return the commands in the text of a page."""
    without = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)
    found = re.finditer(
        r"`((?:[A-Z_]+=\S+ )?(?:make|uv|uvx|docker|curl|git|copier|alembic|celery|python|ssh)(?: [^`]*)?)`", without
    )
    return [
        Command(page, without[: one.start()].count("\n") + 1, re.sub(r"\s+", " ", one[1]), is_inline=True)
        for one in found
    ]


def requests_of(block: Block) -> list[tuple[str, dict[str, str], str]]:
    """Return the requests of an `http` block: the first line, the headers and the body of each."""
    found = []
    for part in re.split(r"\n(?=(?:GET|POST|PUT|PATCH|DELETE) /)", block.text.strip()):
        first, *rest = part.strip().splitlines()
        headers = {}
        while rest and re.match(r"[\w-]+: ", rest[0]):
            name, _, value = rest.pop(0).partition(": ")
            headers[name] = value
        found.append((first, headers, "\n".join(rest).strip()))
    return found
