"""The fixture `run_cli`, which calls the command line in the test's process."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Outcome:
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str


RunCli = Callable[..., Outcome]
"""The type of the fixture `run_cli`."""


@pytest.fixture
def run_cli() -> Iterator[RunCli]:
    """Give a function that runs a command, such as `run_cli("tasks", "list", "--json")`."""
    from typer.testing import CliRunner

    from app.cli.main import create_cli

    def run(*arguments: str) -> Outcome:
        result = CliRunner().invoke(create_cli(), list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield run
    # A command logs to its own stderr.
    root.handlers[:] = handlers
    root.setLevel(level)
