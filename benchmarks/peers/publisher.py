"""Publish tasks with a system's own API.

python -m benchmarks.peers.publisher MODULE bulk COUNT            as fast as it can
python -m benchmarks.peers.publisher MODULE paced RATE SECONDS    one by one, at that rate

The module has `bulk(count)` and `send(sent)`, both `def` or both `async def`.
"""

import asyncio
import importlib
import inspect
import json
import sys
import time
from types import ModuleType

# The first calls connect and import; their tasks are not counted.
_WARM_UP = 5


def paced(module: ModuleType, rate: float, seconds: float) -> float:
    """Publish at a rate; return how many were published per second."""
    for _ in range(_WARM_UP):
        module.send(0.0)
    count, start = max(1, int(rate * seconds)), time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        module.send(time.monotonic())
    return count / (time.monotonic() - start)


async def paced_async(module: ModuleType, rate: float, seconds: float) -> float:
    """Publish at a rate; return how many were published per second."""
    for _ in range(_WARM_UP):
        await module.send(0.0)
    count, start = max(1, int(rate * seconds)), time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        await module.send(time.monotonic())
    return count / (time.monotonic() - start)


def main() -> None:
    """Publish, and print the rate that was reached, which is 0 for `bulk`."""
    module, how = importlib.import_module(sys.argv[1]), sys.argv[2]
    figures = [float(one) for one in sys.argv[3:]]
    if inspect.iscoroutinefunction(module.send):
        work = paced_async(module, *figures) if how == "paced" else module.bulk(int(figures[0]))
        reached = asyncio.run(work)
    else:
        reached = paced(module, *figures) if how == "paced" else module.bulk(int(figures[0]))
    print(json.dumps(reached or 0.0))


main()
