"""The generated project, and the virtual environments of the peers; kept below .venv for the next run."""

from __future__ import annotations

import functools
import hashlib
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.context import CACHE, Failed
from forge_template import ROOT, clone_working_tree, project_environment, working_files

REQUIREMENTS = ROOT / "benchmarks" / "requirements"
# What a render of the working tree depends on.
_SOURCES = ("template", "extensions", "migrations", "copier.yml", "pins.toml.jinja", "CHANGELOG.md")


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folder that its programs run in."""

    name: str
    folder: Path
    python: Path

    def version(self, package: str) -> str:
        """Return the installed version of a package."""
        code = f"from importlib.metadata import version; print(version({package!r}))"
        return subprocess.run([self.python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    def python_version(self) -> str:
        """Return the version of its Python."""
        code = "import platform; print(platform.python_version())"
        return subprocess.run([self.python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def environment(name: str) -> Environment:
    """Return the environment `project`, `peers` or `arq`; it is made if it does not exist, once a run."""
    return project() if name == "project" else peers(name)


def peers(name: str) -> Environment:
    """Return the environment of `requirements/<name>.txt`, installed by uv."""
    requirements = REQUIREMENTS / f"{name}.txt"
    key = _digest(requirements.read_bytes() + platform.python_version().encode())
    folder = CACHE / f"{name}-{key}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        _forget(name)
        # Not below this repository, whose constraints uv would apply.
        outside = Path(folder.anchor)
        _run(["uv", "venv", "--quiet", "--python", sys.executable, str(folder)], outside)
        _run(["uv", "pip", "install", "--quiet", "--python", str(python), "--requirement", str(requirements)], outside)
        (folder / "complete").touch()
    return Environment(name, ROOT, python)


def project() -> Environment:
    """Return a project of the standard profile, rendered from the working tree and installed."""
    sources = [(name, (ROOT / name)) for name in working_files(*_SOURCES)]
    key = _digest(b"".join(name.encode() + path.read_bytes() for name, path in sources if path.is_file()))
    folder = CACHE / f"project-{key}"
    if not (folder / "complete").exists():
        _forget("project")
        template = clone_working_tree(folder / "template")
        copy(template, folder / "project")
        _run(["uv", "sync", "--quiet", "--python", sys.executable], folder / "project")
        (folder / "complete").touch()
    return Environment("project", folder / "project", folder / "project" / ".venv" / "bin" / "python")


def copy(template: Path, target: Path) -> None:
    """Copy a template with its default answers, as a user does, but without this machine's settings."""
    settings = template.parent / "settings.yml"
    settings.write_text("{}\n", encoding="utf-8")
    command = [sys.executable, "-m", "copier", "copy", "--trust", "--defaults", "--quiet", "--vcs-ref", "HEAD"]
    variables = {"COPIER_CACHE_DIR": str(template.parent / "cache"), "COPIER_SETTINGS_PATH": str(settings)}
    _run([*command, str(template), str(target)], template.parent, variables)


def pinned_versions(*names: str) -> dict[str, str]:
    """Return the pinned versions of packages from the requirements of the peers."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(REQUIREMENTS.glob("*.txt")))
    pins = dict(re.findall(r"^([\w.-]+)(?:\[.*?\])?==(\S+)$", text, re.MULTILINE))
    return {name: pins[name] for name in names}


def _forget(name: str) -> None:
    """Remove what earlier versions of the sources or requirements left."""
    for old in CACHE.glob(f"{name}-*"):
        shutil.rmtree(old)
    CACHE.mkdir(parents=True, exist_ok=True)


def _run(command: list[str], folder: Path, variables: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=project_environment(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
