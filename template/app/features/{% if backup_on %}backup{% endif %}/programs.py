"""Running the programs that a database brings, which read and write it as a stream."""

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
# Of what a program says, the end: that is where it gives up.
_SAID = 2000


def find_program(*names: str, package: str) -> str:
    """Return where the first of these programs is.

    Raises:
        BackupFailed: there is none of them.
    """
    folder = backup_settings.programs
    for name in names:
        found = shutil.which(name, path=folder or None)
        if found:
            return found
    raise BackupFailed(
        f"There is no {' or '.join(names)} in {folder or 'PATH'}: install the package {package} where the worker runs, "
        "or name the folder in BACKUP_PROGRAMS."
    )


class Program:
    """A program that runs."""

    def __init__(self, process: Process, name: str, secret: str | None) -> None:
        self._process = process
        self._stdin: Any = process.stdin
        self._stdout: Any = process.stdout
        self._stderr: Any = process.stderr
        self._name = name
        self._secret = secret
        self._said = bytearray()
        self._listener = asyncio.create_task(self._listen())

    async def output(self) -> AsyncIterator[bytes]:
        """Give what it writes.

        Raises:
            BackupFailed: it ended with an error; raised in the place of the end.
        """
        while chunk := await self._stdout.read(_CHUNK):
            yield chunk
        await self._end()

    async def feed(self, content: AsyncIterator[bytes]) -> None:
        """Have it read `content`, and return when it has ended.

        Raises:
            BackupFailed: it ended with an error.
        """
        async for chunk in content:
            try:
                self._stdin.write(chunk)
                await self._stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                # It has given up, and says why.
                break
        self._stdin.close()
        await self._end()

    async def stop(self) -> None:
        """End it, if it has not ended."""
        if self._process.returncode is None:
            # Before its input closes: it must not take a part for the whole.
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._listener

    async def _end(self) -> None:
        code = await self._process.wait()
        await self._listener
        if code:
            said = self._said.decode(errors="replace").strip()
            if self._secret:
                said = said.replace(self._secret, "***")
            raise BackupFailed(said or f"{self._name} ended with {code}")

    async def _listen(self) -> None:
        while said := await self._stderr.read(_SAID):
            self._said += said
            del self._said[:-_SAID]


@contextlib.asynccontextmanager
async def running(
    command: Sequence[str], environment: Mapping[str, str], *, fed: bool = False, secret: str | None = None
) -> AsyncIterator[Program]:
    """Run a program for the time of the block; killed if it still runs at its end.

    Args:
        command: the program and its arguments, which everybody on the machine can see: no secret.
        environment: variables beside this process's own.
        fed: it reads, rather than writes.
        secret: what must not be in a message.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "LC_ALL": "C", **environment},
        stdin=PIPE if fed else DEVNULL,
        stdout=DEVNULL if fed else PIPE,
        stderr=PIPE,
        limit=_CHUNK,
    )
    program = Program(process, Path(command[0]).name, secret)
    try:
        yield program
    finally:
        await program.stop()
