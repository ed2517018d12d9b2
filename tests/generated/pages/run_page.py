"""Runs the Python and SQL of a page in its order and in one namespace, as its reader would, next to a real worker.

A test copies this module into a project as `tests/pages/NAME/test_page.py`, with the page's blocks in `page.json`. Blocks with a task
are in `app/tasks/page_NAME.py`, so that the worker has them too.
"""

import ast
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import text

from app.core.database import session_scope
from tests.pages.hooks import after, before

from . import reader

PAGE = json.loads((Path(__file__).parent / "page.json").read_text(encoding="utf-8"))


async def test_the_page(request: pytest.FixtureRequest, client: httpx.AsyncClient) -> None:
    if PAGE["needs_worker"]:
        request.getfixturevalue("running_worker")
    # Annotations of routes and models are looked up in the module that a function names.
    names: dict[str, Any] = {**vars(reader), "client": client}
    for block in PAGE["blocks"]:
        await before.run(reader.__name__, block["text"], names)
        if block["language"] == "sql":
            async with session_scope() as db:
                await db.execute(text(block["text"]))
        elif block["module"]:
            names.update(vars(importlib.import_module(block["module"])))
        else:
            await run(block, names)
        await after.run(reader.__name__, block["text"], names)
    unused = [text for hooks in (before, after) for text in hooks.unused(reader.__name__)]
    assert unused == [], f"no block of {PAGE['page']} has these texts"


async def run(block: dict[str, Any], names: dict[str, Any]) -> None:
    """Run a block, whose lines have the numbers that they have in the page."""
    source = "\n" * (block["line"] - 1) + block["text"]
    code = compile(source, PAGE["page"], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, names)
    if inspect.isawaitable(outcome):
        await outcome
