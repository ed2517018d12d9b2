"""The pictures of README.md show what a run shows today: the demo, an update's report, the diagrams.

FORGE_PICTURES names the folder to write them to: `make pictures`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from pictures import Line, an_update, parts_of_a_project, terminal

from forge_template import ROOT, clone_working_tree, project_environment, released_versions
from tests.update.world import World

PICTURES = ROOT / "docs" / "pictures"
MAX_BYTES = 20_000
DEMO_LIMIT = 400.0
_STEP = re.compile(r"\[ *(\d+\.\d) s\]")
# Of a run: ids, ports, times, and how many files there are.
_VARIES = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+(\.\d+)*")
NEXT = "v0.99.0"
NOTES = """from engine.release import Release

RELEASE = Release(
    "0.99.0",
    changes=("Workers take eight messages for each process in advance.",),
    steps=("Run `uv sync`, and commit uv.lock with the update.",),
)
"""
PREFETCH = "worker_prefetch_multiplier=4"
INVOICES = """from app.core.celery import celery_app


@celery_app.task(name="invoices.send")
def send_invoice(order_id: int) -> None: ...
"""


def kept(name: str, picture: str) -> None:
    """Write a picture where FORGE_PICTURES says, or check the one in docs/pictures."""
    assert len(picture.encode()) <= MAX_BYTES
    if folder := os.environ.get("FORGE_PICTURES"):
        (Path(folder) / name).write_text(picture, encoding="utf-8")
        return
    assert shown((PICTURES / name).read_text(encoding="utf-8")) == shown(picture), "run: make pictures"


def shown(picture: str) -> set[str]:
    """Return the lines of a picture without what differs between runs: tasks end in any order, a slow start waits."""
    lines = [unescape(line) for line in re.findall(r"<text[^>]*>([^<]*)</text>", picture)]
    return {" ".join(_VARIES.sub("0", line).split()) for line in lines if "… waiting" not in line}


@pytest.mark.parametrize(
    ("name", "picture"), [("project.svg", parts_of_a_project()), ("update.svg", an_update())], ids=["project", "update"]
)
def test_diagrams(name: str, picture: str) -> None:
    kept(name, picture)


@pytest.mark.matrix
def test_the_demo() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py")],
        env=project_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=DEMO_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines = [Line("$ make demo", "command", 0.0)]
    for line in done.stdout.splitlines():
        step = _STEP.match(line)
        assert step, f"a line without its time: {line}"
        lines.append(Line(line, "strong" if "SUCCESS" in line else "", float(step[1])))
    kept("demo.svg", terminal("make demo", lines, speed=10))


@pytest.mark.matrix
def test_an_update_with_a_conflict(scratch: Path) -> None:
    """A release changes two files; the owner has changed the same line of one, another line of the other, and added a task."""
    world = World.of(clone_working_tree(scratch / "template"))
    person = world.project("v" + released_versions((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[0])
    world.release(NEXT, _next_release)
    person.replace("app/core/celery.py", PREFETCH, PREFETCH.replace("4", "1"))
    person.replace("docker-compose.yml", "restart: unless-stopped", "restart: always")
    person.write("app/tasks/invoices.py", INVOICES)
    person.commit()
    updated = person.update()
    assert updated.code == 0, updated.report
    report = updated.report[updated.report.index("Forge: updated") :].rstrip().splitlines()
    lines = [Line("$ make update", "command")]
    for line in report:
        lines.append(Line(line, "strong" if line.startswith("CONFLICTS") else ""))
    kept("update-report.svg", terminal("make update", lines))


def _next_release(template: Path) -> None:
    (celery,) = (template / "template" / "app" / "core").glob("*celery.py*")
    _replace(celery, PREFETCH, PREFETCH.replace("4", "8"))
    (compose,) = (template / "template").glob("*docker-compose.yml*")
    _replace(compose, "retries: 3", "retries: 5")
    (template / "migrations" / "releases" / "v0_99_0.py").write_text(NOTES, encoding="utf-8")


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")
