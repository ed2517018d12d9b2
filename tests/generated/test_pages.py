"""Every block of code and every command on every page runs, is parsed, or is listed here with the test that proves it."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.conftest import Renderer
from tests.generated.blocks import (
    COMMANDS,
    EVERYTHING,
    PARSED,
    Block,
    Command,
    Listed,
    commands_of,
    inline_commands,
    problem_of,
    read_blocks,
    read_pages,
    requests_of,
)

FORGE = "[!p]*"
COMPOSE = "tests/generated/test_compose.py"
DEVTOOLS = "project/tests/core/test_devtools.py"

# What does not run here, why, and what proves it instead. A change of a page that needs a new line here needs a test as well.
LISTED = (
    # Forge's own commands: this test is run by one of them.
    Listed("make (setup|check|test|matrix)( ARGS=.*)?|make check test", "runs this test", ".ci/run::make matrix", FORGE),
    Listed("make demo", "takes minutes, as a job of CI", ".github/workflows/ci.yml::make demo", FORGE),
    Listed("make fuzz.*", "is a part of .ci/run", ".ci/run::make fuzz", FORGE),
    Listed("make (help|pins|release|pictures|chaos.*)", "changes the repository or takes long", "tests/test_docs.py::test_every_make_command_exists", FORGE),
    Listed("make bench.*", "takes an hour", "tests/test_benchmarks.py::test_a_run_of_some_systems_or_sizes_does_not_change_the_page", FORGE),
    # Updates.
    Listed("uvx --with .* copy --trust .*", "asks at a terminal", "tests/copy/test_questions.py::test_everything_is_asked", FORGE),
)


@pytest.fixture(scope="module")
def rendered(render: Renderer) -> Path:
    """A project with everything, which nothing changes."""
    return render(EVERYTHING)


@pytest.fixture(scope="module")
def pages(rendered: Path) -> dict[str, str]:
    return read_pages(rendered)


def test_every_block_has_a_language_that_is_tested(pages: dict[str, str]) -> None:
    blocks = [block for page, text in pages.items() for block in read_blocks(page, text)]
    assert [problem for block in blocks if (problem := problem_of(block))] == []
    assert len(blocks) > 100
