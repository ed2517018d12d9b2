"""What Copier runs before and after it updates a project: `python migrations STAGE ...`, see copier.yml."""

from __future__ import annotations

import argparse
import atexit
import gc
import json
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from engine.problem import UNDO, Problem
from engine.project import Project
from engine.release import between
from engine.update import Update
from engine.versions import release_of
from releases import all_releases


@dataclass(frozen=True)
class Stage:
    """A stage: the module that runs it, what it reads and writes, and how that is undone."""

    module: str
    reads: str
    writes: str
    undo: str


STAGES = {
    "before": Stage(
        "engine.before",
        reads="the state of the repository, the answers file and its history, --data, the new release's copier.yml",
        writes="the snapshot in .git/forge-update/, the answers file in the work tree",
        undo=UNDO,
    ),
    "after": Stage(
        "engine.after",
        reads="the snapshot, HEAD, the answers as Copier wrote them, refs/forge/base/, the template at both versions",
        writes="the work tree and the index, new settings in secret/.env.*, refs/forge/, .git/forge-update/report.txt",
        undo=f"{UNDO}; settings that were added to secret/.env.* stay",
    ),
}


def main() -> None:
    """Run a stage. A problem is printed in plain words and ends with 1."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--answers-file", required=True)
    parser.add_argument("--source", required=True, type=Path, help="the template's clone")
    parser.add_argument("--conflict", choices=["inline", "rej"], default="inline")
    parser.add_argument("--given", default="[]", help="what --data answers, NAME=VALUE each, as JSON")
    options = parser.parse_args()
    # The process is short: collecting its garbage, now or when it ends, would be a tenth of its work.
    gc.disable()
    atexit.register(gc.freeze)
    try:
        old, new = (
            release_of(options.source, os.environ[f"VERSION_{end}"], os.environ[f"VERSION_PEP440_{end}"])
            for end in ("FROM", "TO")
        )
        # Each stage imports only what it needs: most of this process's time is imports.
        import_module(STAGES[options.stage].module).run(
            Update(
                project=Project.at(Path.cwd(), options.answers_file),
                source=options.source,
                version_from=os.environ["VERSION_FROM"],
                version_to=os.environ["VERSION_TO"],
                old=old,
                new=new,
                releases=between(all_releases(), old, new),
                conflict=options.conflict,
                given=dict(answer.split("=", 1) for answer in json.loads(options.given)),
            )
        )
    except Problem as problem:
        print(f"\nforge: {problem}\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
