"""The workflow `Pins` has one issue for each of its titles: open while something fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import issue
import pytest

from forge_template import ROOT

TITLE = "The newest versions fail"
GH = f"""#!{sys.executable}
import json, os, pathlib, sys
store = pathlib.Path(os.environ["GH_STORE"])
issues = json.loads(store.read_text())
_, kind, command, *rest = sys.argv
assert kind == "issue"
options = dict(part.lstrip("-").split("=", 1) for part in rest if part.startswith("--"))
if command == "list":
    assert options["state"] == "open"
    names = options["json"].split(",")
    print(json.dumps([{{name: each[name] for name in names}} for each in issues if each["open"]]))
elif command == "create":
    assert options["body-file"] == "-"
    author = {{"is_bot": True, "login": "app/github-actions"}}
    issues.append(
        {{"number": len(issues) + 1, "title": options["title"], "body": sys.stdin.read(), "open": True, "author": author}}
    )
    print("https://git.example.com/issues/1")
else:
    [found] = [each for each in issues if str(each["number"]) == rest[0]]
    found.update({{"body": sys.stdin.read()}} if command == "edit" else {{"open": False}})
store.write_text(json.dumps(issues))
"""


class Issues:
    """The issues of a repository."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.set()

    def set(self, *issues: dict[str, object]) -> None:
        self.store.write_text(json.dumps(issues))

    def get(self) -> list[tuple[object, ...]]:
        return [(each["title"], each["body"], each["open"]) for each in json.loads(self.store.read_text())]


@pytest.fixture
def issues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Issues:
    (tmp_path / "gh").write_text(GH, encoding="utf-8")
    (tmp_path / "gh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GH_STORE", str(tmp_path / "issues.json"))
    return Issues(tmp_path / "issues.json")


def test_there_is_one_issue_while_something_fails_and_none_afterwards(issues: Issues) -> None:
    issue.settle(TITLE, "")
    assert issues.get() == []
    issue.settle(TITLE, "a fails")
    issue.settle(TITLE, "b fails")
    assert issues.get() == [(TITLE, "b fails", True)]
    issue.settle(TITLE, "")
    assert issues.get() == [(TITLE, "b fails", False)]
    issue.settle(TITLE, "c fails")
    assert issues.get() == [(TITLE, "b fails", False), (TITLE, "c fails", True)]


def test_issues_of_people_and_of_other_titles_stay_as_they_are(issues: Issues) -> None:
    person, bot = {"is_bot": False, "login": "ada"}, {"is_bot": True, "login": "app/github-actions"}
    issues.set(
        {"number": 1, "title": TITLE, "body": "mine", "open": True, "author": person},
        {"number": 2, "title": f"{TITLE}, too", "body": "other", "open": True, "author": bot},
    )
    before = issues.get()
    issue.settle(TITLE, "")
    assert issues.get() == before
    issue.settle(TITLE, "a fails")
    assert issues.get() == [*before, (TITLE, "a fails", True)]


def test_a_long_report_is_cut_to_what_an_issue_takes(issues: Issues) -> None:
    issue.settle(TITLE, "x" * 100_000)
    assert len(str(issues.get()[0][1])) < 65_536


@pytest.mark.parametrize("result", ["failure", "cancelled"])
def test_a_job_without_a_report_is_reported_with_its_run(issues: Issues, result: str) -> None:
    environment = {
        "GITHUB_SERVER_URL": "https://git.example.com",
        "GITHUB_REPOSITORY": "ada/forge",
        "GITHUB_RUN_ID": "7",
    }

    def run(result: str) -> None:
        command = [sys.executable, "scripts/issue.py", TITLE, result]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **environment, "REPORT": ""}, check=True)

    run(result)
    [(_, body, is_open)] = issues.get()
    assert str(body).startswith("The job has no report")
    assert str(body).endswith(f"\n\n{result}: https://git.example.com/ada/forge/actions/runs/7\n")
    assert is_open
    run("success")
    assert [is_open for _, _, is_open in issues.get()] == [False]
