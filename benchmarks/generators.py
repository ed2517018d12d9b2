"""How long generators of applications with background tasks take, and how many files they write."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import cpu_seconds
from benchmarks.context import Context, Failed
from benchmarks.environments import peers, pinned_versions
from benchmarks.parts import Metric, Part
from benchmarks.results import Result
from forge_template import clone_working_tree, project_environment

_WHAT = """\
What each generator writes with a queue, a scheduler and a database, and without a frontend: files (without those of
git and of virtual environments), CPU time of all processes, and wall time. Forge's row is the standard profile. fastapi-fullstack
formats what it has written. aegis-stack and cookiecutter-django get their templates from GitHub, and aegis-stack also installs
the packages of the project: they are left out where a machine cannot reach what they need."""
_FORGE = "Forge"
_NOT_FILES = {".git", ".venv", "node_modules", "__pycache__"}


@dataclass(frozen=True)
class Generator:
    """One way to write a project into a folder."""

    name: str
    command: Callable[[Path], list[str]]


def generators(forge: Path, programs: Path) -> list[Generator]:
    """Return all generators; `forge` is a clone of this repository, `programs` the folder of the others' programs."""
    copier = [
        sys.executable,
        "-m",
        "copier",
        "copy",
        "--trust",
        "--defaults",
        "--quiet",
        "--vcs-ref",
        "HEAD",
        str(forge),
    ]
    fullstack = "--database postgresql --frontend none --ai-framework none --redis --task-queue celery --kubernetes --prometheus"
    aegis = "--components redis,worker,scheduler,database --no-interactive --yes"
    django = "gh:cookiecutter/cookiecutter-django --checkout 2026.8.18 --no-input use_celery=y use_async=y rest_api=DRF ci_tool=Github"
    return [
        Generator(_FORGE, lambda target: [*copier, str(target / "app")]),
        Generator(
            "fastapi-fullstack",
            lambda target: [
                str(programs / "fastapi-fullstack"),
                "create",
                "my_project",
                "--output",
                str(target),
                *fullstack.split(),
            ],
        ),
        Generator(
            "aegis-stack",
            lambda target: [str(programs / "aegis"), "init", "my-app", "--output-dir", str(target), *aegis.split()],
        ),
        Generator(
            "cookiecutter-django",
            lambda target: [str(programs / "cookiecutter"), "--output-dir", str(target), *django.split()],
        ),
    ]


def files(folder: Path) -> int:
    """Return how many files a generator has written."""
    return sum(path.is_file() and not _NOT_FILES & set(path.relative_to(folder).parts) for path in folder.rglob("*"))


def _run(context: Context) -> Result:
    result = Result.new("generators", quick=context.quick)
    programs = peers("generators").python.parent
    result.versions = pinned_versions("fastapi-fullstack", "aegis-stack", "cookiecutter")
    settings = context.scratch / "settings.yml"
    variables = {"COPIER_CACHE_DIR": str(context.scratch / "cache"), "COPIER_SETTINGS_PATH": str(settings)}
    environment = project_environment(variables)
    measured = generators(clone_working_tree(context.scratch / "forge"), programs)
    for turn in range(context.turns(3) + 1):
        for one in list(measured):
            target = context.scratch / "generated"
            target.mkdir()
            began = time.monotonic()
            try:
                cpu = cpu_seconds(one.command(target), context.scratch, context.scratch / "generator.log", environment)
            except Failed as error:
                if one.name == _FORGE:
                    raise
                context.say(f"  {one.name}: not measured: {str(error).strip().splitlines()[-1]}")
                measured.remove(one)
            else:
                wall = time.monotonic() - began
                # The first round is not counted: Python compiles modules in it.
                if turn:
                    result.add("", one.name, "cpu", cpu)
                    result.add("", one.name, "wall", wall)
                    result.add("", one.name, "files", files(target))
                    context.say(f"  {one.name}: {cpu:.1f} s CPU, {wall:.1f} s, {files(target)} files")
            shutil.rmtree(target)
    return result


_METRICS = (Metric("cpu", "CPU, s", 1, ratio=True), Metric("wall", "wall time, s", 1), Metric("files", "files", 0))
PART = Part("generators", "Generators", _WHAT, _METRICS, _FORGE, _run)
