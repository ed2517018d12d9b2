"""`make pins` writes the newest versions within the bounds, and a project gets those of its own packages only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

import beyond
import pins
import pytest
import yaml
from attempts import Failure, attempt, report
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from forge_template import ROOT, git
from tests.conftest import Renderer

TEMPLATE = """\
[project]
name = "{{ project_slug }}"
{%- if license == 'mit' %}
license = "MIT"
{%- elif license == 'apache-2.0' %}
license = "Apache-2.0"
{%- endif %}
dependencies = [
  "web>=1,<2",
{%- if celery_on %}
  "jobs>=5,<6",
{%- endif %}
{%- if accounts_on or email_on %}
  "names>=1,<2",
{%- endif %}
]

[tool.uv]
package = false
"""
OWN = """\
[project]
name = "forge"
dependencies = []

[dependency-groups]
dev = [
    # A reason.
    "web>=1,<3",
]

[tool.uv]
constraint-dependencies = [
    "web==1.0",
]

[tool.other]
"""

AddRelease = Callable[..., None]


@pytest.fixture
def add_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddRelease:
    """`add_release(name, version, *requires)` adds a package to the only index that uv reads."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(index))

    def add(name: str, version: str, *requires: str) -> None:
        folder = f"{name}-{version}.dist-info"
        metadata = [
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
            *map("Requires-Dist: {}".format, requires),
        ]
        with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{folder}/METADATA", "\n".join(metadata))
            wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{folder}/RECORD", "")

    return add


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository in which `make pins` runs: what it reads and writes."""
    (tmp_path / "forge" / "template").mkdir(parents=True)
    (tmp_path / "forge" / "template" / "pyproject.toml.jinja").write_text(TEMPLATE, encoding="utf-8")
    (tmp_path / "forge" / "pyproject.toml").write_text(OWN, encoding="utf-8")
    (tmp_path / "forge" / "pins.toml.jinja").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "forge")
    return tmp_path / "forge"


def test_pins_are_the_newest_within_the_bounds_below_the_answers_that_need_them(
    add_release: AddRelease, repository: Path
) -> None:
    for version in ("1.0", "1.9", "2.1", "3.0"):
        add_release("web", version, "shared")
    add_release("shared", "4.0")
    add_release("jobs", "5.7", "transport", "shared", "colours ; sys_platform == 'win32'")
    add_release("transport", "2.0", "names")
    add_release("colours", "0.4")
    add_release("names", "1.1")
    changes = pins.refresh(repository)
    assert (repository / "pins.toml.jinja").read_text(encoding="utf-8").removeprefix(pins.HEADER) == (
        """
  "shared==4.0",
  "web==1.9",
{%- if accounts_on or celery_on or email_on %}
  "names==1.1",
{%- endif %}
{%- if celery_on %}
  "colours==0.4 ; sys_platform == 'win32'",
  "jobs==5.7",
  "transport==2.0",
{%- endif %}
"""
    )
    expected = OWN.replace('    "web==1.0",', '    "shared==4.0",\n    "web==2.1",')
    assert (repository / "pyproject.toml").read_text(encoding="utf-8") == expected
    assert {"- web==1.0", "+ web==2.1", "+ jobs==5.7"} <= set(changes)
    assert pins.refresh(repository) == []


def test_bounds_that_allow_no_set_of_versions_change_nothing(
    add_release: AddRelease, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    add_release("web", "1.0")
    add_release("names", "1.0")
    add_release("jobs", "5.0", "web>=2")
    with pytest.raises(SystemExit, match="Nothing was written"):
        pins.refresh(repository)
    assert "jobs" in capfd.readouterr().err
    assert (repository / "pyproject.toml").read_text(encoding="utf-8") == OWN


def test_a_condition_that_cannot_be_copied_is_refused() -> None:
    with pytest.raises(SystemExit, match="elif b"):
        list(pins.requirements('\ndependencies = [\n{%- if a %}\n  "x>=1",\n{%- elif b %}\n  "y>=1",\n{%- endif %}\n]'))


@pytest.mark.parametrize(
    ("profile", "database"), list(product(["minimal", "standard", "production"], ["postgresql", "mysql", "sqlite"]))
)
def test_each_requirement_of_a_project_has_a_pin_within_its_bounds(
    render: Renderer, profile: str, database: str
) -> None:
    project = tomllib.loads((render({"profile": profile, "database": database}) / "pyproject.toml").read_text("utf-8"))
    pinned = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in map(Requirement, project["tool"]["uv"]["constraint-dependencies"])
    }
    for required in map(Requirement, [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]):
        assert required.specifier.contains(pinned[canonicalize_name(required.name)]), required


@pytest.mark.parametrize("changes", [[], ["+ web==2.1"]])
@pytest.mark.parametrize("fails", [False, True])
def test_the_command_ends_with_the_result_of_the_tests(
    changes: list[str], fails: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = []

    def attempt(command: list[str], folder: Path) -> Failure | None:
        ran.append(command)
        return Failure(" ".join(command), "1 failed") if fails else None

    monkeypatch.setattr(sys, "argv", ["pins.py", "--report", str(tmp_path / "report.md")])
    monkeypatch.setattr("pins.refresh", lambda root: changes)
    monkeypatch.setattr("pins.attempt", attempt)
    with pytest.raises(SystemExit) as ended:
        pins.main()
    assert (ended.value.code, ran) == (fails and bool(changes), [["make", "check", "test"]] if changes else [])
    written = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert ("1 failed" in written, "`+ web==2.1`" in written) == (fails and bool(changes), bool(changes))


PROJECT = """\
[project]
name = "project"
version = "1"
requires-python = ">=3.11"
dependencies = [
  "web>=1,<2",
  "jobs[fast]>=5.1,<6 ; python_version < '99'",
]

[tool.uv]
constraint-dependencies = [
  "web==1.0",
]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with bounds, whose checks fail with a new version of `web`."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (folder / "Makefile").write_text("check:\n\t@! grep -A1 web uv.lock | grep '3.0'\ntest:\n\t@echo tested\n")
    return folder


def test_beyond_the_bounds_is_what_they_keep_away(add_release: AddRelease, project: Path) -> None:
    for version in ("1.0", "1.9", "3.0"):
        add_release("web", version)
    add_release("jobs", "5.7")
    changes, failures = beyond.try_newest(project, ["check", "test"])
    # Within the bounds, `make pins` moves.
    assert changes == ["- web: 1.9 → 3.0"]
    assert [failure.command for failure in failures] == ["make check"]
    assert 'version = "3.0"' in failures[0].output


def test_nothing_is_run_where_nothing_is_beyond_the_bounds(add_release: AddRelease, project: Path) -> None:
    add_release("web", "1.9")
    add_release("jobs", "5.7")
    assert beyond.try_newest(project, ["there-is-no-such-target"]) == ([], [])


def test_versions_that_exclude_each_other_are_reported(add_release: AddRelease, project: Path) -> None:
    add_release("web", "1.9")
    add_release("jobs", "5.7", "web>=2")
    changes, [failure] = beyond.try_newest(project, ["check"])
    assert (changes, failure.command) == ([], "uv lock --quiet")
    assert "web>=2" in failure.output


def test_a_template_has_no_upper_bound_left(render: Renderer) -> None:
    pyproject = (render({"profile": "production"}) / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(beyond.without_upper_bounds(beyond.without_pins(pyproject)))
    required = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    assert {one.operator for text in required for one in Requirement(text).specifier} == {">="}
    assert "constraint-dependencies" not in project["tool"]["uv"]


def test_a_command_that_leaves_a_process_running_is_reported_when_it_ends(tmp_path: Path) -> None:
    started = time.monotonic()
    failure = attempt(["sh", "-c", "sleep 600 & echo 1 failed; exit 1"], tmp_path)
    assert failure == Failure("sh -c sleep 600 & echo 1 failed; exit 1", "1 failed\n")
    assert time.monotonic() - started < 9, "the process was not killed: it kept the pipe open"


def test_a_command_that_does_not_end_is_killed_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attempts.LIMIT", 1.0)
    failure = attempt(["sh", "-c", "echo started; sleep 600"], tmp_path)
    assert failure
    assert failure.output == "started\nKilled after 1 s.\n"


def test_the_workflow_proposes_the_pins_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that runs packages hands a patch over to the job that may write."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "pins.yml").read_text(encoding="utf-8"))["jobs"]

    def run_step(job: str, name: str, folder: Path) -> None:
        [script] = [step["run"] for step in jobs[job]["steps"] if step["name"] == name]
        subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=folder, check=True)

    remote, tested, fresh = (tmp_path / name for name in ("forge.git", "tested", "fresh"))
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(tested))
    pinned = ["pins.toml.jinja", "pyproject.toml"]
    for name in (*pinned, "Makefile"):
        (tested / name).write_text("one\n\nthree\n", encoding="utf-8")
    git(tested, "add", "--all")
    git(tested, "commit", "--quiet", "--message", "One")
    git(tmp_path, "clone", "--quiet", "--bare", str(tested), str(remote))
    git(tmp_path, "clone", "--quiet", str(remote), str(fresh))
    for name in pinned:
        (tested / name).write_text("two\n\nthree\n", encoding="utf-8")
    (tested / "Makefile").write_text("evil\n", encoding="utf-8")
    (tmp_path / "report.md").write_text("Pins that changed:\n\n- a\n", encoding="utf-8")
    gh = tmp_path / "gh"
    gh.write_text('#!/bin/sh\nfor last; do :; done\necho 0 && echo "$last" > $GH_SAID\n', encoding="utf-8")
    gh.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "GH_SAID": str(tmp_path / "said"),
        "GH_TOKEN": "x",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_REPOSITORY": "forge.git",
        "GITHUB_SERVER_URL": str(tmp_path),
        "RUNNER_TEMP": str(tmp_path),
        **jobs["propose"]["env"],
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run_step("refresh", "Pass the report and the patch on", tested)
    outputs = re.findall(r"^(\w+)<<(\w+)\n(.*?)\n\2$", (tmp_path / "output").read_text("utf-8"), re.M | re.S)
    for name, _, value in outputs:
        monkeypatch.setenv(name.upper(), value)
    run_step("propose", "Open a pull request", fresh)
    assert git(remote, "diff", "--name-only", "main", "pins").split() == pinned
    assert git(remote, "show", "pins:pyproject.toml") == "two\n\nthree\n"
    assert (tmp_path / "said").read_text(encoding="utf-8") == "Pins that changed:\n\n- a\n"


def test_a_report_shows_output_that_has_fences_of_its_own() -> None:
    result = report([Failure("make test", "a\n```\nb\n")], "Changed:", ["- web: 1 → 2"])
    assert result == "`make test` failed:\n\n````text\na\n```\nb\n````\n\nChanged:\n\n- web: 1 → 2\n"
