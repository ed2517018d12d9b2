"""One world for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import made_once
from tests.update.lab import lab
from tests.update.world import World, write_releases


@pytest.fixture(scope="session", autouse=True)
def _releases(shared: Path) -> None:
    """Make the repository of every release that worlds are copies of."""
    World.releases = made_once(shared / "releases", write_releases)


@pytest.fixture(scope="session")
def world(shared: Path) -> World:
    """The releases up to the working tree, for all test processes. Tests that add releases make a world of their own."""
    folder = made_once(shared / "world", World)
    return World(folder)


@pytest.fixture(scope="session")
def made(shared: Path) -> World:
    """The made-up releases on top, for all test processes."""
    return World(made_once(shared / "made", lab))


@pytest.fixture
def own_world(tmp_path: Path) -> World:
    """A world to add releases to."""
    return World(tmp_path / "world")
