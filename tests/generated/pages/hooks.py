"""What a page's reader does around its blocks: `before` gives names to a block, `after` checks what it has done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
from fastapi import APIRouter

from app.worker.publish import wait_for
from app.worker.status import TaskStatus

Names = dict[str, Any]
Hook = Callable[[Names], Awaitable[Names | None]]


@dataclass
class Hooks:
    """The functions of a kind, by a text that is in their blocks."""

    functions: list[tuple[str, Hook]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def __call__(self, text: str) -> Callable[[Hook], Hook]:
        """Register a function for the blocks that contain `text`."""

        def register(function: Hook) -> Hook:
            self.functions.append((text, function))
            return function

        return register

    async def run(self, page: str, block: str, names: Names) -> None:
        """Run the functions of a page for a block; what they return are names for it and for those after it."""
        for text, function in self.functions:
            if function.__module__ == page and text in block:
                self.used.add(text)
                names.update(await function(names) or {})

    def unused(self, page: str) -> list[str]:
        """Return the texts of a page's functions that were in no block."""
        return [text for text, function in self.functions if function.__module__ == page and text not in self.used]


before = Hooks()
after = Hooks()


@asynccontextmanager
async def client_of(router: APIRouter) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the application with a page's routes."""
    # This module is imported while the application imports its tasks.
    from app.main import create_app

    app = create_app()
    app.include_router(router)
    # The lifespan of the test's own client has opened what the routes need.
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def ended(task_id: str) -> TaskStatus:
    """Return the status of a task once it has ended."""
    status = await wait_for(task_id, 30)
    assert status is not None
    assert status.ready, status
    return status
