"""The image and `docker compose up` of generated projects, on a real engine."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from forge_template import git, run
from tests.conftest import Renderer
from tests.generated.blocks import commands_of, read_blocks
from tests.generated.docker import BUILD_LIMIT, Stack, require_image, required_engine, running
from tests.generated.life import free_port

# One engine, and few cores.
pytestmark = [pytest.mark.matrix, pytest.mark.xdist_group("docker"), pytest.mark.timeout(1800)]

DEVELOPMENT = ("-f", "docker-compose.yml", "-f", "docker-compose.dev.yml")
MEBIBYTE = 1024 * 1024

REVISION = '''
"""A revision that the previous release does not have."""

revision = "newest"
down_revision = None
branch_labels = ("app",)
depends_on = None


def upgrade() -> None:
    """Change nothing."""


def downgrade() -> None:
    """Change nothing."""
'''


def variables_for(engine: dict[str, str], name: str) -> dict[str, str]:
    """Return the variables of a stack that shares nothing with another on this engine."""
    ports = {"API_PORT": str(free_port()), "FLOWER_PORT": str(free_port())}
    return {**engine, **ports, "IMAGE": name, "COMPOSE_PROJECT_NAME": name}


@contextmanager
def up(render: Renderer, scratch: Path, name: str, answers: dict[str, Any], engine: dict[str, str]) -> Iterator[Stack]:
    """Give a project's running services."""
    project = render.fresh(answers, scratch / name)
    yield from running(project, variables_for(engine, f"forge-{name}"))


@pytest.fixture(scope="module")
def engine() -> dict[str, str]:
    return required_engine()


@pytest.fixture(scope="module")
def stack(engine: dict[str, str], render: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The services of a project with everything."""
    with up(render, tmp_path_factory.mktemp("compose"), "production", {"profile": "production"}, engine) as one:
        yield one


def processed(stack: Stack) -> str:
    """Have a task done and return its id; by a script, as production's API shows users the tasks of their own alone."""
    assert httpx.get(f"{stack.address('api', 8000)}/health").json() == {"status": "ok"}
    code = "from app.tasks.process_task import process_task as task; one = task.delay({}); one.get(timeout=60); print(one.id)"
    task = stack.inside("celery_worker", "python", "-c", code).splitlines()[-1].strip()
    assert state(stack, task) == "SUCCESS"
    return task


def state(stack: Stack, task: str) -> str:
    """Return the state of a task."""
    code = f"import app.core.celery; from app.worker.status import read_status; print(read_status({task!r}).status)"
    return stack.inside("celery_worker", "python", "-c", code).splitlines()[-1].strip()


def becomes_ready(stack: Stack) -> None:
    """Wait until everything that the API uses is there: beat has to come round once."""
    url, end = f"{stack.address('api', 8000)}/ready", time.monotonic() + 60
    while (answer := httpx.get(url)).status_code != 200:
        assert time.monotonic() < end, answer.text
        time.sleep(0.2)


def states(stack: Stack) -> dict[str, list[str]]:
    """Return the state of each service's containers: their health where they have one."""
    found: dict[str, list[str]] = {}
    for container in stack.containers():
        state = container["Health"] or f"{container['State']} {container['ExitCode']}"
        found.setdefault(container["Service"], []).append(state)
    return found


def test_every_service_is_healthy_and_the_migration_ended(stack: Stack) -> None:
    running = ("api", "celery_worker", "celery_worker_long", "celery_beat", "flower", "redis", "postgres")
    expected = {service: ["healthy"] for service in running}
    assert states(stack) == {**expected, "migrate": ["exited 0"]}
    becomes_ready(stack)


def test_a_task_runs(stack: Stack) -> None:
    processed(stack)


def test_containers_can_do_little(stack: Stack) -> None:
    for container in stack.containers():
        host = json.loads(stack.docker("inspect", container["ID"]))[0]["HostConfig"]
        assert host["ReadonlyRootfs"], container["Service"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "5"}
        for bindings in host["PortBindings"].values():
            assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}
    for service in ("api", "redis", "postgres"):
        assert stack.inside(service, "id", "-u").strip() != "0"
        # Where nothing is mounted, nothing can be written; where something is, it can.
        assert "Read-only" in stack.inside(service, "sh", "-c", "touch /etc/x 2>&1 || true")
    stack.inside(
        "api", "sh", "-c", "touch /tmp/x /app/data/x /app/data/storage/backups/x && rm /app/data/storage/backups/x"
    )


def test_the_image_holds_what_runs_and_nothing_else(stack: Stack) -> None:
    image = stack.variables["IMAGE"]
    known = json.loads(stack.docker("image", "inspect", image))[0]
    assert known["Config"]["User"] == "10001:10001"
    labels = known["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "My App"
    assert set(labels) >= {f"org.opencontainers.image.{name}" for name in ("version", "revision", "description")}
    inside = ["run", "--rm", "--entrypoint", "sh", image, "-c"]
    assert stack.docker(*inside, "command -v gcc cc make uv ruff pytest mypy; true") == ""
    found = stack.docker(*inside, "find /app -path /app/.venv -prune -o -print")
    assert [line for line in found.splitlines() if re.search(r"/(\.env|secret|tests|devtools|docs)", line)] == []
    assert re.search(r"\b18\.", stack.docker(*inside, "pg_dump --version"))
    # Compiled when it was built: a read-only file system takes nothing later.
    assert stack.docker(*inside, "ls app/core/__pycache__ | wc -l").strip() != "0"
    secrets = [line.partition("=")[2] for line in (stack.project / "secret" / ".env.redis").read_text().splitlines()]
    history = stack.docker("history", "--no-trunc", image) + json.dumps(known)
    assert [secret for secret in secrets if secret and secret in history] == []
    layers = int(known["Size"]) // MEBIBYTE
    print(f"image: {layers} MiB with its base")


def test_production_does_not_start_on_defaults(stack: Stack) -> None:
    with pytest.raises(AssertionError) as refused:
        stack.docker(
            "run",
            "--rm",
            "--env",
            "ENVIRONMENT=production",
            "--env",
            "DATABASE_URL=postgresql://u:app@h/d",
            stack.variables["IMAGE"],
        )
    for name in ("DATABASE_URL", "JWT_SECRET_KEY"):
        assert name in str(refused.value)


def test_flower_wants_a_login(stack: Stack) -> None:
    flower = stack.address("flower", 5555)
    assert httpx.get(f"{flower}/workers").status_code == 401
    written = (stack.project / "secret" / ".env.flower").read_text(encoding="utf-8")
    user, _, password = written.partition("FLOWER_BASIC_AUTH=")[2].strip().partition(":")
    assert httpx.get(f"{flower}/workers", auth=(user, password)).status_code == 200


def test_redis_is_a_queue_s(stack: Stack) -> None:
    asked = ("appendonly", "appendfsync", "maxmemory-policy", "maxmemory")
    said = stack.inside("redis", "sh", "-c", f'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli config get {" ".join(asked)}')
    lines = said.split()
    assert dict(zip(lines[::2], lines[1::2], strict=True)) == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "maxmemory": str(512 * MEBIBYTE),
    }
    assert "NOAUTH" in stack.inside("redis", "redis-cli", "ping")


def test_workers_are_scaled(stack: Stack) -> None:
    stack.compose("up", "--detach", "--wait", "--scale", "celery_worker=4")
    assert states(stack)["celery_worker"] == ["healthy"] * 4
    processed(stack)
    stack.compose("up", "--detach", "--wait", "--scale", "celery_worker=1")


def test_operators_commands_run_in_containers(stack: Stack) -> None:
    processed(stack)
    assert "default" in stack.inside("api", "my-app", "queues", "list")
    stack.compose("stop", "api")
    assert "default" in stack.compose("run", "--rm", "--no-deps", "api", "my-app", "queues", "list")
    stack.compose("start", "api")
    client = 'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli'
    assert "role:master" in stack.inside("redis", "sh", "-c", f"{client} info replication")
    assert "strings with" in stack.inside("redis", "sh", "-c", f"{client} -n 2 --memkeys")
    try:
        stack.inside("redis", "sh", "-c", f"{client} config set maxmemory 700mb")
        assert str(700 * MEBIBYTE) in stack.inside("redis", "sh", "-c", f"{client} config get maxmemory")
    finally:
        stack.inside("redis", "sh", "-c", f"{client} config set maxmemory 512mb")


def test_a_release_with_a_revision_is_rolled_back_as_the_docs_say(stack: Stack) -> None:
    git(stack.project, "init", "--quiet", "--initial-branch=main")
    git(stack.project, "add", "--all")
    git(stack.project, "commit", "--quiet", "--message", "Previous")
    revision = stack.project / "migrations" / "app" / "newest.py"
    revision.parent.mkdir()
    revision.write_text(REVISION, encoding="utf-8")
    git(stack.project, "add", "--all")
    git(stack.project, "commit", "--quiet", "--message", "Newest")
    stack.compose("build", limit=BUILD_LIMIT)
    stack.compose("up", "--detach", "--wait")
    page = (stack.project / "docs" / "deployment.md").read_text(encoding="utf-8").partition("### Roll back")[2]
    checkout, *commands = [command.text for command in commands_of(read_blocks("deployment.md", page)[0])]
    assert checkout == "git checkout PREVIOUS"
    git(stack.project, "checkout", "--quiet", "HEAD~1")
    try:
        for command in commands:
            stack.compose(*command.removeprefix("docker compose ").split(), limit=BUILD_LIMIT)
        assert "app" not in stack.inside("api", "ls", "migrations")
        processed(stack)
        # What `up` would have done without `--no-deps`.
        with pytest.raises(AssertionError, match="Can't locate revision"):
            stack.compose("run", "--rm", "migrate")
    finally:
        delete = "DELETE FROM alembic_version WHERE version_num = 'newest'"
        stack.inside("postgres", "psql", "--username=app", "--dbname=my_app", "--command", delete)
    # Replaces the container of `migrate` too, which still has the revision.
    stack.compose("up", "--detach", "--wait")


def test_the_worker_makes_a_backup(stack: Stack) -> None:
    stack.inside("celery_worker", "python", "-m", "app.features.backup", "create")
    assert "my_app" in stack.inside("celery_worker_long", "python", "-m", "app.features.backup", "list")


def test_a_worker_that_is_starting_stops_when_it_is_told_to(stack: Stack) -> None:
    stack.compose("stop", "celery_worker")
    stack.compose("start", "celery_worker")
    started = time.monotonic()
    stack.compose("stop", "celery_worker")
    # Far less than its grace period, at the end of which it is killed.
    assert time.monotonic() - started < 30
    stack.compose("up", "--detach", "--wait")


def test_data_outlives_the_containers(stack: Stack) -> None:
    task = processed(stack)
    stack.compose("restart")
    stack.compose("down")
    assert stack.containers() == []
    stack.compose("up", "--detach", "--wait")
    assert state(stack, task) == "SUCCESS"
    assert "my_app" in stack.inside("celery_worker", "python", "-m", "app.features.backup", "list")
    processed(stack)


def test_secrets_may_be_files_of_compose(stack: Stack) -> None:
    settings = stack.project / "secret" / ".env.production"
    before = settings.read_text(encoding="utf-8")
    line = re.search(r"^DATABASE_URL=(.+)\n", before, re.MULTILINE)
    assert line
    settings.write_text(before.replace(line[0], ""), encoding="utf-8")
    (stack.project / "secret" / "database_url").write_text(f"{line[1]}\n", encoding="utf-8")
    override = stack.project / "docker-compose.override.yml"
    override.write_text(
        "services:\n"
        "  api:\n"
        "    environment: {DATABASE_URL_FILE: /run/secrets/database_url}\n"
        "    secrets: [database_url]\n"
        "secrets:\n"
        "  database_url: {file: secret/database_url}\n",
        encoding="utf-8",
    )
    try:
        stack.compose("up", "--detach", "--wait", "--no-deps", "api")
        assert "DATABASE_URL=" not in stack.inside("api", "env")
        assert httpx.get(f"{stack.address('api', 8000)}/ready").json()["checks"]["database"] == "ok"
    finally:
        override.unlink()
        settings.write_text(before, encoding="utf-8")
    stack.compose("up", "--detach", "--wait")


def test_the_owner_s_lock_is_used(stack: Stack) -> None:
    run(["uv", "lock"], stack.project, timeout=300)
    lock = stack.project / "uv.lock"
    # In no range of pyproject.toml's: the versions that the image has must be the lock's.
    wanted = re.search(r'name = "fastapi"\nversion = "([^"]+)"', lock.read_text(encoding="utf-8"))
    assert wanted
    image = f"{stack.variables['IMAGE']}:locked"
    try:
        stack.docker("build", "--quiet", "--tag", image, str(stack.project), limit=BUILD_LIMIT)
        code = "import importlib.metadata; print(importlib.metadata.version('fastapi'))"
        assert stack.docker("run", "--rm", image, "python", "-c", code).strip() == wanted[1]
        lock.write_text(lock.read_text(encoding="utf-8").replace('name = "fastapi"', 'name = "fastapi-x"'))
        with pytest.raises(AssertionError, match="lock"):
            stack.docker("build", "--quiet", str(stack.project), limit=BUILD_LIMIT)
    finally:
        lock.unlink()
        stack.docker("image", "rm", "--force", image)


@pytest.mark.parametrize(
    ("name", "answers", "image"),
    [
        ("mariadb", {"profile": "production", "database": "mysql"}, "mariadb:11"),
        ("sqlite", {"profile": "minimal", "use_docker": True}, None),
        ("plain", {"database": "sqlite", "use_celery": False, "use_redis": False, "auth": "basic"}, None),
    ],
)
def test_other_projects_start(
    engine: dict[str, str], render: Renderer, tmp_path: Path, name: str, answers: dict[str, Any], image: str | None
) -> None:
    if image:
        require_image(engine, image)
    with up(render, tmp_path, name, answers, engine) as stack:
        assert {state for found in states(stack).values() for state in found} == {"healthy", "exited 0"}
        if answers.get("use_celery", True):
            processed(stack)
        becomes_ready(stack)
        if answers.get("profile") == "production":
            stack.inside("celery_worker", "python", "-m", "app.features.backup", "create")


def test_development_reloads_and_catches_mails(engine: dict[str, str], render: Renderer, tmp_path: Path) -> None:
    project = render.fresh({"profile": "production"}, tmp_path / "development")
    stack = Stack(project, {**variables_for(engine, "forge-development")})
    try:
        stack.compose(*DEVELOPMENT, "build", limit=BUILD_LIMIT)
        stack.compose(*DEVELOPMENT, "up", "--detach", "--wait")
        api = stack.address("api", 8000)
        registered = {"email": "ada@example.com", "password": "correct horse battery"}
        assert httpx.post(f"{api}/register", json=registered, timeout=30).is_success
        # Ends when the line comes, or fails at the limit.
        logs = stack.compose(
            *DEVELOPMENT,
            "exec",
            "-T",
            "mail",
            "sh",
            "-c",
            "until grep -ql ada@example.com .dev/mails/*.eml 2>/dev/null; do sleep 0.1; done; cat .dev/mails/*.eml",
        )
        assert "ada@example.com" in logs
        module = project / "app" / "api" / "health.py"
        module.write_text(module.read_text(encoding="utf-8").replace('{"status": "ok"}', '{"status": "edited"}'))
        stack.compose(
            *DEVELOPMENT,
            "exec",
            "-T",
            "api",
            "sh",
            "-c",
            "until python -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8000/health\").read())'"
            " | grep -q edited; do sleep 0.1; done",
        )
    finally:
        stack.compose(*DEVELOPMENT, "down", "--volumes", "--timeout", "20")
