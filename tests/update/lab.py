"""Two made-up releases on top of the working tree: what a release can do to files and questions, each to a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tests.update.world import World

OLD, NEW = "v8.0.0", "v9.0.0"
LAB = "docs/lab"
FLOWER = "{% if use_flower %}flower.txt{% endif %}"
TEXTS = (
    "far.txt",
    "same.txt",
    "adjacent.txt",
    "dropped.txt",
    "untouched.txt",
    "renamed.txt",
    "moved.txt",
    "folder/a.txt",
    "folder/b.txt",
    "deleted.txt",
    "crlf.txt",
    "excluded.txt",
    "script.txt",
    "a name, ä.txt",
    "link.txt",
    FLOWER,
)
# What a person answers that the later release no longer takes as it is.
ANSWERS: Mapping[str, object] = MappingProxyType({"gone": True, "colour": "red", "old_name": "mine", "size": "huge"})
_OLD_QUESTIONS = """
gone: {type: bool, default: false}
colour: {type: str, choices: [red, green], default: green}
old_name: {type: str, default: theirs}
size: {type: str, default: small}
"""
_NEW_QUESTIONS = """
colour: {type: str, choices: [blue, green], default: green}
new_name: {type: str, default: theirs}
size: {type: str, default: small, validator: "{% if size == 'huge' %}too large{% endif %}"}
added: {type: bool, default: false}
_exclude: [docs/lab/excluded.txt]
"""
_RELEASE = '''"""9.0.0: made up."""

from engine.release import Release

RELEASE = Release(
    "9.0.0",
    moved={"docs/lab/renamed.txt": "docs/lab/called otherwise.txt"},
    answers=lambda old: {"new_name": old.get("old_name", "theirs"), **old},
    renamed={"OLD_SETTING": "NEW_SETTING"},
    changes=("Flower is green.",),
    steps=("Paint it.",),
)
'''


def numbered(name: str, changes: Mapping[int, str] = MappingProxyType({})) -> str:
    """Return thirty lines, some of them changed."""
    return "".join(f"{changes.get(number, f'{name} {number}')}\n" for number in range(1, 31))


def block(name: str, health: str = "ask") -> str:
    """Return one of many blocks that are nearly the same, as services of compose are."""
    return f"  {name}:\n    image: app\n    restart: always\n    health: {health}\n\n"


def old_release(template: Path) -> None:
    """Write the files and ask the questions."""
    folder = template / "template" / "docs" / "lab"
    for name in TEXTS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(numbered(path.stem), encoding="utf-8")
    (folder / "logo.bin").write_bytes(bytes(range(256)) * 8)
    (folder / "stack.yml").write_text(block("api") + block("worker") + block("beat"), encoding="utf-8")
    (folder / "answers.txt.jinja").write_text("{{ colour }} {{ old_name }} {{ size }}\n", encoding="utf-8")
    _append(template / "copier.yml", _OLD_QUESTIONS)
    for name in (".env.development", "env.development.example"):
        _append(template / "template" / "secret" / f"{name}.jinja", "GOES=1\n")


def new_release(template: Path) -> None:
    """Change, drop, rename and add."""
    folder = template / "template" / "docs" / "lab"
    changed = ("same.txt", "adjacent.txt", "far.txt", "renamed.txt", "moved.txt", "folder/a.txt", "deleted.txt")
    for name in (*changed, "crlf.txt", "script.txt", "a name, ä.txt", "link.txt", FLOWER):
        path = folder / name
        line = 2 if name == "far.txt" else 10
        path.write_text(numbered(path.stem, {line: "theirs"}), encoding="utf-8")
    for name in ("dropped.txt", "untouched.txt"):
        (folder / name).unlink()
    (folder / "renamed.txt").rename(folder / "called otherwise.txt")
    (folder / "folder" / "c.txt").write_text(numbered("c"), encoding="utf-8")
    (folder / "both.txt").write_text("theirs\n", encoding="utf-8")
    (folder / "logo.bin").write_bytes(bytes(range(255, -1, -1)) * 8)
    (folder / "stack.yml").write_text(
        block("proxy") + block("api") + block("worker") + block("beat", "look"), encoding="utf-8"
    )
    (folder / "answers.txt.jinja").write_text("{{ colour }} {{ new_name }} {{ size }}\n", encoding="utf-8")
    config = template / "copier.yml"
    config.write_text(config.read_text(encoding="utf-8").replace(_OLD_QUESTIONS, _NEW_QUESTIONS), encoding="utf-8")
    for name in (".env.development", "env.development.example"):
        path = template / "template" / "secret" / f"{name}.jinja"
        text = path.read_text(encoding="utf-8").replace("GOES=1\n", "# What comes.\nCOMES=2\n")
        path.write_text(text, encoding="utf-8")
    tasks = template / "template" / "app" / "{% if celery_on %}tasks{% endif %}"
    _append(tasks / "example_tasks.py", "# The release's.\n")
    (tasks / "{% if beat_on %}example_schedule.py{% endif %}").unlink()
    _append(
        template / "template" / "tests" / "{% if celery_on %}test_example_tasks.py{% endif %}", "# The release's.\n"
    )
    (template / "migrations" / "releases" / "v9_0_0.py").write_text(_RELEASE, encoding="utf-8")


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def lab(folder: Path) -> World:
    """Return the world with both."""
    world = World(folder)
    world.release(OLD, old_release)
    world.release(NEW, new_release)
    return world
