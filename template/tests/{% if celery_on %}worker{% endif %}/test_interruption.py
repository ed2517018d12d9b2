"""A coroutine can be interrupted where it waits, and `asyncio`'s own cancellations inside it keep their meaning."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import pytest
from celery import current_task
from celery.exceptions import SoftTimeLimitExceeded

from app.tasks.process_task import process_task
from app.worker.interruption import Interruptible


async def _interrupted(coroutine: Coroutine[Any, Any, Any], error: BaseException) -> Any:
    """Run the coroutine, interrupt it when it waits, and return what it returns."""
    execution = Interruptible(coroutine)
    running = asyncio.get_running_loop().create_task(execution.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    execution.interrupt(error)
    async with asyncio.timeout(10):
        result = await running
    assert running.cancelling() == 0
    return result


async def test_an_exception_is_raised_where_the_coroutine_waits() -> None:
    async def handles() -> str:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            # It can wait again.
            await asyncio.sleep(0)
            return "handled"
        return "not interrupted"

    assert await _interrupted(handles(), SoftTimeLimitExceeded()) == "handled"
    with pytest.raises(SoftTimeLimitExceeded):
        await _interrupted(asyncio.sleep(60), SoftTimeLimitExceeded())


async def test_a_timeout_around_the_wait_does_not_take_it_for_its_own() -> None:
    async def waits() -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))

    with pytest.raises(SoftTimeLimitExceeded):
        await _interrupted(waits(), SoftTimeLimitExceeded())


async def test_a_timeout_inside_works_after_the_interruption() -> None:
    async def waits() -> str:
        with contextlib.suppress(SoftTimeLimitExceeded):
            await asyncio.sleep(60)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "timed out"
        return "not timed out"

    assert await _interrupted(waits(), SoftTimeLimitExceeded()) == "timed out"


async def test_it_is_raised_even_if_a_subtask_swallows_the_cancellation() -> None:
    async def swallows() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    async def waits() -> str:
        await asyncio.create_task(swallows())
        return "not interrupted"

    with pytest.raises(SoftTimeLimitExceeded):
        await _interrupted(waits(), SoftTimeLimitExceeded())


async def test_it_is_raised_before_the_first_step() -> None:
    execution = Interruptible(asyncio.sleep(60))
    execution.interrupt(SoftTimeLimitExceeded())
    with pytest.raises(SoftTimeLimitExceeded):
        await execution.run()


async def test_the_current_task_is_set_for_the_coroutines_own_steps_only() -> None:
    task = process_task

    async def sees() -> list[Any]:
        first = current_task.name
        await asyncio.sleep(0.01)
        return [first, current_task.name]

    running = asyncio.get_running_loop().create_task(Interruptible(sees(), task).run())
    while not running.done():
        assert not current_task
        await asyncio.sleep(0)
    assert running.result() == [task.name, task.name]
