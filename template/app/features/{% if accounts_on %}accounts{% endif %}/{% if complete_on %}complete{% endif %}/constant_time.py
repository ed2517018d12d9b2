"""Routes whose response time does not reveal whether an account exists."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

SECONDS = 0.25
"""Longer than hashing a password and a database write take on a machine that is not overloaded."""


class ConstantTimeRoute(APIRoute):
    """A route that responds no earlier than `SECONDS` after the request: `APIRouter(route_class=ConstantTimeRoute)`.

    A commit without changes is some milliseconds faster, which would reveal that no account exists.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler, followed by the wait."""
        handle = super().get_route_handler()

        async def handle_in_constant_time(request: Request) -> Response:
            loop = asyncio.get_running_loop()
            end = loop.time() + SECONDS
            try:
                return await handle(request)
            finally:
                await asyncio.sleep(max(0.0, end - loop.time()))

        return handle_in_constant_time
