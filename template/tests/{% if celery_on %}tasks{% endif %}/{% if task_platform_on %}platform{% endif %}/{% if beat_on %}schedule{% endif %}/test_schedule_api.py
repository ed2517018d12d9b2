"""The routes and the commands of the schedule for an operator, with what a scheduler of beat stores."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from celery import states
from celery.schedules import crontab
from fastapi import FastAPI

from app.api.task_access import TaskViewer, operator_or_owner
from app.core.celery import celery_app
from app.features.tasks.platform.ui.pages import page_operator
from app.worker import last_runs, liveness, messages, schedule_control
from app.worker.broker import QueueUnavailable
from app.worker.schedule import Scheduler
from tests.cli.fixtures import RunCli

pytestmark = pytest.mark.anyio


@pytest.fixture
def beat(broker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Give beat's scheduler with a schedule of two entries."""
    entries: dict[str, Any] = {
        "often": {"task": "process_task", "schedule": 3600.0, "args": ({},)},
        "at night": {"task": "process_task", "schedule": crontab(hour="3", minute="0"), "args": ({},)},
        "misspelled": {"task": "process_task", "schedule": 86400.0, "args": ({},), "options": {"queue": "defualt"}},
    }
    monkeypatch.setitem(celery_app.conf, "beat_schedule", entries)
    scheduler: Any = Scheduler(app=celery_app, schedule_filename=str(tmp_path / "schedule"), lazy=False)
    _serve(scheduler)
    liveness.send_heartbeat("beat")
    yield scheduler
    scheduler.close()


def _serve(beat: Any) -> None:
    """Let beat do what operators ask of it, without waiting for its next time."""
    beat._served_at = float("-inf")
    beat._serve_operators()


def _queued(broker: Any, queue: str = "high") -> int:
    return sum(broker.llen(queue + ending) for ending in ("", *messages.keys().endings))


async def _entry(client: httpx.AsyncClient, name: str = "often") -> dict[str, Any]:
    response = await client.get("/schedule")
    assert response.status_code == 200, response.text
    return next(dict(entry) for entry in response.json()["entries"] if entry["name"] == name)


async def test_an_entry_is_shown_with_its_last_and_next_run(client: httpx.AsyncClient, beat: Any) -> None:
    assert (await client.get("/schedule")).json()["beat_is_alive"]
    before = await _entry(client)
    assert (before["task"], before["schedule"]) == ("process_task", "freq: 1.00 hour")
    assert (before["last_run_at"], before["last_task"], before["paused"]) == (None, None, False)
    assert before["next_run_at"]
    assert (await _entry(client, "at night"))["next_run_at"].endswith("03:00:00Z")
    task_id = beat.apply_async(beat.schedule["often"]).id
    celery_app.backend.store_result(task_id, ValueError("no"), states.FAILURE)
    after = await _entry(client)
    assert after["last_run_at"]
    assert (after["last_task"]["task_id"], after["last_task"]["state"]) == (task_id, "FAILURE")
    assert after["last_task"]["error"] == {"type": "ValueError", "message": "no"}


async def test_the_last_run_before_an_update_is_shown(client: httpx.AsyncClient, beat: Any, broker: Any) -> None:
    broker.hset(last_runs.KEY, "often", 1_700_000_000)
    shown = await _entry(client)
    assert (shown["last_run_at"], shown["last_task"]) == ("2023-11-14T22:13:20Z", None)


async def test_an_entry_that_could_not_be_queued_says_why(client: httpx.AsyncClient, beat: Any) -> None:
    beat.apply_entry(beat.schedule["misspelled"], producer=beat.producer)
    assert (await _entry(client, "misspelled"))["queue_error"] == "QueueNotFound"


@pytest.mark.parametrize("advance", [True, False])
async def test_a_paused_entry_is_skipped_until_it_is_resumed(
    advance: bool, client: httpx.AsyncClient, beat: Any, broker: Any
) -> None:
    paused = (await client.post("/schedule/often/pause")).json()
    assert (paused["paused"], paused["next_run_at"]) == (True, None)
    entry = beat.schedule["often"]
    assert beat.apply_async(entry, advance=advance) is None
    assert _queued(broker) == 0
    shown = await _entry(client)
    assert (shown["last_run_at"], shown["paused_since"]) == (None, paused["paused_since"])
    assert not (await _entry(client, "at night"))["paused"]
    assert not (await client.post("/schedule/often/resume")).json()["paused"]
    assert beat.apply_async(entry, advance=advance) is not None
    assert _queued(broker) == 1


async def test_a_paused_entry_is_next_due_as_if_it_had_run(client: httpx.AsyncClient, beat: Any) -> None:
    await client.post("/schedule/often/pause")
    before = beat.schedule["often"].last_run_at
    beat.apply_async(beat.schedule["often"])
    assert beat.schedule["often"].last_run_at > before


async def test_a_requested_run_is_queued_once_and_leaves_the_next_one_as_it_is(
    client: httpx.AsyncClient, beat: Any, broker: Any
) -> None:
    await client.post("/schedule/often/pause")
    due = beat.schedule["often"].last_run_at
    answers = [await client.post("/schedule/often/run") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    (task_id,) = {answer.json()["task_id"] for answer in answers}
    assert _queued(broker) == 0
    for _ in range(2):
        _serve(beat)
    assert _queued(broker) == 1
    assert (await client.get(f"/tasks/{task_id}")).json()["state"] == "PENDING"
    shown = await _entry(client)
    assert shown["last_task"]["task_id"] == task_id
    assert beat.schedule["often"].last_run_at == due
    assert "task_id" not in beat.schedule["often"].options
    again = (await client.post("/schedule/often/run")).json()["task_id"]
    assert again != task_id


async def test_a_request_that_beat_has_not_seen_in_time_is_forgotten(
    client: httpx.AsyncClient, beat: Any, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (await client.post("/schedule/often/run")).json()["task_id"]
    broker.hset(schedule_control.REQUESTS, "often", f"{first} {broker.time()[0] - schedule_control.REQUESTED_FOR}")
    assert (await client.post("/schedule/often/run")).json()["task_id"] != first
    broker.hset(schedule_control.REQUESTS, "often", f"{first} {broker.time()[0] - schedule_control.REQUESTED_FOR}")
    _serve(beat)
    assert _queued(broker) == 0


async def test_a_requested_run_that_cannot_be_queued_is_asked_for_once(
    client: httpx.AsyncClient, beat: Any, broker: Any
) -> None:
    assert (await client.post("/schedule/misspelled/run")).status_code == 202
    _serve(beat)
    assert not broker.hlen(schedule_control.REQUESTS)
    assert (await _entry(client, "misspelled"))["queue_error"] == "QueueNotFound"


async def test_without_beat_no_run_is_accepted(client: httpx.AsyncClient, beat: Any, broker: Any) -> None:
    broker.delete("alive:beat")
    response = await client.post("/schedule/often/run")
    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
    schedule = (await client.get("/schedule")).json()
    assert not schedule["beat_is_alive"]
    assert [entry["next_run_at"] for entry in schedule["entries"]] == [None] * 3


async def test_an_entry_that_is_removed_is_shown_no_more(client: httpx.AsyncClient, beat: Any) -> None:
    del beat.schedule["often"]
    _serve(beat)
    assert "often" not in [entry["name"] for entry in (await client.get("/schedule")).json()["entries"]]
    for action in ("run", "pause", "resume"):
        response = await client.post(f"/schedule/often/{action}")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


async def test_a_frozen_redis_is_a_503(client: httpx.AsyncClient, broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise QueueUnavailable("The task queue does not answer; try again later.")

    monkeypatch.setattr("app.features.tasks.platform.schedule.routes.in_thread", refuse)
    for method, path in (("GET", ""), ("POST", "/often/run"), ("POST", "/often/pause"), ("POST", "/often/resume")):
        response = await client.request(method, f"/schedule{path}")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


async def test_who_is_no_operator_is_refused(app: FastAPI, client: httpx.AsyncClient, broker: Any) -> None:
    app.dependency_overrides[operator_or_owner] = lambda: TaskViewer("user-1")
    for method, path in (("GET", ""), ("POST", "/often/run"), ("POST", "/often/pause"), ("POST", "/often/resume")):
        assert (await client.request(method, f"/schedule{path}")).status_code == 403


# --- the command line ---


def _listed(run_cli: RunCli) -> dict[str, Any]:
    outcome = run_cli("schedule", "list", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    return {entry["name"]: entry for entry in json.loads(outcome.out)["entries"]}


@pytest.mark.usefixtures("beat")
def test_commands_list_pause_resume_and_run_entries(run_cli: RunCli) -> None:
    assert set(_listed(run_cli)) == {"often", "at night", "misspelled"}
    lines = run_cli("schedule", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == ["entry", "at", "misspelled", "often"]
    assert run_cli("schedule", "pause", "often").code == 0
    assert _listed(run_cli)["often"]["paused"] is True
    assert json.loads(run_cli("schedule", "resume", "often", "--json").out)["paused"] is False
    first = run_cli("schedule", "run", "at night")
    assert (first.code, len(first.out.split())) == (0, 1)
    again = json.loads(run_cli("schedule", "run", "at night", "--json").out)
    assert again == {"entry": "at night", "task_id": first.out.strip()}


@pytest.mark.usefixtures("beat")
@pytest.mark.parametrize("command", ["run", "pause", "resume"])
def test_a_command_for_an_unknown_entry_exits_with_3(run_cli: RunCli, command: str) -> None:
    outcome = run_cli("schedule", command, "never")
    assert (outcome.code, outcome.out) == (3, "")


@pytest.mark.usefixtures("beat")
def test_without_beat_a_command_runs_nothing(run_cli: RunCli, broker: Any) -> None:
    broker.delete("alive:beat")
    outcome = run_cli("schedule", "run", "often")
    assert (outcome.code, "No beat is running" in outcome.err) == (4, True)
    assert run_cli("schedule", "list").err == "No beat is running.\n"


async def test_the_page_shows_the_schedule_and_changes_it(app: FastAPI, client: httpx.AsyncClient, beat: Any) -> None:
    # Without accounts and a token, nobody can log in.
    assert (await client.get("/tasks/ui/schedule")).status_code in {303, 403}
    app.dependency_overrides[page_operator] = lambda: TaskViewer(None)
    page = (await client.get("/tasks/ui/schedule")).text
    assert 'aria-current="page">Schedule<' in page
    assert ("at night" in page, "freq: 1.00 hour" in page, "No beat is running" in page) == (True, True, False)
    same_site = {"Sec-Fetch-Site": "same-origin"}
    for change in ("pause", "resume", "run"):
        path = f"/tasks/ui/schedule/{change}/at%20night"
        assert path in (await client.get("/tasks/ui/schedule")).text
        assert (await client.post(path)).status_code == 403
        changed = await client.post(path, headers=same_site)
        assert changed.headers["Location"].startswith("/tasks/ui/schedule?done=")
        assert (">PAUSED<" in (await client.get("/tasks/ui/schedule")).text) == (change == "pause")
    _serve(beat)
    assert (await _entry(client, "at night"))["last_run_at"]
    assert (await client.post("/tasks/ui/schedule/pause/none", headers=same_site)).status_code == 404
