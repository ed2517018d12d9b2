"""Finds the task modules."""

from pathlib import Path

_TASKS = Path(__file__).resolve().parent.parent / "tasks"


def task_modules(folder: Path = _TASKS, package: str = "app.tasks") -> list[str]:
    """Return the dotted names of all modules below `folder`, nested ones too, sorted.

    From the file names alone: importing is left to Celery, which does it once the application is configured.
    """
    names = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[-1] != "__init__" and all(part.isidentifier() for part in parts):
            names.append(".".join((package, *parts)))
    return names
