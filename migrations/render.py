"""Renders a release with given answers, by Copier's public interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import copier


def render(source: Path, version: str, answers: Mapping[str, Any], answers_file: str, target: Path) -> None:
    """Write the project that `version` of the template gives for these answers to `target`."""
    copier.run_copy(
        str(source),
        target,
        data={name: value for name, value in answers.items() if not name.startswith("_")},
        answers_file=answers_file,
        vcs_ref=version,
        defaults=True,
        overwrite=True,
        quiet=True,
        skip_tasks=True,
        # The person has trusted the template: otherwise no migration would run.
        unsafe=True,
    )
