"""Isolation from this machine's settings, a clean clone of the working tree, and one way to render it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Before Copier is imported, because plumbum copies the environment then: no settings of the person who runs the tests,
# neither git's (signing, line endings, templates) nor Copier's (trust, defaults), may reach them.
_HOME = Path(tempfile.mkdtemp(prefix="forge-tests-"))
(_HOME / "settings.yml").write_text("{}\n", encoding="utf-8")
(_HOME / "gitconfig").write_text(
    "[user]\n\tname = Tester\n\temail = tester@example.com\n[safe]\n\tdirectory = *\n", encoding="utf-8"
)
os.environ.update(
    COPIER_CACHE_DIR=str(_HOME / "cache"),
    COPIER_SETTINGS_PATH=str(_HOME / "settings.yml"),
    GIT_CONFIG_GLOBAL=str(_HOME / "gitconfig"),
    GIT_CONFIG_SYSTEM=os.devnull,
    GIT_CONFIG_NOSYSTEM="1",
    GIT_TERMINAL_PROMPT="0",
)
for _name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
    os.environ.pop(_name, None)

pytest_plugins = ["pytest_copie.plugin"]

import hashlib  # noqa: E402
import json  # noqa: E402
import shutil  # noqa: E402
from collections.abc import Callable, Iterator, Mapping  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from typing import Any  # noqa: E402

import copier  # noqa: E402
import pytest  # noqa: E402
import questionary  # noqa: E402
import yaml  # noqa: E402
from filelock import FileLock  # noqa: E402
from prompt_toolkit.application import create_app_session  # noqa: E402
from prompt_toolkit.input import create_pipe_input  # noqa: E402
from prompt_toolkit.output import DummyOutput  # noqa: E402

from forge_template import ROOT, clone_working_tree  # noqa: E402
from tests.quick_copier import quicken  # noqa: E402

quicken()

Answers = Mapping[str, Any]


def pytest_unconfigure() -> None:
    """Leave nothing in the temporary folder."""
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def questions() -> dict[str, dict[str, Any]]:
    """The questions of copier.yml, computed ones included."""
    config = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    return {name: question for name, question in config.items() if not name.startswith("_")}


@pytest.fixture(scope="session")
def asked(questions: dict[str, dict[str, Any]]) -> set[str]:
    """The names of the questions whose answers are recorded: all but the computed ones and the last, which confirms."""
    return {
        name for name, question in questions.items() if question.get("when") is not False and not question.get("secret")
    }


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes of this run share, for what takes long to make."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(target: Path, make: Callable[[Path], object]) -> Path:
    """Return `target`, which the first of the test processes makes and the others wait for."""
    done = target.with_name(f"{target.name}.done")
    with FileLock(f"{target}.lock"):
        if not done.exists():
            make(target)
            done.touch()
    return target


@pytest.fixture(scope="session")
def template(shared: Path) -> Path:
    """A git repository of the template as the working tree has it."""
    return made_once(shared / "forge", clone_working_tree)


class Renderer:
    """Renders the template in this process; the same answers are rendered once in all of them."""

    def __init__(self, template: Path, asked: set[str], shared: Path, scratch: Path) -> None:
        self._template = template
        self._asked = asked
        self._shared = shared
        self._scratch = scratch
        self._count = 0

    def __call__(self, answers: Answers | None = None) -> Path:
        """Return a project with these answers, and the defaults of the others. Shared: read it, do not write to it."""
        key = hashlib.sha256(json.dumps(dict(answers or {}), sort_keys=True).encode()).hexdigest()[:16]
        folder = self._shared / f"rendered-{key}"
        return made_once(folder, lambda target: self.fresh(answers, target / "project")) / "project"

    def fresh(self, answers: Answers | None = None, target: Path | None = None) -> Path:
        """Render a project that is the caller's alone."""
        given = dict(answers or {})
        # Copier ignores an answer to no question without a word; a test with a misspelled name would test the defaults.
        unknown = sorted(set(given) - self._asked)
        if unknown:
            raise ValueError(f"copier.yml asks no such questions: {', '.join(unknown)}")
        self._count += 1
        project = target or self._scratch / f"{self._count:03d}" / "project"
        copier.run_copy(
            str(self._template),
            project,
            data=given,
            vcs_ref="HEAD",
            defaults=True,
            unsafe=True,
            quiet=True,
        )
        return project


@pytest.fixture(scope="session")
def render(template: Path, asked: set[str], shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    """`render(answers)` gives the folder of a project, `render.fresh(answers)` one of its own."""
    return Renderer(template, asked, shared, tmp_path_factory.mktemp("rendered"))


@dataclass
class Keyboard:
    """Answers each question of Copier with `keys[name]` and Enter, and keeps in `shown` what the terminal shows."""

    keys: dict[str, str] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)

    def answer(self, structures: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """Take the place of the function that Copier calls for a question."""
        (structure,) = structures
        # Copier passes computed values too, which questionary then skips.
        if structure["when"]({}):
            self.shown[structure["name"]] = f"{structure['qmark']} {structure['message'].rstrip()}"
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            pipe.send_text(self.keys.get(structure["name"], "") + "\r")
            return questionary.unsafe_prompt(structures, **options)


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Keyboard:
    """The keyboard of the person who runs Copier in this process."""
    pressed = Keyboard()
    monkeypatch.setattr("copier._main.unsafe_prompt", pressed.answer)
    return pressed


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose path is short: PostgreSQL's sockets have room for about a hundred characters."""
    folder = Path(tempfile.mkdtemp(prefix="forge-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
