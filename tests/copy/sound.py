"""What every rendered project must be, whatever the answers."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

_JINJA = ("{{", "{%", "{#")
# Templates of mails and of the operators' page are Jinja for the application itself; a GitHub workflow, Grafana and Prometheus have expressions of their own.
_JINJA_OF_THEIR_OWN = re.compile(
    r"^app/(features/email/)?templates/|^app/features/tasks/platform/(ui/templates|schedule)/.*\.html$|^\.github/workflows/|^migrations/script\.py\.mako$|^observability/(grafana|rules)/"
)
_WORKFLOW_EXPRESSION = re.compile(r"\$\{\{.*?\}\}")
_PLACEHOLDER = "<random:"
_CLEAN_NAME = re.compile(r"[A-Za-z0-9._/-]+")


class _Yaml(yaml.SafeLoader):
    """Knows the tags by which a compose file takes back what another says."""


_Yaml.add_multi_constructor("!", lambda *_: None)


def files(project: Path) -> list[str]:
    """Return the paths of a rendered project's files, relative and with slashes."""
    return sorted(
        path.relative_to(project).as_posix()
        for path in project.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(project).parts
    )


def ruff(project: Path, *arguments: str) -> str:
    """Run ruff with the project's own rules; return its complaints, if it has any."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode else ""


def problems(project: Path) -> list[str]:
    """Return what is wrong with a rendered project: names, leftover Jinja, secrets without a value, syntax, format, lint."""
    found: list[str] = []
    for name in files(project):
        path = project / name
        if not _CLEAN_NAME.fullmatch(name):
            found.append(f"{name!r}: not a clean file name")
        text = path.read_text(encoding="utf-8")
        visible = _WORKFLOW_EXPRESSION.sub("", text) if name.startswith(".github/") else text
        if name.startswith(".github/") or not _JINJA_OF_THEIR_OWN.search(name):
            found.extend(f"{name}: leftover {mark}" for mark in _JINJA if mark in visible)
        if name.startswith("secret/.env.") and _PLACEHOLDER in text:
            found.append(f"{name}: a secret without a value")
        if text and not text.endswith("\n"):
            found.append(f"{name}: no newline at its end")
        if text.endswith("\n\n"):
            found.append(f"{name}: empty lines at its end")
        try:
            _parse(name, text)
        except (SyntaxError, ValueError, yaml.YAMLError) as error:
            found.append(f"{name}: {error}")
    found.extend(filter(None, [ruff(project, "format", "--check"), ruff(project, "check")]))
    return found


def _parse(name: str, text: str) -> None:
    """Parse a file as what its name says; raises on a mistake in it."""
    if name.endswith(".py"):
        ast.parse(text, name)
    elif name.endswith(".toml"):
        tomllib.loads(text)
    elif name.endswith((".yml", ".yaml")):
        list(yaml.load_all(text, Loader=_Yaml))
    elif name.endswith(".json"):
        json.loads(text)
