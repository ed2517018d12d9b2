"""The commands of tasks and workers: what the API shows an operator, and the exit codes."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import states
from celery.app.task import Context

from app.core.celery import celery_app
from app.tasks.process_task import process_task
from app.tasks.workflows import process_data_task
from app.worker import dead_letters, history, liveness
from app.worker.broker import broker_client
from app.worker.status import read_status
from tests import ROOT
from tests.cli.fixtures import Outcome, RunCli
from tests.cli.test_cli import SCRIPT
from tests.worker.fixtures import Queued
from tests.worker.test_dead_letters import ENDED, received

pytestmark = pytest.mark.usefixtures("queued")


def _queue(owner: str | None = None, **options: Any) -> str:
    if owner:
        options["headers"] = {"owner": owner}
    return str(process_task.apply_async(({"a": 1},), **options).id)


def _end(task_id: str, state: str = states.SUCCESS, result: Any = None, task: str = process_task.name) -> None:
    request = Context(
        id=task_id,
        task=task,
        args=[{}],
        kwargs={},
        hostname="celery@here",
        headers={},
        delivery_info={"routing_key": "high"},
    )
    celery_app.backend.store_result(task_id, result, state, request=request)


def _state(task_id: str) -> str | None:
    record = history.read(task_id)
    return record.state if record else None


def _json(outcome: Outcome) -> Any:
    assert outcome.err == ""
    return json.loads(outcome.out)


def test_the_list_is_that_of_the_api_with_its_filters(run_cli: RunCli) -> None:
    first, second = _queue("user-1"), _queue(queue="long")
    tasks = _json(run_cli("tasks", "list", "--json"))["tasks"]
    assert [task["task_id"] for task in tasks] == [second, first]
    assert tasks[1]["owner"] == "user-1"
    assert datetime.now(UTC) - datetime.fromisoformat(tasks[0]["queued_at"]) < timedelta(minutes=1)
    for arguments, found in (
        (["--queue", "long"], [second]),
        (["--owner", "user-1", "--state", "pending"], [first]),
        (["--name", process_task.name, "--since", "1h"], [second, first]),
        (["--until", "1h"], []),
    ):
        shown = _json(run_cli("tasks", "list", "--json", *arguments))["tasks"]
        assert [task["task_id"] for task in shown] == found
    _end(first, states.FAILURE, ValueError("x"))
    outcome = run_cli("tasks", "list", "--state", "FAILURE")
    assert outcome.out.splitlines()[0].split() == ["queued", "state", "task", "queue", "owner", "id"]
    assert [line.split()[-1] for line in outcome.out.splitlines()[1:]] == [first]


def test_the_cursor_continues_a_list(run_cli: RunCli) -> None:
    first, second = _queue(), _queue()
    page = _json(run_cli("tasks", "list", "--limit", "1", "--json"))
    assert [task["task_id"] for task in page["tasks"]] == [second]
    assert f"More: --cursor {page['next_cursor']}" in run_cli("tasks", "list", "--limit", "1").out
    rest = _json(run_cli("tasks", "list", "--json", "--cursor", page["next_cursor"]))
    assert [task["task_id"] for task in rest["tasks"]] == [first]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    "arguments",
    [["--state", "DONE"], ["--cursor", "x"], ["--since", "soon"], ["--limit", "0"], ["--limit", "101"], ["more"]],
)
def test_an_invalid_filter_exits_with_2(run_cli: RunCli, arguments: list[str]) -> None:
    assert run_cli("tasks", "list", *arguments).code == 2


def test_show_has_what_the_api_shows(run_cli: RunCli) -> None:
    task_id = _queue("user-1")
    child = process_task.apply_async(({},), parent_id=task_id, root_id=task_id).id
    _end(task_id, states.FAILURE, LookupError("no such order"))
    shown = _json(run_cli("tasks", "show", task_id, "--json"))
    assert (shown["state"], shown["owner"], shown["error"]["message"]) == ("FAILURE", "user-1", "no such order")
    assert [one["task_id"] for one in shown["children"]] == [child]
    assert [one["attempt"] for one in shown["attempts"]] == [1]
    text = run_cli("tasks", "show", task_id).out
    for part in ("FAILURE", "user-1", "LookupError: no such order", "celery@here", child):
        assert part in text


@pytest.mark.parametrize("command", [["show"], ["cancel"], ["watch"]])
def test_an_unknown_task_exits_with_3(run_cli: RunCli, command: list[str]) -> None:
    assert run_cli("tasks", *command, "none").code == 3


def test_cancel_revokes_what_waits(run_cli: RunCli) -> None:
    first, second = _queue(), _queue(countdown=600)
    outcome = run_cli("tasks", "cancel", first, second, "--json")
    assert outcome.code == 0
    assert _json(outcome) == [
        {"id": one, "outcome": "done", "task_id": one, "state": "REVOKED"} for one in (first, second)
    ]
    for task_id in (first, second):
        status = read_status(task_id)
        assert status is not None
        assert status.status == "REVOKED"


def test_cancel_exits_with_5_if_a_task_has_ended(run_cli: RunCli) -> None:
    ended, waiting = _queue(), _queue()
    _end(ended)
    outcome = run_cli("tasks", "cancel", ended, waiting)
    assert outcome.code == 5
    assert [line.split(maxsplit=1) for line in map(str.rstrip, outcome.out.splitlines()[1:])] == [
        [ended, f"Task {ended} has ended as SUCCESS."],
        [waiting, "cancelled"],
    ]


def test_send_queues_a_task_for_its_owner(run_cli: RunCli, queued: Queued) -> None:
    outcome = run_cli("tasks", "send", process_task.name, "--args", '[{"a": 1}]', "--owner", "user-1")
    (sent,) = queued()
    assert (outcome.code, outcome.out) == (0, f"{sent.task_id}\n")
    assert (sent.name, sent.args, sent.queue) == (process_task.name, [{"a": 1}], "high")
    status = read_status(sent.task_id)
    assert status is not None
    assert status.owner == "user-1"


def test_send_has_the_options_of_a_call(run_cli: RunCli, queued: Queued) -> None:
    command = ["tasks", "send", process_task.name, "--kwargs", '{"data": {}}', "--idempotency-key", "k", "--json"]
    first = _json(run_cli(*command, "--queue", "long", "--countdown", "60"))
    assert _json(run_cli(*command, "--queue", "long", "--countdown", "60")) == first
    (sent,) = queued()
    assert (sent.task_id, sent.kwargs, sent.queue) == (first["task_id"], {"data": {}}, "long")
    record = history.read(sent.task_id)
    assert record is not None
    assert record.eta is not None
    other = run_cli("tasks", "send", process_task.name, "--args", "[{}]", "--idempotency-key", "k")
    assert other.code == 5
    assert "idempotency key" in other.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["unknown"], 3),
        ([process_task.name], 2),
        ([process_task.name, "--args", "{}"], 2),
        ([process_task.name, "--args", "[1"], 2),
        ([process_task.name, "--kwargs", "[]"], 2),
        ([process_task.name, "--kwargs", '{"other": 1}'], 2),
        ([process_task.name, "--args", "[{}, 2]"], 2),
        ([process_task.name, "--args", "[{}]", "--queue", "hihg"], 2),
        ([process_task.name, "--args", "[{}]", "--countdown", "-1"], 2),
    ],
)
def test_send_refuses_what_cannot_run(run_cli: RunCli, queued: Queued, arguments: list[str], code: int) -> None:
    assert run_cli("tasks", "send", *arguments).code == code
    assert queued() == []


def test_watch_prints_each_change_until_the_end(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = _queue()

    async def watched(_: str) -> AsyncIterator[history.TaskRecord | None]:
        yield history.read(task_id)
        _end(task_id, states.STARTED)
        _end(task_id, "PROGRESS", {"done": 1, "total": 2, "message": "resizing"})
        yield history.read(task_id)
        _end(task_id)
        yield history.read(task_id)

    monkeypatch.setattr("app.worker.watch.watch", watched)
    outcome = run_cli("tasks", "watch", task_id)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        f"PENDING {process_task.name}",
        f"STARTED {process_task.name} 1 of 2 resizing",
        f"SUCCESS {process_task.name}",
    ]


def test_watch_ends_if_the_end_cannot_be_known(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    untracked = _queue(ignore_result=True)
    outcome = run_cli("tasks", "watch", untracked)
    assert (outcome.code, "ignores its result" in outcome.err) == (5, True)
    expired = _queue()

    async def watched(_: str) -> AsyncIterator[history.TaskRecord | None]:
        yield history.read(expired)

    monkeypatch.setattr("app.worker.watch.watch", watched)
    outcome = run_cli("tasks", "watch", expired)
    assert (outcome.code, "has expired" in outcome.err) == (3, True)


def test_watch_exits_with_1_if_the_task_fails(run_cli: RunCli) -> None:
    task_id = _queue()
    _end(task_id, states.FAILURE, LookupError("no such order"))
    outcome = run_cli("tasks", "watch", task_id, "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out)["state"] == "FAILURE"
    assert outcome.err == f"Error: task {task_id} ended with FAILURE: LookupError: no such order\n"


@pytest.mark.parametrize(
    ("progress", "amount"),
    [
        ({"value": {"done": 1, "total": 4}}, (1, 4)),
        ({"value": {"done": 9, "total": 4}}, (4, 4)),
        ({"value": {"done": 1, "total": 0}}, (0, None)),
        ({"value": {"done": "1", "total": "4"}}, (0, None)),
        ({"value": [1, 4]}, (0, None)),
        ("text", (0, None)),
        (None, (0, None)),
    ],
)
def test_the_bar_shows_only_amounts(progress: Any, amount: tuple[float, float | None]) -> None:
    from app.cli.commands.platform.tasks import _amount

    assert _amount(progress) == amount


def test_retry_queues_failed_tasks_again(run_cli: RunCli, queued: Queued) -> None:
    failed, waiting = _queue("user-1"), _queue()
    _end(failed, states.FAILURE, LookupError("no such order"))
    outcome = run_cli("tasks", "retry", failed, waiting, "unknown", "--json")
    assert outcome.code == 5
    first, second, third = _json(outcome)
    assert (first["id"], first["outcome"], first["replay_of"]) == (failed, "done", failed)
    assert first["task_id"] in [one.task_id for one in queued()]
    assert (second["outcome"], third["outcome"]) == ("refused", "refused")
    assert waiting in second["reason"]
    assert "never queued" in third["reason"]
    assert f"retried as {first['task_id']}" in run_cli("tasks", "retry", failed).out


@pytest.mark.processes
def test_the_command_knows_the_tasks_of_the_project() -> None:
    failed = str(process_data_task.delay({}).id)
    _end(failed, states.FAILURE, LookupError("no such order"), process_data_task.name)
    command: list[str | Path] = [SCRIPT, "tasks", "retry", failed, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["replay_of"] == failed


@pytest.mark.parametrize("command", ["cancel", "retry"])
def test_an_id_given_twice_is_refused(run_cli: RunCli, command: str) -> None:
    task_id = _queue()
    outcome = run_cli("tasks", command, task_id, task_id)
    assert (outcome.code, outcome.out) == (2, "")
    assert _state(task_id) == "PENDING"


def test_a_filter_cancels_all_that_match_when_asked_to(run_cli: RunCli) -> None:
    task_ids = [_queue(queue="long") for _ in range(103)]
    other = _queue()
    outcome = run_cli("tasks", "cancel", "--queue", "long", "--json")
    assert (outcome.code, "--no-dry-run" in outcome.err) == (0, True)
    selected = json.loads(outcome.out)
    assert [(one["id"], one["outcome"]) for one in selected] == [(one, "selected") for one in reversed(task_ids)]
    assert _state(task_ids[0]) == "PENDING"
    done = _json(run_cli("tasks", "cancel", "--queue", "long", "--no-dry-run", "--json"))
    assert [(one["id"], one["outcome"]) for one in done] == [(one, "done") for one in reversed(task_ids)]
    assert {_state(one) for one in task_ids} == {"REVOKED"}
    assert _state(other) == "PENDING"


def test_a_filter_retries_all_that_match(run_cli: RunCli, queued: Queued) -> None:
    first, second = _queue(), _queue("user-1")
    for task_id in (first, second):
        _end(task_id, states.FAILURE, LookupError("no such order"))
    refused = _queue("user-1")
    celery_app.backend.store_result(refused, LookupError("x"), states.FAILURE)
    before = len(queued())
    assert first in run_cli("tasks", "retry", "--since", "1h").out
    assert len(queued()) == before
    outcome = run_cli("tasks", "retry", "--owner", "user-1", "--state", "failure", "--no-dry-run", "--json")
    assert outcome.code == 5
    outcomes = {one["id"]: one for one in _json(outcome)}
    assert {task_id: one["outcome"] for task_id, one in outcomes.items()} == {second: "done", refused: "refused"}
    assert [one.task_id for one in queued()][before:] == [outcomes[second]["retried_as"]]


@pytest.mark.parametrize(
    "command",
    [
        ["tasks", "cancel"],
        ["tasks", "retry"],
        ["tasks", "cancel", "x", "--queue", "long"],
        ["tasks", "retry", "x", "--no-dry-run"],
        ["tasks", "retry", "--state", "STARTED"],
        ["tasks", "cancel", "--state", "SUCCESS"],
        ["tasks", "cancel", "--since", "soon"],
        ["dead", "replay"],
        ["dead", "delete", "x", "--queue", "long"],
        ["dead", "delete", "--queue", ""],
    ],
)
def test_ids_or_a_filter_must_be_given(run_cli: RunCli, command: list[str]) -> None:
    outcome = run_cli(*command)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err != ""


@pytest.mark.parametrize("command", ["show", "watch", "cancel", "retry"])
def test_what_is_no_id_exits_with_2(run_cli: RunCli, command: str) -> None:
    assert run_cli("tasks", command, "a b").code == 2


def test_workers_are_those_with_a_heartbeat(run_cli: RunCli) -> None:
    assert _json(run_cli("workers", "--json"))["workers"] == []
    with broker_client() as client:
        liveness._register_worker(client, "celery@one")
        client.zadd("workers", {"celery@dead": client.time()[0] - liveness.EXPIRES - 1})
    (worker,) = _json(run_cli("workers", "--json"))["workers"]
    assert worker["name"] == "celery@one"
    assert run_cli("workers").out.splitlines()[1].startswith("celery@one")


def test_a_queue_is_paused_and_resumed(run_cli: RunCli) -> None:
    _queue()
    listed = {one["name"]: one for one in _json(run_cli("queues", "list", "--json"))["queues"]}
    assert (listed["high"]["waiting"], listed["high"]["paused"]) == (1, False)
    outcome = run_cli("queues", "pause", "high")
    assert (outcome.code, outcome.out.splitlines()[1].split()[:2]) == (0, ["high", "1"])
    listed = {one["name"]: one for one in _json(run_cli("queues", "list", "--json"))["queues"]}
    assert [name for name, one in listed.items() if one["paused"]] == ["high"]
    assert _json(run_cli("queues", "resume", "high", "--json"))["paused"] is False
    for command in ("pause", "resume"):
        assert run_cli("queues", command, "hihg").code == 3
    assert "high" in run_cli("queues", "list").out


def _bury() -> str:
    dead_letters.keep(received(str(uuid.uuid4())), ENDED)
    with broker_client() as client:
        return str(dead_letters.letters(client)[0].letter_id)


def test_dead_letters_are_listed_and_shown(run_cli: RunCli) -> None:
    first, second = _bury(), _bury()
    page = _json(run_cli("dead", "list", "--json", "--limit", "1"))
    assert [one["letter_id"] for one in page["letters"]] == [second]
    rest = _json(run_cli("dead", "list", "--json", "--cursor", page["next_cursor"]))
    assert [one["letter_id"] for one in rest["letters"]] == [first]
    assert _json(run_cli("dead", "list", "--error", "KeyError", "--json"))["total"] == 0
    text = run_cli("dead", "list", "--limit", "1").out
    assert second in text
    assert f"More: --cursor {page['next_cursor']}" in text
    assert _json(run_cli("dead", "show", first, "--json"))["letter_id"] == first
    assert "ValueError" in run_cli("dead", "show", first).out
    for command in ("show", "replay", "delete"):
        assert run_cli("dead", command, "0" * 32).code == 3
        assert run_cli("dead", command, "a b").code == 2
    assert run_cli("dead", "list", "--cursor", "x").code == 2


def test_dead_letters_are_replayed_and_deleted(run_cli: RunCli, queued: Queued) -> None:
    first, second = _bury(), _bury()
    (replayed,) = _json(run_cli("dead", "replay", first, "--json"))
    assert (replayed["id"], replayed["outcome"]) == (first, "done")
    assert [one.task_id for one in queued()] == [replayed["task_id"]]
    outcome = run_cli("dead", "delete", first, second)
    assert outcome.code == 3
    assert [line.split()[0] for line in outcome.out.splitlines()[1:]] == [first, second]
    assert outcome.out.splitlines()[2].split()[1] == "deleted"
    assert _json(run_cli("dead", "list", "--json"))["letters"] == []


def test_a_filter_replays_and_deletes_all_that_match(run_cli: RunCli, queued: Queued) -> None:
    letters = [_bury() for _ in range(102)]
    assert run_cli("dead", "replay", "--error", "KeyError", "--no-dry-run").out == ""
    outcome = run_cli("dead", "replay", "--error", "ValueError")
    assert (outcome.code, len(outcome.out.splitlines())) == (0, 101)
    assert "2 more match" in outcome.err
    assert queued() == []
    done = _json(run_cli("dead", "replay", "--error", "ValueError", "--no-dry-run", "--json"))
    assert [one["id"] for one in done] == letters
    assert {one.task_id for one in queued()} == {one["task_id"] for one in done}
    last = _bury()
    assert last in run_cli("dead", "delete", "--task", process_task.name, "--no-dry-run").out
    assert _json(run_cli("dead", "list", "--json"))["total"] == 0


@pytest.mark.processes
def test_an_outage_of_redis_is_one_line_and_exits_with_4() -> None:
    commands = [
        ["tasks", "list"],
        ["tasks", "show", "x"],
        ["tasks", "watch", "x"],
        ["tasks", "cancel", "x"],
        ["tasks", "retry", "x"],
        ["tasks", "send", process_task.name, "--args", "[{}]"],
        ["workers"],
        ["queues", "list"],
        ["queues", "pause", "high"],
        ["dead", "list"],
        ["dead", "replay", "x"],
    ]
    code = (
        "import json, sys; from typer.testing import CliRunner; from app.cli.main import create_cli\n"
        "done = [CliRunner().invoke(create_cli(), command) for command in json.loads(sys.argv[1])]\n"
        "print(json.dumps([[one.exit_code, one.stdout, one.stderr] for one in done]))"
    )
    # Nothing listens there.
    names = ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")
    environment = {**os.environ, **dict.fromkeys(names, "redis://127.0.0.1:1/0")}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    for command, (exit_code, out, err) in zip(commands, json.loads(done.stdout), strict=True):
        assert (exit_code, out) == (4, ""), (command, err)
        assert err.startswith("Error: "), command
        assert err.count("\n") == 1, (command, err)
