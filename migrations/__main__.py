"""Runs before and after every `copier update`: `python migrations before|after ...`, see copier.yml.

Before: refuse what would go wrong, save what git does not keep, bring the answers up to date. After: replace Copier's own
patching by git's merge of the old render, the project and the new render.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import preflight
from problem import UNDO, Problem
from project import Project
from releases import between
from versions import release_of


def main() -> None:
    """Run a stage; a problem is printed in plain words and ends with 1, before anything is touched where it can be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["before", "after"])
    parser.add_argument("--answers-file", required=True)
    parser.add_argument("--source", required=True, help="the template's clone")
    parser.add_argument("--conflict", choices=["inline", "rej"], default="inline")
    parser.add_argument("--given", default="[]", help="what --data answers, NAME=VALUE each, as JSON")
    given = parser.parse_args()
    try:
        project = Project.at(Path.cwd(), given.answers_file)
        source = Path(given.source)
        old, new = (
            release_of(source, os.environ[f"VERSION_{end}"], os.environ[f"VERSION_PEP440_{end}"])
            for end in ("FROM", "TO")
        )
        releases = between(old, new)
        if given.stage == "before":
            preflight.check(project, source, dict(one.split("=", 1) for one in json.loads(given.given)))
            print(
                f"forge: should this update be interrupted: {UNDO}, then run it again. Git may first ask you to delete the "
                "lock of its own that a killed process left.",
                file=sys.stderr,
            )
            project.remember(os.environ["VERSION_FROM"])
            project.rewrite_answers(releases)
        else:
            # Importing Copier takes half a second, which a refusal in the stage before need not pay.
            import update

            update.run(project, source, given.conflict, releases, (old, new))
    except Problem as problem:
        print(f"\nforge: {problem}\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
