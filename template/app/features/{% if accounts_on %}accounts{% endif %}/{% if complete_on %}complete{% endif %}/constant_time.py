"""Answers that take the same time whatever was found."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

SECONDS = 0.25
"""More than hashing a password and writing to the database take on a machine that is not overloaded."""


class ConstantTimeRoute(APIRoute):
    """A route that answers no sooner than `SECONDS` after it was asked: `APIRouter(route_class=ConstantTimeRoute)`.

    A commit that has nothing to write is some milliseconds faster, which would tell whether there was an account.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler, with the wait behind it."""
        handle = super().get_route_handler()

        async def handle_in_constant_time(request: Request) -> Response:
            loop = asyncio.get_running_loop()
            end = loop.time() + SECONDS
            try:
                return await handle(request)
            finally:
                await asyncio.sleep(max(0.0, end - loop.time()))

        return handle_in_constant_time
