"""Run a database's client programs, which read or write a dump as a stream."""

import asyncio
import contextlib
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.features.backup.config import backup_settings
from app.features.backup.errors import BackupFailed

_CHUNK = 1024 * 1024
# Keep the end of stderr, which has the reason of a failure.
_STDERR_BYTES = 2000


def find_program(*names: str, package: str) -> str:
    """Return the path of the first of these programs that exists.

    Raises:
        BackupFailed: none exists.
    """
    folder = backup_settings.programs
    for name in names:
        found = shutil.which(name, path=folder or None)
        if found:
            return found
    raise BackupFailed(
        f"{' or '.join(names)} was not found in {folder or 'PATH'}. Install the package {package} on the worker, "
        "or set BACKUP_PROGRAMS to the folder of the program."
    )


class Program:
    """A running program."""

    def __init__(self, process: Process, name: str, secret: str | None) -> None:
        self._process = process
        self._stdin: Any = process.stdin
        self._stdout: Any = process.stdout
        self._stderr: Any = process.stderr
        self._name = name
        self._secret = secret
        self._errors = bytearray()
        self._stderr_reader = asyncio.create_task(self._read_stderr())

    async def output(self) -> AsyncIterator[bytes]:
        """Yield what the program writes to stdout.

        Raises:
            BackupFailed: the program failed; raised after its output.
        """
        while chunk := await self._stdout.read(_CHUNK):
            yield chunk
        await self._end()

    async def feed(self, content: AsyncIterator[bytes]) -> None:
        """Write `content` to the program's stdin and wait until it exits.

        Raises:
            BackupFailed: the program failed.
        """
        async for chunk in content:
            try:
                self._stdin.write(chunk)
                await self._stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                # The program has failed; `_end` reports why.
                break
        self._stdin.close()
        await self._end()

    async def stop(self) -> None:
        """Kill the program if it still runs."""
        if self._process.returncode is None:
            # Before its stdin closes, so that it does not take a truncated dump for a complete one.
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._stderr_reader

    async def _end(self) -> None:
        code = await self._process.wait()
        await self._stderr_reader
        if code:
            message = self._errors.decode(errors="replace").strip()
            if self._secret:
                message = message.replace(self._secret, "***")
            raise BackupFailed(message or f"{self._name} failed with exit code {code}.")

    async def _read_stderr(self) -> None:
        while chunk := await self._stderr.read(_STDERR_BYTES):
            self._errors += chunk
            del self._errors[:-_STDERR_BYTES]


@contextlib.asynccontextmanager
async def run_program(
    command: Sequence[str], environment: Mapping[str, str], *, reads_input: bool = False, secret: str | None = None
) -> AsyncIterator[Program]:
    """Run a program; kill it at the end of the block if it still runs.

    Args:
        command: the program and its arguments. Must not contain a secret: every user of this host can see it.
        environment: variables in addition to this process's.
        reads_input: whether the program reads from stdin instead of writing to stdout.
        secret: a text that is removed from error messages.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "LC_ALL": "C", **environment},
        stdin=PIPE if reads_input else DEVNULL,
        stdout=DEVNULL if reads_input else PIPE,
        stderr=PIPE,
        limit=_CHUNK,
    )
    program = Program(process, Path(command[0]).name, secret)
    try:
        yield program
    finally:
        await program.stop()
