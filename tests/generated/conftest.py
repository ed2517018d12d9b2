"""A MariaDB server for the tests of projects on MySQL."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.generated.life import install_mariadb, running_mariadb


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    """The URL of an empty database on a private MariaDB server."""
    problem = install_mariadb()
    if problem:
        warnings.warn(f"NOT TESTED on MySQL: {problem}", stacklevel=1)
        pytest.skip(f"no MariaDB server: {problem}")
    folder = Path(tempfile.mkdtemp(prefix="forge-mariadb-"))
    with running_mariadb(folder) as url:
        yield url
    shutil.rmtree(folder, ignore_errors=True)
