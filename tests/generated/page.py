"""Follows docs/features.md of a project as its reader does."""

from __future__ import annotations

import re
from pathlib import Path

from forge_template import git, run

LIMIT = 300.0
# Run by the tests that call this: see tests/generated/test_life.py.
LATER = ("make check", "make test")
# Needs a running database; the project's tests apply the revision to theirs.
WITH_SERVERS = ("make migrate",)


def follow_features_page(project: Path, python: str) -> None:
    """Write each file that the page shows, run its commands, and commit the feature."""
    text = (project / "docs" / "features.md").read_text(encoding="utf-8")
    steps = re.findall(
        r"^`([\w/.]+)`(, at the end)?:\n\n```\w+\n(.*?)^```$|^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    written = 0
    for name, at_the_end, content, commands in steps:
        if name:
            target = project / name
            target.parent.mkdir(parents=True, exist_ok=True)
            assert bool(at_the_end) == target.exists(), name
            with target.open("a", encoding="utf-8") as file:
                file.write(content)
            written += 1
        for command in commands.splitlines():
            if command in LATER + WITH_SERVERS:
                continue
            run(["bash", "-c", command], project, {"UV_PYTHON": python}, timeout=LIMIT)
    assert written >= 9, f"the page shows {written} files"
    assert len(list((project / "migrations" / "app").glob("*_add_orders.py"))) == 1
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--no-verify", "--message", "Add orders")
