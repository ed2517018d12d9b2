"""A Docker engine for the tests, and what they ask of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forge_template import ROOT, project_environment, run

LAB = ROOT.parent / "shared" / "docker-lab" / "docker-lab"
"""A script that brings an engine where there is none: `docker-lab up`, `docker-lab env`, `docker-lab image TAG`."""

# While it makes its data, the server reads a statement a line.
_MENDED = {
    "mariadb:11": "FROM mariadb:11\n"
    "USER root\n"
    "RUN sed -i 's/; \\([A-Z]\\)/;\\n\\1/g' /usr/local/bin/docker-entrypoint.sh\n"
    "USER mysql\n"
}

BUILD_LIMIT = 900.0
UP_LIMIT = 300.0


def engine() -> dict[str, str] | None:
    """Return the variables with which `docker` finds an engine that answers, or None."""
    found: list[dict[str, str]] = [{}]
    if LAB.exists():
        said = subprocess.run([LAB, "env"], stdout=subprocess.PIPE, text=True, check=True).stdout
        variables = dict(re.findall(r"(\w+)=(\S+)", said))
        variables["PATH"] = variables["PATH"].replace("$PATH", os.environ.get("PATH", os.defpath))
        found.append(variables)
    for variables in found:
        environment = project_environment(variables)
        if shutil.which("docker", path=environment["PATH"]):
            command = ["docker", "compose", "ls"]
            if subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0:
                return variables
    return None


def required_engine() -> dict[str, str]:
    """Return the engine's variables; skips the test, aloud, where there is none."""
    variables = engine()
    if variables is None:
        warnings.warn("NOT TESTED with Docker: no engine answers", stacklevel=1)
        pytest.skip("no Docker engine answers")
    return variables


def require_image(variables: dict[str, str], tag: str) -> None:
    """Have the stand-in of an image ready, where images are stand-ins."""
    if LAB.exists() and "docker-lab" in variables.get("DOCKER_HOST", os.environ.get("DOCKER_HOST", "")):
        subprocess.run([LAB, "image", tag], check=True, stdout=subprocess.DEVNULL)
        mended = _MENDED.get(tag)
        if mended:
            command = ["docker", "build", "--quiet", "--tag", tag, "-"]
            subprocess.run(command, env=project_environment(variables), input=mended, text=True, check=True)


@dataclass
class Stack:
    """A project's compose services."""

    project: Path
    variables: dict[str, str]

    def compose(self, *arguments: str, limit: float = UP_LIMIT) -> str:
        """Run `docker compose` in the project and return what it prints."""
        return run(["docker", "compose", *arguments], self.project, self.variables, timeout=limit)

    def docker(self, *arguments: str, limit: float = 60) -> str:
        """Run `docker` and return what it prints."""
        return run(["docker", *arguments], self.project, self.variables, timeout=limit)

    def inside(self, service: str, *command: str) -> str:
        """Run a command in a service's first container and return what it prints."""
        return self.compose("exec", "-T", service, *command)

    def containers(self) -> list[dict[str, Any]]:
        """Return what `docker compose ps` knows of every container, ended ones too."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def address(self, service: str, port: int) -> str:
        """Return the address on this host of a service's port."""
        return f"http://{self.compose('port', service, str(port)).strip()}"


def running(project: Path, variables: dict[str, str]) -> Iterator[Stack]:
    """Build and start a project's services, and remove them and their data afterwards."""
    stack = Stack(project, variables)
    try:
        stack.compose("build", limit=BUILD_LIMIT)
        try:
            stack.compose("up", "--detach", "--wait")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{stack.compose('logs', '--tail', '30')}") from error
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "20")
