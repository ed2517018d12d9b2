"""The operators' page in a real browser, over a real API, worker and beat: run inside a generated project without accounts.

TASK_PAGE_PICTURES names a folder for screenshots, CHROMIUM the browser.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from app.tasks import page_tasks
from app.worker import dead_letters, history, schedule_control
from app.worker.broker import broker_client, results_client
from app.worker.publish import enqueue
from tests.e2e.conftest import FAST
from tests.e2e.processes import Running, start_api, start_worker, wait_until

CHROMIUM = os.environ["CHROMIUM"]
PICTURES = os.environ.get("TASK_PAGE_PICTURES")
TOKEN = "q1w2e3r4t5z6u7i8o9p0-q1w2e3r4t5z6u7i8o9p0"
# The other flags keep it from calling its maker's servers.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
PHONE, DESKTOP = (360, 740), (1280, 860)
SHOWN: list[tuple[str, Any, tuple[int, int]]] = [
    ("overview", "light", DESKTOP),
    ("overview", "dark", PHONE),
    ("task", "dark", DESKTOP),
    ("dead-letters", "light", DESKTOP),
]
"""The screenshots: page, colours, size."""

PAGES, RENDERED = 12, 5
PATHS = ("", "/tasks", "/dead-letters", "/queues", "/schedule")


@dataclass
class World:
    """A running application with some tasks."""

    address: str
    running: str
    resizing: str
    imported: str
    failed: str
    problems: list[str] = field(default_factory=list)
    """What the consoles of all pages have said."""


@pytest.fixture(autouse=True)
def clean_state() -> None:
    """Delete nothing after a test: the tests are about one world, and the browser's loop is still running then."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give an API, a worker and a beat, with tasks that run, have failed, wait, and dead letters."""
    folder = tmp_path_factory.mktemp("page")
    shutil.rmtree(page_tasks.FLAGS, ignore_errors=True)
    page_tasks.FLAGS.mkdir()
    _turn(0, RENDERED)
    with broker_client() as broker:
        broker.flushdb()
    results_client().flushdb()
    names = {**FAST, "TASKS_OPERATOR_TOKEN": TOKEN, "APP_NAME": "Atlas", "CELERY_LIVENESS_INTERVAL": "2"}
    started: list[Running] = []
    try:
        api, address = start_api(folder / "api.log", **names)
        started.append(api)
        (folder / "beat").mkdir()
        beat = ("celery", "-A", "app.core.celery:celery_app", "beat", "-s", str(folder / "schedule"))
        started.append(Running(folder / "beat" / "beat.log", *beat, **names))
        started.append(start_worker(folder / "worker.log", "--concurrency=4", **names))
        yield _with_tasks(address)
        assert "Traceback" not in api.text(), api.text()
    finally:
        (page_tasks.FLAGS / "end").touch()
        for process in started:
            process.stop()
        shutil.rmtree(page_tasks.FLAGS)


def _with_tasks(address: str) -> World:
    async def queue(signature: Any, owner: str | None = None) -> str:
        return (await enqueue(signature, owner)).id

    async def queue_all() -> World:
        imported = await queue(page_tasks.file.s("customers.csv", 9), "user-7")
        sent = [await queue(page_tasks.send.s(number, "ada@example.com"), "user-7") for number in (1041, 1042, 1043)]
        for number in range(14):
            await queue(page_tasks.row.s(100 + number))
        return World(
            address,
            running=await queue(page_tasks.render.s(11, PAGES), "user-3"),
            resizing=await queue(page_tasks.resize.s("harbour.png"), "user-7"),
            imported=imported,
            failed=sent[0],
        )

    world = asyncio.run(queue_all())
    wait_until(lambda: _state(world.running) == _state(world.resizing) == "STARTED", 40, "two tasks to run")
    wait_until(lambda: _state(world.failed) == "FAILURE", 40, "a task to fail")
    with broker_client() as broker:
        wait_until(lambda: len(dead_letters.letters(broker)) == 3, 40, "the dead letters")
        wait_until(lambda: schedule_control.read(broker)[0], 40, "the schedule")
    return world


def _turn(*pages: int) -> None:
    """Let the task render these pages."""
    for page in range(*pages):
        (page_tasks.FLAGS / f"page-{page}").touch()


def _state(task_id: str) -> str | None:
    record = history.read(task_id)
    return record.state if record else None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(world: World, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Give a function that opens a logged in page; what its console says fails the test."""
    contexts: list[BrowserContext] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            world.problems.append(message.text)

    def open_one(path: str = "", size: tuple[int, int] = DESKTOP, **options: Any) -> Page:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, base_url=world.address, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: world.problems.append(str(error)))
        page.goto(f"/tasks/ui{path}")
        page.get_by_label("Operator's token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        # Back at the page that asked for the login.
        page.wait_for_url(f"**/tasks/ui{path}")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert world.problems == []


def _all_paths(world: World) -> list[str]:
    with broker_client() as broker:
        letters = [f"/dead-letters/{letter.letter_id}" for letter in dead_letters.letters(broker)[:1]]
    return [*PATHS, f"/tasks/{world.running}", f"/tasks/{world.imported}", f"/tasks/{world.failed}", *letters]


def test_the_page_is_accessible_and_fits_a_phone(world: World, open_page: Callable[..., Page]) -> None:
    axe = Axe()
    for scheme, size in (("light", PHONE), ("dark", DESKTOP)):
        page = open_page(size=size, color_scheme=scheme)
        for path in _all_paths(world):
            page.goto(f"/tasks/ui{path}")
            found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
            assert [one for one in found if one["impact"] in {"serious", "critical"}] == [], (path, scheme, size)
            widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths[0] <= widths[1], (path, size, widths)
    page.get_by_role("button", name="Log out").click()
    assert [one["id"] for one in axe.run(page).response["violations"]] == []


def test_pictures(world: World, open_page: Callable[..., Page]) -> None:
    if not PICTURES:
        pytest.skip("TASK_PAGE_PICTURES is not set")
    with_paths = {"overview": "", "task": f"/tasks/{world.running}", "tree": f"/tasks/{world.imported}"}
    for name, scheme, size in SHOWN:
        page = open_page(size=size, color_scheme=scheme)
        page.goto(f"/tasks/ui{with_paths.get(name, '/' + name)}")
        page.screenshot(path=f"{PICTURES}/page-{name}-{scheme}{'-phone' if size == PHONE else ''}.png")


def test_progress_moves_without_a_reload_and_the_end_is_shown(world: World, open_page: Callable[..., Page]) -> None:
    page = open_page(f"/tasks/{world.running}")
    page.evaluate("window.isFirst = true")
    bar = page.get_by_role("progressbar")
    expect(page.get_by_text(f"{RENDERED} of {PAGES} · page {RENDERED + 1}")).to_be_visible(timeout=10_000)
    _turn(RENDERED, RENDERED + 1)
    expect(page.get_by_text(f"{RENDERED + 1} of {PAGES} · page {RENDERED + 2}")).to_be_visible(timeout=10_000)
    assert bar.evaluate("bar => bar.value") == RENDERED + 1
    _turn(RENDERED + 1, PAGES)
    expect(page.locator(".headline .state")).to_have_text("SUCCESS", timeout=10_000)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    assert page.evaluate("window.isFirst")


def test_a_running_task_is_cancelled_and_run_again(world: World, open_page: Callable[..., Page]) -> None:
    page = open_page(f"/tasks/{world.resizing}")
    page.get_by_role("button", name="Cancel").click()
    # It depends on how fast the worker is.
    expect(page.locator(".notice")).to_have_text(re.compile("is cancelled|its worker ends it"))
    # The page follows the task.
    expect(page.locator(".headline .state")).to_have_text("REVOKED", timeout=15_000)
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_text("This is the new task")).to_be_visible()
    assert world.resizing not in page.url
    expect(page.get_by_role("link", name=world.resizing)).to_be_visible()
    expect(page.locator(".headline .state")).to_have_text("STARTED", timeout=15_000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".headline .state")).to_have_text("REVOKED", timeout=15_000)


def test_a_dead_letter_is_replayed_and_another_deleted_after_a_question(
    world: World, open_page: Callable[..., Page]
) -> None:
    (page_tasks.FLAGS / "mended").touch()
    page = open_page("/dead-letters")
    rows = page.get_by_role("table").nth(1).get_by_role("button", name="Replay")
    expect(rows).to_have_count(3)
    rows.first.click()
    expect(page.get_by_text("queued again, as this task")).to_be_visible()
    expect(page.locator(".headline .state")).to_have_text("SUCCESS", timeout=15_000)
    page.goto("/tasks/ui/dead-letters")
    page.locator("summary", has_text="Delete").nth(1).click()
    page.get_by_role("button", name="Delete").locator("visible=true").click()
    expect(page.get_by_text("The dead letter is deleted.")).to_be_visible()
    page.locator("summary", has_text="Replay all").click()
    page.get_by_role("button", name="Replay all").locator("visible=true").click()
    expect(page.get_by_text("1 done, 0 refused, 0 more match.")).to_be_visible()
    expect(page.get_by_text("There are none")).to_be_visible()


def test_the_keyboard_reaches_actions(world: World, open_page: Callable[..., Page]) -> None:
    page = open_page("/queues")
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Pause long":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert (page.evaluate("document.activeElement.textContent"), outline) == ("Pause long", "solid")
    page.keyboard.press("Enter")
    expect(page.get_by_text("PAUSED", exact=True)).to_be_visible()
    # The focus has its place after the page has refreshed itself.
    places: list[tuple[Any, str]] = [("link", "high"), ("button", "Resume long")]
    for role, name in places:
        page.get_by_role(role, name=name, exact=True).focus()
        page.evaluate("live.dataset.old = true")
        expect(page.locator("#live[data-old]")).to_have_count(0, timeout=15_000)
        assert page.evaluate("document.activeElement.textContent") == name
    page.keyboard.press("Enter")
    expect(page.get_by_text("PAUSED", exact=True)).to_have_count(0)


def test_everything_but_live_updates_works_without_scripts(world: World, open_page: Callable[..., Page]) -> None:
    page = open_page("/tasks", java_script_enabled=False)
    page.get_by_label("State").select_option("FAILURE")
    page.get_by_label("Task", exact=True).fill("import.row")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("link", name="import.row")).to_have_count(1)
    # A hostile text is text.
    expect(page.get_by_text("<b>amount</b> is not a number")).to_be_visible()
    page.get_by_role("link", name="import.row").click()
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_text("This is the new task")).to_be_visible()
    page.goto("/tasks/ui/schedule")
    page.get_by_role("button", name="Pause schedule-heartbeat").click()
    expect(page.get_by_text("PAUSED", exact=True)).to_be_visible()
    page.get_by_role("button", name="Resume schedule-heartbeat").click()
    expect(page.get_by_text("PAUSED", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are logged out.")).to_be_visible()
    page.goto("/tasks/ui/tasks")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
