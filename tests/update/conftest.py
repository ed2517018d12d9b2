"""One world for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.update.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The releases up to the working tree. Tests that add releases make a world of their own."""
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def own_world(tmp_path: Path) -> World:
    """A world to add releases to."""
    return World(tmp_path / "world")
