"""Every command in a project's README and docs runs: beside `make dev`, in compose's terms, or in a test that is named here."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import httpx2 as httpx
import pytest
import yaml

from forge_template import git, project_environment
from tests.conftest import Renderer
from tests.generated.life import find_python, free_port, install, wait_until

COMMAND_LIMIT = 120.0
PROGRAMS = r"(make|uv|uvx|docker|curl|git|copier|alembic|celery|python|ssh)"
# What is run elsewhere, or not by a person at this place, and where.
ELSEWHERE = {
    r"make (dev|test|test-all|check|check test)|make revision m=.add orders.|make test ARGS=.tests/orders.": "tests/generated/test_life.py",
    r"make test ARGS=.*|uv run pytest.*": "the project's own tests",
    r"make update.*|uv run --no-project python -m devtools.update|copier (update|recopy).*": "tests/update",
    r"make (migrate|revision.*)|uv run python -m devtools.(revision|dev).*": "the project's tests/core/test_migrations.py, test_devtools.py",
    r"make secrets.*|uv run python -m devtools.secrets": "the project's tests/core/test_devtools.py",
    r"git (pull|add|reset --hard && git clean -fd)": "tests/update",
    r"uv run( my-app)?": "a name, no command",
    r"source .venv/bin/activate|my-app --install-completion": "a person's shell",
    r"DATABASE_URL=… .* restore NAME": "the project's tests/e2e/backup/test_backup_task.py",
    r"docker inspect|docker compose exec postgres psql .*|ssh .*": "outside of the project",
    r"python -I app/probe.py .*": "tests/generated/test_compose.py, as the health checks of compose",
    r"celery (control .*|inspect|-A app.core.celery:celery_app)|python -m app.worker|make worker|alembic upgrade heads": "a name, no command of this page",
}
# What a command of the pages may answer beside success.
MAY_FAIL = {
    r"make audit.*": "development is not safe for production",
    r"ENVIRONMENT=production .*app.audit|uv run my-app audit .*": "likewise",
}


@pytest.fixture(scope="module")
def project(render: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with everything."""
    folder = render.anew({"profile": "production"}, tmp_path_factory.mktemp("commands") / "project")
    install(folder, find_python("3.11") or "3.11")
    return folder


def pages(project: Path) -> list[Path]:
    """Return the pages, in the order of a reader."""
    first = [project / "README.md", project / "docs" / "accounts.md"]
    return [*first, *(page for page in sorted((project / "docs").glob("*.md")) if page not in first)]


def commands(page: Path) -> tuple[list[str], list[str]]:
    """Return the commands of a page's blocks, in their order, and those in its text."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    inline = re.findall(
        rf"`((?:[A-Z_]+=\S+ )?{PROGRAMS}(?: [^`]*)?)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    )
    return [line for line in lines if line and not line.startswith("#")], [each[0] for each in inline]


def is_elsewhere(command: str) -> bool:
    """Return whether another test runs it."""
    return any(re.fullmatch(pattern, command) for pattern in ELSEWHERE)


class Dev:
    """A running `make dev`, and a terminal beside it."""

    def __init__(self, project: Path, log: Path) -> None:
        self.project = project
        self.port = free_port()
        ports = {
            name: str(free_port()) for name in ("FLOWER_PORT", "EMAIL_PORT", "METRICS_API_PORT", "METRICS_WORKER_PORT")
        }
        self.flower = int(ports["FLOWER_PORT"])
        self.known: dict[str, str] = {}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["make", "dev"],
                cwd=project,
                env=project_environment({"PORT": str(self.port), "DEV_SERVERS": "embedded", **ports}),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(
            "make dev", lambda: "everything runs" in log.read_text(encoding="utf-8"), self.process, COMMAND_LIMIT
        )

    def run(self, command: str) -> str:
        """Run a command of a page as its reader does, with what earlier answers said in place of the names in capitals."""
        if "CODE" in command:
            self.known["CODE"] = self._code()
        for name, value in self.known.items():
            command = re.sub(rf"\b{name}\b", value, command)
        command = command.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{self.port}")
        command = command.replace("curl ", "curl --silent --show-error --fail-with-body ")
        end = time.monotonic() + COMMAND_LIMIT
        while True:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.project,
                env=project_environment({"TOKEN": self.known.get("ACCESS_TOKEN", "")}),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=COMMAND_LIMIT,
                check=False,
            )
            if done.returncode and not any(re.match(pattern, command) for pattern in MAY_FAIL):
                raise AssertionError(f"{command}\nended with {done.returncode}:\n{done.stdout[-4000:]}")
            # A page's next line takes the task for done.
            if "/task/" not in command or '"SUCCESS"' in done.stdout or time.monotonic() > end:
                break
        assert "/task/" not in command or '"SUCCESS"' in done.stdout, done.stdout
        for name, pattern in (("TASK_ID", r'"task_id":\s*"([^"]+)"'), ("ACCESS_TOKEN", r'"access_token":\s*"([^"]+)"')):
            found = re.search(pattern, done.stdout)
            if found:
                self.known[name] = found[1]
        return done.stdout

    def _code(self) -> str:
        """Return the last code that was mailed."""
        codes: list[str] = []

        def mailed() -> bool:
            mails = sorted((self.project / ".dev" / "mails").glob("*.eml"))
            for mail in mails:
                body = message_from_bytes(mail.read_bytes(), policy=default).get_body(("plain",))
                codes.extend(re.findall(r"^ {4}(\S+)\s*$", body.get_content() if body else "", re.MULTILINE))
            return bool(codes)

        wait_until("a mailed code", mailed, self.process, 30)
        return codes[-1]


@pytest.fixture(scope="module")
def dev(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """`make dev`, with the files that the pages upload."""
    (project / "orders.csv").write_text("id,email,amount\n1,ada@example.com,9.50\n2,short\n", encoding="utf-8")
    environment = project_environment()
    picture = "from PIL import Image; Image.new('RGB', (600, 400), 'red').save('photo.jpg')"
    subprocess.run(["uv", "run", "python", "-c", picture], cwd=project, env=environment, check=True)
    running = Dev(project, tmp_path_factory.mktemp("dev") / "log")
    yield running
    os.killpg(running.process.pid, signal.SIGINT)
    running.process.wait(60)


@pytest.mark.matrix
@pytest.mark.xdist_group("commands")
def test_every_command_of_the_pages_runs_beside_make_dev(project: Path, dev: Dev) -> None:
    services = set(yaml.safe_load((project / "docker-compose.yml").read_text(encoding="utf-8"))["services"])
    ran = 0
    for page in pages(project):
        block, inline = commands(page)
        for command in [*block, *inline]:
            command = re.sub(r"\s+#.*$", "", command)
            if is_elsewhere(command):
                continue
            if command.startswith("docker compose"):
                assert_names_services(command, services)
                continue
            if command.startswith("TOKEN="):
                continue
            dev.run(command)
            ran += 1
    assert ran >= 25
    assert httpx.get(f"http://127.0.0.1:{dev.port}/health").json() == {"status": "ok"}
    assert git(project, "status", "--porcelain", "--", "app", "tests") == ""


@pytest.mark.matrix
@pytest.mark.xdist_group("commands")
def test_flower_stops_tasks_for_who_has_its_login(project: Path, dev: Dev) -> None:
    password = (project / ".dev" / "flower").read_text(encoding="utf-8")
    url = f"http://127.0.0.1:{dev.flower}/api/task/revoke/0b5a1f0e-0000-4000-8000-000000000000?terminate=true"
    assert httpx.post(url).status_code == 401
    assert httpx.post(url, auth=("dev", password)).status_code == 200


def assert_names_services(command: str, services: set[str]) -> None:
    """Check the services that a line of compose names; tests/generated/test_compose.py runs such lines on an engine."""
    words = shlex.split(command)
    verb = next(word for word in words[2:] if word in {"up", "run", "exec", "stop", "logs", "build", "ps", "down"})
    named = [word for word in words[words.index(verb) + 1 :] if not word.startswith("-") and "=" not in word]
    assert set(named[:1] if verb in {"run", "exec"} else named) <= services, command
