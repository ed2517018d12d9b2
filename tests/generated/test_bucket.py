"""A project's files in a bucket: its own tests of the storage against a server that speaks S3."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from forge_template import project_environment, run
from tests.conftest import Renderer
from tests.generated.life import INSTALL_LIMIT, TEST_LIMIT, find_python, free_port, install, wait_until

pytestmark = pytest.mark.matrix

SERVER = ["uv", "tool", "run", "--from", "moto[server,s3]>=5.2,<6", "moto_server", "-H", "127.0.0.1"]


@pytest.fixture
def endpoint(scratch: Path) -> Iterator[str]:
    """The address of an S3 server with an empty bucket named `bucket`."""
    address = f"http://127.0.0.1:{free_port()}"

    def made() -> bool:
        try:
            return httpx.put(f"{address}/bucket").status_code == 200
        except httpx.TransportError:
            return False

    with (scratch / "moto.log").open("wb") as log:
        command = [*SERVER, "-p", address.rpartition(":")[2]]
        process = subprocess.Popen(command, env=project_environment(), stdout=log, stderr=log)
    try:
        wait_until("the S3 server answers", made, process, INSTALL_LIMIT)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_files_in_a_bucket(render: Renderer, scratch: Path, endpoint: str) -> None:
    answers = {"profile": "minimal", "auth": "none", "task_examples": ["data_processing"]}
    project = render.fresh(answers, scratch / "project")
    install(project, find_python("3.11") or sys.executable)
    environment = {
        "TEST_STORAGE_URL": "s3://bucket/prefix",
        "STORAGE_ENDPOINT": endpoint,
        "STORAGE_ACCESS_KEY_ID": "forge",
        "STORAGE_SECRET_ACCESS_KEY": "a-secret-for-tests",
    }
    command = ["uv", "run", "pytest", "tests/storage", "tests/files", "tests/csv"]
    passed = re.search(r"\b(\d+) passed", run(command, project, environment, timeout=TEST_LIMIT))
    assert passed
    assert int(passed[1]) >= 80
    assert "PUT /bucket/prefix/files/ada/" in (scratch / "moto.log").read_text(encoding="utf-8")
    assert "<KeyCount>0</KeyCount>" in httpx.get(f"{endpoint}/bucket?list-type=2").text
