"""The operators' page: what it shows, its forms, and what browsers are allowed to do with it."""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from celery.app.task import Context
from fastapi import FastAPI

from app.api.task_access import TaskViewer
from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.features.tasks.platform.ui import pages
from app.features.tasks.platform.ui.pages import local, page_operator
from app.tasks.process_task import process_task
from app.worker import broker as app_broker
from app.worker import dead_letters, flow_control, history
from app.worker.broker import QueueUnavailable, results_client
from app.worker.history import Filter
from app.worker.publish import enqueue
from tests.worker.test_dead_letters import ENDED, received

pytestmark = pytest.mark.anyio

HOME = "/tasks/ui"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
HOSTILE = "<script>alert(1)</script>\"'`{" + "{x}" + "}&lt;"
PAGES = ("", "/tasks", "/dead-letters", "/queues")


@pytest.fixture(autouse=True)
def broker(app: FastAPI) -> Iterator[Any]:
    """Give a client of the broker's database without data, and let every request come from an operator who is logged in."""
    client: Any = flow_control.client()
    client.flushdb()
    results_client().flushdb()
    app.dependency_overrides[page_operator] = lambda: TaskViewer(None)
    yield client
    app.dependency_overrides.clear()
    client.flushdb()
    results_client().flushdb()


async def _page(client: httpx.AsyncClient, path: str, status: int = 200, **params: str) -> str:
    response = await client.get(HOME + path, params=params)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return response.text


async def _submit(client: httpx.AsyncClient, path: str, **form: str) -> str:
    """Send a form and return where it leads."""
    response = await client.post(HOME + path, data=form, headers=SAME_SITE)
    assert response.status_code == 303, response.text
    return response.headers["Location"]


async def _failed(error: str = "x", **data: Any) -> str:
    task_id = (await enqueue(process_task.s(data))).id
    celery_app.backend.store_result(task_id, ValueError(error), "FAILURE", request=_request(task_id, data))
    return task_id


def _request(task_id: str, data: dict[str, Any]) -> Any:
    names = {
        "task": process_task.name,
        "hostname": "w1@host",
        "headers": {},
        "delivery_info": {"routing_key": "default"},
    }
    return Context(id=task_id, args=[data], kwargs={}, **names)


def _bury(broker: Any, error: BaseException = ENDED, **headers: Any) -> str:
    dead_letters.keep(received(str(uuid.uuid4()), **headers), error)
    return str(dead_letters.letters(broker)[0].letter_id)


async def test_browsers_may_load_nothing_but_what_the_page_itself_serves(client: httpx.AsyncClient) -> None:
    for path in (*PAGES, "/login", "/tasks/none"):
        response = await client.get(HOME + path)
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (response.headers["Cache-Control"], response.headers["Referrer-Policy"]) == ("no-store", "same-origin")
        assert not re.search(r"<script>|<style|\son\w+=|\sstyle=|https?://", response.text), path


async def test_static_files_are_cached_by_their_hash(client: httpx.AsyncClient) -> None:
    links = re.findall(r'(?:href|src)="(/tasks/ui/static/[^"]+)"', await _page(client, ""))
    assert [re.sub(r"\?v=\w+", "", link) for link in links] == [f"{HOME}/static/ui.css", f"{HOME}/static/ui.js"]
    for link in links:
        response = await client.get(link)
        assert "immutable" in response.headers["Cache-Control"]
        again = await client.get(link, headers={"If-None-Match": response.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.get(link.split("?")[0])).headers["Cache-Control"] == "no-cache"
    assert (await client.get(f"{HOME}/static/pages.py")).status_code == 422


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://other.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://test"},
    ],
)
async def test_a_form_of_another_site_is_refused(headers: dict[str, str], client: httpx.AsyncClient) -> None:
    task_id = (await enqueue(process_task.s({}))).id
    for path in (f"/tasks/{task_id}/cancel", "/queues/pause/default", "/logout", "/login"):
        assert (await client.post(HOME + path, headers=headers)).status_code == 403, path
    assert "PENDING" in await _page(client, f"/tasks/{task_id}")


async def test_a_browser_without_fetch_metadata_is_known_by_its_origin(client: httpx.AsyncClient) -> None:
    task_id = (await enqueue(process_task.s({}))).id
    origin = {"Origin": str(client.base_url).rstrip("/")}
    assert (await client.post(f"{HOME}/tasks/{task_id}/cancel", headers=origin)).status_code == 303


async def test_hostile_text_is_shown_as_text(client: httpx.AsyncClient, broker: Any) -> None:
    failed = await _failed(HOSTILE, text=HOSTILE)
    signature = process_task.signature(({},), headers={"argsrepr": HOSTILE, "owner": HOSTILE})
    signature.set(argsrepr=HOSTILE)
    await enqueue(signature, HOSTILE)
    letter = _bury(broker, ValueError(HOSTILE), task=HOSTILE)
    paths = (*PAGES, f"/tasks/{failed}", f"/dead-letters/{letter}")
    shown = [await _page(client, path) for path in paths]
    shown += [await _page(client, "/tasks", name=HOSTILE), await _page(client, "/tasks", 422, state=HOSTILE)]
    shown += [await _page(client, "/tasks", 422, **{HOSTILE: "x"}), await _page(client, "/login", next=HOSTILE)]
    for text in shown:
        assert "<script>alert" not in text
    assert sum("&lt;script&gt;alert(1)" in text for text in shown) >= 6


async def test_half_of_a_surrogate_pair_is_shown(client: httpx.AsyncClient, broker: Any) -> None:
    letter = _bury(broker, ValueError("\ud800"))
    assert "\\ud800" in await _page(client, f"/dead-letters/{letter}")
    await _failed("\ud800")
    assert "\\ud800" in await _page(client, "")


async def test_the_overview_groups_failures_by_error_and_links_to_them(client: httpx.AsyncClient, broker: Any) -> None:
    for _ in range(3):
        newest = await _failed("no paper")
    _bury(broker)
    text = await _page(client, "")
    assert "<b>3</b> failed in the last hour" in text
    assert "<b>1</b> dead letters" in text
    assert re.search(r"<b>ValueError</b>.*no paper", text)
    assert f"{HOME}/tasks/{newest}" in text
    link = re.search(rf'href="({HOME}/tasks\?state=FAILURE&amp;name=[^"]+)"', text)
    assert link
    listed = (await client.get(link[1].replace("&amp;", "&"))).text
    assert listed.count(f'href="{HOME}/tasks/') == 3


async def _rates(client: httpx.AsyncClient) -> list[str]:
    """Return the numbers of the last hour: tasks, a minute, succeeded, failed, cancelled, unfinished, untracked."""
    row = (await _page(client, "")).split('<th scope="row">last hour</th>')[1].split("</tr>")[0]
    return re.findall(r'class="number">([^<]+)<', row)


async def test_rates_count_the_tasks_of_a_period_by_their_state(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _rates(client) == ["0"] * 7
    for number in range(3):
        await _failed(number=number)
    done = (await enqueue(process_task.s({}))).id
    celery_app.backend.store_result(done, {}, "SUCCESS", request=_request(done, {}))
    await enqueue(process_task.s({}))
    assert await _rates(client) == ["5", "0.08", "1", "3", "0", "1", "0"]
    # Records that were dropped are counted nowhere, also if an index still has them.
    monkeypatch.setattr(celery_settings, "records_max", 2)
    await enqueue(process_task.s({}))
    assert await _rates(client) == ["2", "0.03", "0", "0", "0", "2", "0"]


async def test_a_queue_without_a_worker_and_a_paused_one_need_attention(client: httpx.AsyncClient) -> None:
    assert "Needs attention" not in await _page(client, "")
    await enqueue(process_task.s({}))
    assert "No worker takes from <b>" in await _page(client, "")
    await _submit(client, "/queues/pause/high")
    assert re.search(r"<b>high</b> is paused since", await _page(client, ""))


async def test_filters_select_and_pages_follow_each_other(client: httpx.AsyncClient) -> None:
    ids = [await _failed(number=number) for number in range(3)]
    waiting = (await enqueue(process_task.s({}))).id
    text = await _page(client, "/tasks", state="FAILURE", name="", queue="", owner="", since="", until="", limit="2")
    assert (ids[2] in text, ids[1] in text, ids[0] in text, waiting in text) == (True, True, False, False)
    older = re.search(r'href="([^"]+)" rel="next"', text)
    assert older
    assert "state=FAILURE" in older[1]
    second = (await client.get(older[1].replace("&amp;", "&"))).text
    assert (ids[0] in second, ids[1] in second) == (True, False)
    newest = re.search(r'href="([^"]+)">Newest<', second)
    assert newest
    assert "state=FAILURE" in newest[1]
    # As the field of a form has it: without a time zone.
    assert ids[0] not in await _page(client, "/tasks", since="2100-01-01T00:00")
    assert ids[0] in await _page(client, "/tasks", until="2100-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", "LOST"),
        ("since", "yesterday"),
        ("name", "x" * 256),
        ("limit", "0"),
        ("cursor", "x"),
        ("colour", "red"),
    ],
)
async def test_an_invalid_filter_is_named_next_to_the_form(field: str, value: str, client: httpx.AsyncClient) -> None:
    task_id = (await enqueue(process_task.s({}))).id
    text = await _page(client, "/tasks", 422, **{field: value})
    assert "The filter is invalid" in text
    assert f'id="e-{field}"' in text or f"<p>{field}: " in text
    # A list without the filter would be mistaken for its result.
    assert task_id not in text
    api = (await client.get("/tasks", params={field: value})).status_code
    assert api in {401, 403, 422}
    if field in {"cursor", "limit", "colour"}:
        assert "The filter is invalid" in await _page(client, "/dead-letters", 422, **{field: value})


async def test_a_waiting_task_is_cancelled_and_run_again_as_another(client: httpx.AsyncClient) -> None:
    task_id = (await enqueue(process_task.s({"a": 1}))).id
    assert "Cancel</button>" in await _page(client, f"/tasks/{task_id}")
    there = await _submit(client, f"/tasks/{task_id}/cancel")
    assert there == f"{HOME}/tasks/{task_id}?done=cancelled"
    text = (await client.get(there)).text
    assert ("The task is cancelled." in text, "REVOKED" in text, "Cancel</button>" in text) == (True, True, False)
    failed = await _failed(a=2)
    there = await _submit(client, f"/tasks/{failed}/retry")
    assert failed not in there
    assert f'href="{HOME}/tasks/{failed}"' in (await client.get(there)).text


async def test_all_tasks_of_a_filter_are_run_again_or_cancelled_a_hundred_at_a_time(
    client: httpx.AsyncClient,
) -> None:
    failed = [await _failed(number=number) for number in range(101)]
    waiting = (await enqueue(process_task.s({}))).id
    assert "-all" not in await _page(client, "/tasks")
    assert f'action="{HOME}/tasks/retry-all"' in await _page(client, "/tasks", state="FAILURE")
    there = await _submit(client, "/tasks/retry-all", state="FAILURE", name=process_task.name, since="", cursor="")
    text = (await client.get(there)).text
    assert "100 done, 0 refused." in text
    assert "Run the next 100 again" in text
    cursor = re.search(r'name="cursor" value="([^"]+)"', text)
    assert cursor
    there = await _submit(client, "/tasks/retry-all", state="FAILURE", name=process_task.name, cursor=cursor[1])
    assert "1 done, 0 refused." in (await client.get(there)).text
    first = history.page(Filter(state="PENDING"))
    listed = [*first.records, *history.page(Filter(state="PENDING"), first.next).records]
    assert {task.replay_of for task in listed} == {*failed, None}
    assert await _submit(client, "/tasks/cancel-all", state="PENDING", since="2100-01-01T00:00") == (
        f"{HOME}/tasks?state=PENDING&since=2100-01-01T00%3A00&done=tasks&n_done=0&n_refused=0"
    )
    await _submit(client, "/tasks/cancel-all", state="PENDING")
    assert "REVOKED" in await _page(client, f"/tasks/{listed[0].task_id}")
    # One of the hundred and first.
    assert "PENDING" in await _page(client, f"/tasks/{waiting}")
    for form in ({}, {"state": "SUCCESS"}, {"colour": "red"}):
        for change in ("retry", "cancel"):
            response = await client.post(f"{HOME}/tasks/{change}-all", data=form, headers=SAME_SITE)
            assert response.status_code == 422, (form, change)


async def test_what_cannot_be_done_is_a_page_with_the_reason(client: httpx.AsyncClient) -> None:
    task_id = (await enqueue(process_task.s({}))).id
    headers = {**SAME_SITE, "Referer": f"http://test{HOME}/tasks/{task_id}?done=retried"}
    refused = await client.post(f"{HOME}/tasks/{task_id}/retry", headers=headers)
    assert refused.status_code == 409
    assert "is PENDING" in refused.text
    assert f'href="{HOME}/tasks/{task_id}">Back' in refused.text
    assert "You have no task none" in await _page(client, "/tasks/none", 404)
    assert (await client.post(f"{HOME}/queues/pause/none", headers=SAME_SITE)).status_code == 404
    assert (await client.post(f"{HOME}/dead-letters/none/replay", headers=SAME_SITE)).status_code == 404


async def test_a_task_is_shown_with_its_attempts_and_the_tasks_below_it(client: httpx.AsyncClient) -> None:
    root = await _failed("broken")
    child = process_task.apply_async(({},), parent_id=root, root_id=root).id
    grandchild = process_task.apply_async(({},), parent_id=child, root_id=root).id
    text = await _page(client, f"/tasks/{root}")
    assert re.search(r"<b>ValueError</b> broken", text)
    below = text.split("Tasks that it has queued")[1]
    assert re.search(rf"<ul>.*{child}.*<ul>.*{grandchild}.*</ul>.*</ul>", below, re.DOTALL)
    middle = await _page(client, f"/tasks/{child}")
    assert f'href="{HOME}/tasks/{root}"' in middle
    assert grandchild in middle.split("Tasks that it has queued")[1]


async def test_progress_has_a_bar(client: httpx.AsyncClient) -> None:
    task_id = (await enqueue(process_task.s({}))).id
    request = _request(task_id, {})
    celery_app.backend.store_result(task_id, {}, "STARTED", request=request)
    celery_app.backend.store_result(task_id, {"done": 3, "total": 8, "message": "<b>"}, "PROGRESS", request=request)
    text = await _page(client, f"/tasks/{task_id}")
    assert '<progress max="8" value="3"' in text
    assert "3 of 8 · &lt;b&gt;" in text
    assert f'data-events="{HOME}/tasks/{task_id}/events"' in text
    celery_app.backend.store_result(task_id, ["their", "own"], "PROGRESS", request=request)
    assert "their" in await _page(client, f"/tasks/{task_id}")


async def test_a_task_that_has_ended_is_sent_to_live_pages(client: httpx.AsyncClient) -> None:
    task_id = await _failed()
    response = await client.get(f"{HOME}/tasks/{task_id}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "event: state" in response.text
    assert (await client.get(f"{HOME}/tasks/none/events")).status_code == 404


async def test_dead_letters_are_replayed_and_deleted(client: httpx.AsyncClient, broker: Any) -> None:
    first, second = _bury(broker), _bury(broker)
    assert first in await _page(client, "/dead-letters")
    assert process_task.name in await _page(client, f"/dead-letters/{first}")
    there = await _submit(client, f"/dead-letters/{first}/replay")
    assert "queued again, as this task" in (await client.get(there)).text
    assert await _submit(client, f"/dead-letters/{second}/delete") == f"{HOME}/dead-letters?done=deleted"
    assert dead_letters.letters(broker) == []


async def test_all_letters_of_an_error_are_changed_and_no_others(client: httpx.AsyncClient, broker: Any) -> None:
    other = _bury(broker, KeyError("x"))
    _bury(broker)
    _bury(broker)
    for form in ({}, {"error": "ValueError"}, {"task": process_task.name}, {"error": "x" * 300, "task": "x"}):
        response = await client.post(f"{HOME}/dead-letters/delete-all", data=form, headers=SAME_SITE)
        assert response.status_code == 422
    form = {"error": "ValueError", "task": process_task.name}
    there = await _submit(client, "/dead-letters/replay-all", **form)
    assert "2 done, 0 refused, 0 more match." in (await client.get(there)).text
    assert [letter.letter_id for letter in dead_letters.letters(broker)] == [other]
    await _submit(client, "/dead-letters/delete-all", error="KeyError", task=process_task.name)
    assert dead_letters.letters(broker) == []


async def test_redacted_arguments_are_shown_nowhere(client: httpx.AsyncClient, broker: Any) -> None:
    dead_letters.keep(received("a-secret", argsrepr=dead_letters.HIDDEN, kwargsrepr="a-secret"), ENDED)
    letter = dead_letters.letters(broker)[0].letter_id
    for path in ("/dead-letters", f"/dead-letters/{letter}"):
        text = await _page(client, path)
        assert ("a-secret" in text, "/replay" in text.replace("replay-all", "")) == (False, False)


async def test_a_queue_is_paused_and_resumed(client: httpx.AsyncClient) -> None:
    await _submit(client, "/queues/pause/long")
    text = await _page(client, "/queues")
    assert text.count(">PAUSED<") == 1
    await _submit(client, "/queues/resume/long")
    assert ">PAUSED<" not in await _page(client, "/queues")


async def test_while_redis_does_not_answer_a_page_says_so(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise QueueUnavailable("x")

    monkeypatch.setattr(app_broker._THREADS, "run", lambda *_, **__: refuse())
    for path in (*PAGES, "/tasks/x", "/dead-letters/x"):
        response = await client.get(HOME + path)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5"), path
        assert "Redis does not answer" in response.text
        assert "no-store" in response.headers["Cache-Control"]
    response = await client.post(f"{HOME}/queues/pause/long", headers=SAME_SITE)
    assert response.status_code == 503


async def test_a_form_is_bounded_and_must_be_one(client: httpx.AsyncClient) -> None:
    path = f"{HOME}/dead-letters/delete-all"
    assert (await client.post(path, content=b"a" * (pages.MAX_BODY + 1), headers=SAME_SITE)).status_code == 413
    complete = b"error=x&task=x"
    assert (await client.post(path, content=complete, headers=SAME_SITE)).status_code == 303
    for body in (b"\xff", b"no form", complete + b"&a=1" * 30, complete + b"&a=%ff"):
        assert (await client.post(path, content=body, headers=SAME_SITE)).status_code == 422


async def test_the_page_wins_over_a_task_with_the_id_ui_which_has_its_own_page(client: httpx.AsyncClient) -> None:
    process_task.apply_async(({},), task_id="ui")
    assert "<h1>Overview</h1>" in await _page(client, "")
    assert "<code>ui</code>" in await _page(client, "/tasks/ui")
    assert await _submit(client, "/tasks/ui/cancel") == f"{HOME}/tasks/ui?done=cancelled"


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "x", "²", ""])
async def test_a_notice_from_a_link_has_numbers_only(number: str, client: httpx.AsyncClient) -> None:
    assert "0 done, 0 refused, 0 more match." in await _page(client, "/dead-letters", done="bulk", n_done=number)
    assert 'role="status"' not in await _page(client, "/dead-letters", done="<b>")


async def test_the_page_is_not_in_the_api_documentation(app: FastAPI) -> None:
    assert not [path for path in app.openapi()["paths"] if path.startswith(HOME)]


@pytest.mark.parametrize(
    "path", ["/tasks/ui", "/tasks/ui/tasks?state=FAILURE&since=2026-11-29T06:00:00Z", "/tasks/ui/tasks/a.b:c"]
)
def test_a_login_returns_to_a_page(path: str) -> None:
    assert local(path) == path


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "/",
        "//other.example",
        "/\\other.example",
        "https://other.example/tasks/ui",
        "/tasks/uix",
        "/tasks/ui\n",
        "/tasks/ui/\\x",
        "/tasks/ui/../../other",
        "/tasks/ui/%2e%2e/other",
    ],
)
def test_a_login_returns_nowhere_else(path: str | None) -> None:
    assert local(path) == HOME
