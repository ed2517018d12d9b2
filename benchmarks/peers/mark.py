"""The body of every measured task: it appends two times to a file, which costs all systems the same few microseconds.

A counter in Redis would cost a round trip for each task, which is more than some of the systems need for the whole task.
"""

import os
import struct
import time

RECORD = struct.Struct("dd")

_file = os.open(os.environ["BENCHMARK_MARKS"], os.O_WRONLY | os.O_APPEND)


def mark(sent: float) -> None:
    """Record when the task was published, or 0, and that it runs now, on the clock that all processes share."""
    os.write(_file, RECORD.pack(sent, time.monotonic()))
