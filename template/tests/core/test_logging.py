"""Values from clients cannot forge log lines, and tests can capture the lines of loggers."""

import json
import os
import subprocess
import sys

import pytest
import structlog

from app.core.logging import configure_logging
from tests import ROOT

EVIL = "x\r\n2026-01-01 [info] forged \x1b[2J\x7f\x9b\u202e\u2028"
CODE = f"""
import logging, structlog
from app.core.logging import configure_logging
configure_logging()
evil = {EVIL!a}
structlog.get_logger("one").warning("event", path=evil, nested=[evil])
logging.getLogger("two").warning("GET %s", evil)
try:
    raise ValueError(evil.replace("\\n", ""))
except ValueError:
    structlog.get_logger("three").exception("failed")
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_control_characters_from_clients_are_escaped(log_format: str) -> None:
    environment = {**os.environ, "LOG_FORMAT": log_format, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    text = done.stderr.decode()
    assert text.count("forged") == 4
    assert not [
        character
        for character in EVIL
        if character != "\n" and ord(character) not in range(32, 127) and character in text
    ]
    lines = text.splitlines()
    assert not [line for line in lines if line.startswith("2026-01-01 [info]")]
    if log_format == "json":
        assert [json.loads(line)["logger"] for line in lines] == ["one", "two", "three"]
    else:
        assert "Traceback" in text
        assert "\\x1b[2J" in text
        assert len([line for line in lines if "[warning" in line]) == 2


def test_lines_are_captured_of_loggers_that_were_used_before() -> None:
    configure_logging()
    logger = structlog.get_logger("four")
    logger.warning("before")
    configure_logging()
    with structlog.testing.capture_logs() as lines:
        logger.warning("after")
    assert [line["event"] for line in lines] == ["after"]
