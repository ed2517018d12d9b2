"""Every block of code and every command on every page runs, is parsed, or is listed here with the test that proves it."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import httpx2 as httpx
import pytest
import yaml

import docs
from forge_template import git, project_environment
from tests.conftest import Renderer
from tests.generated.blocks import (
    Block,
    Command,
    Listed,
    commands_of,
    inline_commands,
    is_script,
    problem_of,
    read_blocks,
    read_pages,
    requests_of,
)
from tests.generated.life import find_python, free_port, install, stop, wait_until
from tests.generated.page import follow_features_page
from tests.generated.python_pages import (
    defines_task,
    is_task,
    run_pages,
    running_servers,
    syntax_problem,
    write_files,
    write_lines,
)

COMMAND_LIMIT = 120.0

FORGE = "[!p]*"
LIFE = "tests/generated/test_life.py::test_a_projects_whole_life"
COMPOSE = "tests/generated/test_compose.py::test_every_service_is_healthy_and_the_migration_ended"
UPDATE = "tests/update/test_make_update.py::test_updates_and_tests"
MAKE = "tests/test_docs.py::test_every_make_command_exists"
DEVTOOLS = "project/tests/core/test_devtools.py"
KUBERNETES = "tests/copy/test_kubernetes.py::test_kustomize_builds_what_can_be_applied"

# What does not run here, why, and what proves it instead: a command in full, or the beginning of a block. A page that needs a new line
# here needs a test as well.
LISTED = (
    Listed(".*", "a test follows the page", LIFE, "project/docs/features.md"),
    Listed(
        ".*",
        "a test follows the page",
        "tests/copy/test_add_a_feature.py::test_a_feature_touches_at_most_nine_places",
        "docs/add-a-feature.md",
    ),
    Listed(
        ".*",
        "is a row with a separate test",
        "tests/test_specification.py::test_each_row_names_tests_that_run_in_ci",
        "docs/specification.md",
    ),
    Listed(
        ".*",
        "installs other generators",
        "tests/test_benchmarks.py::test_the_comparison_is_about_the_measured_versions",
        "docs/comparison.md",
    ),
    Listed(
        r"render_invoice\.delay\(.7.\)",
        "shows what mypy refuses",
        "project/tests/worker/test_typing.py::test_mypy_rejects_each_wrong_call_and_no_right_one",
        "project/docs/write-a-task.md",
    ),
    Listed(
        r'"""What the shop adds to the API',
        "shows a module of the reader's",
        LIFE,
        "docs/moving-from-another-template.md",
    ),
    # Forge's own commands.
    Listed(
        r"make (setup|check|test|matrix)( ARGS=.*)?",
        "runs this test",
        "tests/test_specification.py::test_each_row_names_tests_that_run_in_ci",
        FORGE,
    ),
    Listed(
        r"make (demo|docs|pictures|pins|beyond|release|chaos|fuzz|bench)( .*)?",
        "takes minutes, or changes the repository",
        MAKE,
        FORGE,
    ),
    Listed(
        r"uvx --with .* copy --trust .*",
        "asks at a terminal",
        "tests/copy/test_questions.py::test_enter_answers_at_most_nine_questions",
        FORGE,
    ),
    Listed(
        r"cd myapp && (git init .* && )?make dev",
        "is the server that the commands need",
        f"{DEVTOOLS}::test_make_dev_starts_everything_and_leaves_no_process",
        FORGE,
    ),
    # A project's.
    Listed(
        r"make dev|uv run python -m devtools.dev",
        "is the server that the commands need",
        f"{DEVTOOLS}::test_make_dev_starts_everything_and_leaves_no_process",
    ),
    Listed(
        r"make (test|test-all|check|check test)|uv run pytest.*|uv run python -m devtools.check|make test ARGS=.*",
        "takes minutes",
        LIFE,
    ),
    Listed(
        r"make update.*|uv run --no-project python -m devtools.update|uvx --with .* update --trust",
        "needs a release",
        UPDATE,
    ),
    Listed(r"copier (copy|update|recopy).*", "is what `make update` runs", UPDATE),
    Listed(
        r"make (migrate|revision.*)|uv run python -m devtools.revision.*",
        "writes a revision",
        "project/tests/core/test_migrations.py::test_own_revisions_upgrade_and_downgrade_next_to_the_templates",
    ),
    Listed(
        r"make secrets.*|uv run python -m devtools.secrets",
        "changes secrets",
        f"{DEVTOOLS}::test_a_secret_is_rotated_in_every_file",
    ),
    Listed(
        r"git (pull|add|mergetool|diff HEAD|reset --hard && git clean -fd)",
        "is a step of an update",
        "tests/update/test_recovery.py::test_killed_undone_and_run_again",
    ),
    Listed(
        r"uvx --with .* check-update.*",
        "needs a release",
        "tests/update/test_options.py::test_check_update_and_pretend_change_nothing",
    ),
    Listed(r"(UV_OFFLINE=1 )?make update.*", "needs a release", UPDATE),
    Listed(
        r"git (status|switch|rm|mv|add|commit|diff|checkout|revert)\b.*|uv (sync|lock)",
        "changes the reader's repository",
        "tests/update/test_make_update.py::test_the_lock_follows_what_is_merged",
        FORGE,
    ),
    Listed(
        r"uv run alembic stamp --purge app@head",
        "changes which revisions a database has",
        "project/tests/core/test_migrations.py::test_own_revisions_upgrade_and_downgrade_next_to_the_templates",
    ),
    Listed(
        r"source .venv/bin/activate|my-app --install-completion",
        "changes the reader's shell",
        "project/tests/cli/test_cli.py::test_a_shell_completes_commands",
    ),
    # Docker: tests/generated/test_compose.py runs where an engine is; the names of the services are checked here too.
    Listed(r"docker compose (up|build|ps|logs|down|stop|-f) ?.*", "needs a Docker engine", COMPOSE),
    Listed(r"docker compose run --rm migrate", "needs a Docker engine", COMPOSE),
    Listed(
        r"git checkout (PREVIOUS|main)",
        "changes the reader's repository",
        "tests/generated/test_compose.py::test_a_release_with_a_revision_is_rolled_back_as_the_docs_say",
        "project/docs/deployment.md",
    ),
    Listed(
        r"docker compose (exec api|run --rm --no-deps api) my-app .*|docker compose exec redis sh -c .*",
        "needs a Docker engine",
        "tests/generated/test_compose.py::test_operators_commands_run_in_containers",
    ),
    Listed(
        r"docker compose exec (api|celery_worker) .*|docker compose run --rm celery_worker .*",
        "needs a Docker engine",
        "tests/generated/test_compose.py::test_the_worker_makes_a_backup",
    ),
    Listed(
        r"docker compose exec postgres psql .*",
        "asks for a password",
        "tests/generated/test_compose.py::test_data_outlives_the_containers",
    ),
    Listed(
        r"DATABASE_URL=… .* restore NAME",
        "replaces a database",
        "project/tests/backup/test_backup.py::test_the_command_creates_lists_and_restores",
    ),
    Listed(
        r"python -I app/probe.py .*",
        "is a health check of a container",
        "project/tests/core/test_probe.py::test_only_a_fresh_heartbeat_is_healthy",
    ),
    Listed(
        r"docker build .*",
        "needs a Docker engine",
        "tests/generated/test_compose.py::test_the_image_holds_what_runs_and_nothing_else",
    ),
    # Kubernetes, systemd and other machines.
    Listed(
        r"cd /srv/my-app|git clone .*|(systemctl|systemd-run|journalctl) .*|curl --fail .* http://127.0.0.1:8000/ready"
        r"|uv run --no-project python -m devtools.secrets && install .*",
        "needs systemd",
        "tests/copy/test_systemd.py::test_systemd_accepts_every_unit",
        "project/docs/*",
    ),
    Listed(
        r"redis-cli .*", "needs the server's own client", "tests/generated/test_compose.py::test_redis_is_a_queue_s"
    ),
    Listed(r"kubectl .*", "needs a cluster", KUBERNETES),
    Listed(
        r"ssh .*",
        "needs another machine",
        "project/tests/core/test_compose.py::test_ports_are_published_only_on_this_host",
    ),
)
# Commands of the pages that may fail.
MAY_FAIL = (
    # Development is not safe for production.
    r"make audit.*|(ENVIRONMENT=production )?uv run python -m app.audit.*|uv run my-app audit .*",
)
# What has the same answer each time, and takes seconds.
REPEATED = r"make audit|.*app.audit|uv run alembic .*|.* (list|workers|--help|operators)( .*)?"
# What runs until somebody stops it: the test does, after some seconds.
STARTS = r"uv run python -m app.worker (worker|beat) .*|make (worker|beat|flower)"
START_LIMIT = 20
# Names in capitals that no answer gives.
GIVEN = {
    r"queues (pause|resume) NAME": ("NAME", "default"),
    r"(tasks|dead) .*NAME": ("NAME", "page.fail"),
    r"schedule run ENTRY": ("ENTRY", "schedule-heartbeat"),
}
# Inline code that names a program and is no command that anybody types as it stands.
NAMES = (
    r"uv (run|sync)|uv run my-app|celery|copier (copy|update|recopy|check-update)( …)?|docker inspect|git (archive|add|merge|merge-tree|diff-tree -M).*",
    r"git (read-tree --reset -u|diff --no-index .*|init -b main .*)|python migrations STAGE …|python -m app.worker|make (worker|beat)",
    r"celery (control .*|control|multi|inspect|-A app.core.celery:celery_app)|alembic (upgrade heads|downgrade)|docker compose up --scale celery_worker=4",
    r"python -m app\.(audit|features\.backup)|python -I app/probe\.py|alembic downgrade",
)


@pytest.fixture(scope="module")
def rendered(render: Renderer) -> Path:
    """A project with everything, which nothing changes."""
    return render(docs.everything_on())


@pytest.fixture(scope="module")
def pages(rendered: Path) -> dict[str, str]:
    return read_pages(rendered)


@pytest.fixture(scope="module")
def blocks(pages: dict[str, str]) -> list[Block]:
    found = [block for page, text in pages.items() for block in read_blocks(page, text)]
    assert len(found) > 100
    return found


def listed(thing: Block | Command) -> Listed | None:
    """Return the first entry for a block or a command."""
    return next((entry for entry in LISTED if entry.covers(thing)), None)


def is_name(command: Command) -> bool:
    """Return whether inline code only names a program."""
    return command.is_inline and any(re.fullmatch(pattern, command.text) for pattern in NAMES)


def all_commands(pages: dict[str, str], blocks: list[Block]) -> list[Command]:
    """Return the commands of blocks and of the text, in a reader's order."""
    found = [command for block in blocks for command in commands_of(block)]
    found += [command for page, text in pages.items() for command in inline_commands(page, text)]
    order = {page: number for number, page in enumerate(pages)}
    return sorted(found, key=lambda command: (order[command.page], command.is_inline, command.line))


def test_every_block_has_a_language_that_is_tested(blocks: list[Block]) -> None:
    assert [problem for block in blocks if listed(block) is None and (problem := problem_of(block))] == []
    assert [problem for block in blocks if block.language == "python" and (problem := syntax_problem(block))] == []


def test_every_listed_command_is_on_a_page_and_its_proof_exists(
    rendered: Path, pages: dict[str, str], blocks: list[Block]
) -> None:
    things: list[Block | Command] = [*blocks, *all_commands(pages, blocks)]
    stale = [entry for entry in LISTED if not any(listed(thing) is entry for thing in things)]
    assert stale == [], "no page has these any more: remove the entries"
    assert [problem for entry in LISTED if (problem := entry.problem(rendered))] == []


def test_every_block_of_data_is_valid(rendered: Path, blocks: list[Block]) -> None:
    services = set(yaml.safe_load((rendered / "docker-compose.yml").read_text(encoding="utf-8"))["services"])
    settings = (rendered / "docs" / "configuration.md").read_text(encoding="utf-8")
    for block in blocks:
        if block.language == "yaml":
            for document in yaml.safe_load_all(block.text):
                assert isinstance(document, dict | list), block
                if isinstance(document, dict) and "services" in document:
                    assert set(document["services"]) <= services, f"{block}: docker-compose.yml has no such service"
        elif is_script(block):
            subprocess.run(["sh", "-n"], input=block.text, text=True, check=True)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "ini":
            for name in ini_names(block):
                if name.isupper():
                    assert f"`{name}`" in settings, f"{block}: docs/configuration.md has no {name}"
        elif block.language == "http":
            for _, _, body in requests_of(block):
                assert json.loads(body or "{}") is not None, block


def ini_names(block: Block) -> list[str]:
    """Return the names of an ini block: settings in the form of an environment file, or a file with sections."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(block.text if block.text.lstrip().startswith("[") else f"[settings]\n{block.text}")
    return list(parser["settings"]) if parser.has_section("settings") else []


def test_every_compose_command_names_services_that_exist(
    rendered: Path, pages: dict[str, str], blocks: list[Block]
) -> None:
    """tests/generated/test_compose.py runs such commands on an engine."""
    services = set(yaml.safe_load((rendered / "docker-compose.yml").read_text(encoding="utf-8"))["services"])
    verbs = {"up", "run", "exec", "stop", "logs", "build", "ps", "down"}
    for command in all_commands(pages, blocks):
        words = shlex.split(command.text) if command.text.startswith("docker compose ") else []
        verb = next((word for word in words[2:] if word in verbs), None)
        if verb is None:
            continue
        # An option with a value.
        words = shlex.split(re.sub(r" --(since|until|tail|scale|user) \S+", "", command.text))
        named = [word for word in words[words.index(verb) + 1 :] if not word.startswith("-") and "=" not in word]
        assert set(named[:1] if verb in {"run", "exec"} else named) <= services, command


# --- everything that runs ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(render: Renderer) -> Iterator[Path]:
    """A project with everything, and with the feature of docs/features.md."""
    # Not below pytest's folder: each run of pytest as root takes it from the user that PostgreSQL runs as.
    top = Path(tempfile.mkdtemp(prefix="forge-"))
    try:
        folder = render.fresh(docs.everything_on(), top / "project")
        python = find_python("3.11") or "3.11"
        install(folder, python)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--no-verify", "--allow-empty", "--message", "Lock")
        follow_features_page(folder, python)
        yield folder
    finally:
        shutil.rmtree(top, ignore_errors=True)


@pytest.mark.matrix
@pytest.mark.xdist_group("pages")
@pytest.mark.timeout(900)
def test_the_python_of_every_page_runs(
    project: Path, blocks: list[Block], scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_page: dict[str, list[Block]] = {}
    for block in blocks:
        if block.language in {"python", "sql"} and listed(block) is None:
            by_page.setdefault(block.page, []).append(block)
    separate = [page for page, found in by_page.items() if any(defines_task(one.text) for one in found)]
    groups = [[page] for page in separate] + [[page for page in by_page if page not in separate]]
    failures = []
    with running_servers(project, scratch) as servers:
        for group in groups:
            started = time.monotonic()
            output = run_pages(project, {page: by_page[page] for page in group}, servers)
            with capsys.disabled():
                count = sum(len(by_page[page]) for page in group)
                print(f"\n{', '.join(group)}: {count} blocks, {time.monotonic() - started:.0f} s", end="")
            if output:
                failures.append(output[-6000:])
    assert failures == [], "\n\n".join(failures)


# A task whose messages become dead letters.
FAILS = """
from app.core.celery import celery_app


@celery_app.task(name="page.fail", dead_letter=True)
def fail() -> None:
    raise ValueError("no order")
"""


class Dev:
    """A running `make dev`, and a terminal next to it."""

    def __init__(self, project: Path, log: Path) -> None:
        self.project = project
        self.log = log
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

    def wait(self) -> None:
        """Wait until all processes run."""
        wait_until(
            "make dev", lambda: "everything runs" in self.log.read_text(encoding="utf-8"), self.process, COMMAND_LIMIT
        )

    def run(self, command: str) -> str:
        """Run a command of a page as its reader does, with what earlier answers said in place of the names in capitals."""
        command = self.completed(command)
        command = re.sub(r"http://(127\.0\.0\.1|localhost):8000", f"http://127.0.0.1:{self.port}", command)
        if re.fullmatch(STARTS, command):
            # 124: timeout has stopped it.
            command = f"timeout --signal=INT --kill-after=30 {START_LIMIT} {command}; [ $? = 124 ]"
        command = command.replace("curl ", "curl --silent --show-error --fail-with-body ")
        assigned = re.fullmatch(r"([A-Z_]+)=(\S*)", command)
        if assigned:
            self.known[f"${assigned[1]}"] = assigned[2]
            return ""
        end = time.monotonic() + COMMAND_LIMIT
        while True:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.project,
                env=project_environment({name[1:]: value for name, value in self.known.items() if name[0] == "$"}),
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
        self.learn(done.stdout)
        return done.stdout

    def send(self, line: str, headers: dict[str, str], body: str) -> None:
        """Send a request of an `http` block as the user who has logged in last."""
        method, _, path = self.completed(line).partition(" ")
        answer = httpx.request(
            method,
            f"http://127.0.0.1:{self.port}{path}",
            headers={
                "Authorization": f"Bearer {self.known['ACCESS_TOKEN']}",
                "Content-Type": "application/json",
                **headers,
            },
            content=self.completed(body),
            timeout=30,
        )
        assert answer.is_success, f"{line}\n{body}\n{answer.status_code}: {answer.text}"
        self.learn(answer.text)

    def completed(self, text: str) -> str:
        """Return a text with the values of the names in capitals that earlier answers gave."""
        if re.search(r"\bCODE\b", text):
            self.known["CODE"] = self._code()
        if re.search(r"\bdead \w+ ID\b", text):
            self.known["ID"] = self._dead_letter()
        if "tasks cancel TASK_ID" in text:
            self.known["TASK_ID"] = self._sent("--countdown", "600", state="PENDING")
        if "tasks retry TASK_ID" in text:
            self.known["TASK_ID"] = self._sent(state="FAILURE")
        for pattern, (name, value) in GIVEN.items():
            if re.search(pattern, text):
                text = re.sub(rf"\b{name}\b", value, text)
        for name, value in self.known.items():
            if name[0] != "$":
                text = re.sub(rf"(?<![$])\b{name}\b", value, text)
        return text

    def learn(self, answer: str) -> None:
        """Keep what the next commands of a page need from an answer."""
        for name, pattern in (("TASK_ID", r'"task_id":\s*"([^"]+)"'), ("ACCESS_TOKEN", r'"access_token":\s*"([^"]+)"')):
            found = re.search(pattern, answer)
            if found:
                self.known[name] = found[1]

    def _cli(self, *arguments: str) -> str:
        """Return what the project's command line prints."""
        done = ["uv", "run", "my-app", *arguments]
        return subprocess.run(
            done, cwd=self.project, env=project_environment(), stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    def _sent(self, *options: str, state: str) -> str:
        """Return the id of a task that fails, once it has a state."""
        sent = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", self._cli("tasks", "send", "page.fail", *options))
        assert sent
        wait_until(
            f"a task that is {state}", lambda: state in self._cli("tasks", "show", sent[0]), self.process, COMMAND_LIMIT
        )
        return sent[0]

    def _dead_letter(self) -> str:
        """Return the id of a dead letter."""
        self._sent(state="FAILURE")
        found: list[str] = []

        def is_dead() -> bool:
            found.extend(re.findall(r'"letter_id":\s*"([^"]+)"', self._cli("dead", "list", "--json")))
            return bool(found)

        wait_until("a dead letter", is_dead, self.process, COMMAND_LIMIT)
        return found[0]

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
def dev(project: Path, blocks: list[Block], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """`make dev`, with the files that the pages upload and the tasks whose names their requests have."""
    (project / "orders.csv").write_text("id,email,amount\n1,ada@example.com,9.50\n2,short\n", encoding="utf-8")
    with_requests = {block.page for block in blocks if block.language == "http"}
    tasks = [block for block in blocks if block.page in with_requests and block.language == "python" and is_task(block)]
    requested = project / "app" / "tasks" / "page_requests.py"
    write_lines(requested, "", tasks)
    with requested.open("a", encoding="utf-8") as file:
        file.write(FAILS)
    in_files = [block for block in blocks if listed(block) is None and block.language == "python"]
    written = [requested, *write_files(project, [block for block in in_files if (block.file or "").startswith("app/")])]
    picture = "from PIL import Image; Image.new('RGB', (600, 400), 'red').save('photo.jpg')"
    subprocess.run(["uv", "run", "python", "-c", picture], cwd=project, env=project_environment(), check=True)
    running = Dev(project, tmp_path_factory.mktemp("dev") / "log")
    try:
        running.wait()
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGINT)
        try:
            stop(running.process, 60)
        finally:
            for path in written:
                path.unlink(missing_ok=True)


@pytest.mark.matrix
@pytest.mark.xdist_group("pages")
@pytest.mark.timeout(900)
def test_every_command_of_the_pages_runs_next_to_make_dev(
    project: Path, dev: Dev, pages: dict[str, str], blocks: list[Block], capsys: pytest.CaptureFixture[str]
) -> None:
    requests = [block for block in blocks if block.language == "http" and listed(block) is None]
    order = {page: number for number, page in enumerate(pages)}
    steps: list[Block | Command] = [*requests, *all_commands(pages, blocks)]
    steps.sort(key=lambda one: (order[one.page], isinstance(one, Command) and one.is_inline, one.line))
    problems = []
    ran = set()
    for step in steps:
        # Many pages name the same command.
        if isinstance(step, Command) and step.text in ran and re.fullmatch(REPEATED, step.text):
            continue
        ran.add(step.text)
        try:
            if isinstance(step, Block):
                for request in requests_of(step):
                    dev.send(*request)
            elif listed(step) is None and not is_name(step):
                started = time.monotonic()
                dev.run(step.text)
                if time.monotonic() - started > 5:
                    with capsys.disabled():
                        print(f"\n{step}: {time.monotonic() - started:.0f} s", end="")
        except (AssertionError, subprocess.TimeoutExpired) as error:
            problems.append(
                f"{step}\n{error}\nMake it run in a project's folder, or list it in {__name__} with its proof."
            )
    # The reason of a 500 is in the log only.
    log = dev.log.read_text(encoding="utf-8", errors="replace")
    errors = [line for line in log.splitlines() if re.search(r"Traceback|Error|critical", line)]
    assert problems == [], "\n\n".join([*problems, *errors[-30:]])
    assert httpx.get(f"http://127.0.0.1:{dev.port}/health").json() == {"status": "ok"}


@pytest.mark.matrix
@pytest.mark.xdist_group("pages")
def test_flower_stops_tasks_for_who_has_its_login(project: Path, dev: Dev) -> None:
    password = (project / ".dev" / "flower").read_text(encoding="utf-8")
    url = f"http://127.0.0.1:{dev.flower}/api/task/revoke/0b5a1f0e-0000-4000-8000-000000000000?terminate=true"
    assert httpx.post(url).status_code == 401
    assert httpx.post(url, auth=("dev", password)).status_code == 200
