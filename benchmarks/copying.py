"""CPU time of `copier copy` of Forge beside that of a bare template with as many files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.commands import cpu_seconds
from benchmarks.context import Context
from benchmarks.environments import copy
from benchmarks.parts import Metric, Part
from benchmarks.results import Result
from forge_template import clone_working_tree, commit_tree, project_environment, working_files

_WHAT = """\
CPU time of `copier copy` with default answers. The bare template writes the same files with the same content: it has one question,
no extension, and as many files with Jinja as Forge. The aim is a ratio of 1.2."""
_BASELINE = "bare template"
_FORGE = "Forge"
_CONFIG = "_subdirectory: template\n_min_copier_version: '9.0.0'\nname:\n  type: str\n  default: bare\n"


def bare_template(rendered: Path, folder: Path, with_jinja: int) -> Path:
    """Write a template of the files of a project, `with_jinja` of which Copier renders."""
    files = sorted(path for path in rendered.rglob("*") if path.is_file() and ".git" not in path.parts)
    for number, path in enumerate(files):
        target = folder / "template" / path.relative_to(rendered)
        target.parent.mkdir(parents=True, exist_ok=True)
        if number < with_jinja:
            text = path.read_text(encoding="utf-8")
            target.with_name(f"{target.name}.jinja").write_text(
                "{% raw %}" + text + "{% endraw %}{# {{ name }} #}\n", encoding="utf-8"
            )
        else:
            shutil.copy2(path, target)
    (folder / "copier.yml").write_text(_CONFIG, encoding="utf-8")
    commit_tree(folder, "A bare template", "v1.0.0")
    return folder


def _run(context: Context) -> Result:
    result = Result.new("copying", quick=context.quick)
    forge = clone_working_tree(context.scratch / "forge")
    copy(forge, context.scratch / "rendered")
    with_jinja = sum(name.endswith(".jinja") for name in working_files("template"))
    bare = bare_template(context.scratch / "rendered", context.scratch / "bare", with_jinja)
    settings = context.scratch / "settings.yml"
    variables = {"COPIER_CACHE_DIR": str(context.scratch / "cache"), "COPIER_SETTINGS_PATH": str(settings)}
    environment = project_environment(variables)
    for turn in range(context.turns(7) + 1):
        for name, template in ((_BASELINE, bare), (_FORGE, forge)):
            target = context.scratch / f"copy-{turn}-{template.name}"
            options = ["--trust", "--defaults", "--quiet", "--vcs-ref", "HEAD"]
            command = [sys.executable, "-m", "copier", "copy", *options, str(template), str(target)]
            taken = cpu_seconds(command, context.scratch, context.scratch / "copy.log", environment)
            # The first round is not counted: Python compiles modules in it.
            if turn:
                files = sum(path.is_file() for path in target.rglob("*"))
                result.add("", name, "cpu", taken)
                result.add("", name, "files", files)
                context.say(f"  {name}: {taken:.2f} s CPU, {files} files")
    return result


_METRICS = (Metric("cpu", "CPU, s", 2, ratio=True), Metric("files", "files", 0))
PART = Part("copying", "copier copy", _WHAT, _METRICS, _BASELINE, _run)
