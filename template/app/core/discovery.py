"""Find task modules, commands and the modules of features by their file names."""

import importlib
from pathlib import Path
from types import ModuleType

_APP = Path(__file__).resolve().parent.parent


def task_modules(folder: Path = _APP / "tasks", package: str = "app.tasks") -> list[str]:
    """Return the dotted names of all modules below `folder`, including nested ones, sorted.

    Celery imports them after the application is configured.
    """
    return [name for path in sorted(folder.rglob("*.py")) if (name := _module_name(path, folder, package))]


def feature_modules(name: str, folder: Path = _APP / "features", package: str = "app.features") -> list[str]:
    """Return the dotted names of the modules called `name` in all features, including nested ones, sorted."""
    return [found for path in sorted(folder.rglob(f"{name}.py")) if (found := _module_name(path, folder, package))]


def load_feature_modules(name: str) -> list[ModuleType]:
    """Import the modules called `name` of all features and return them, sorted by name.

    An import error is raised: a broken feature must not be skipped silently.
    """
    return [importlib.import_module(module) for module in feature_modules(name)]


def command_modules(folder: Path = _APP / "cli" / "commands", package: str = "app.cli.commands") -> dict[str, str]:
    """Return the dotted names of all modules below `folder`, including nested ones, by the names of their commands, sorted.

    Raises:
        ValueError: two modules have the same name.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        module, name = _module_name(path, folder, package), path.stem.replace("_", "-")
        if module is None:
            continue
        if name in found:
            raise ValueError(f"{found[name]} and {module} are the same command; rename one of them.")
        found[name] = module
    return dict(sorted(found.items()))


def load_commands() -> dict[str, ModuleType]:
    """Import the modules of all commands and return them by the names of their commands."""
    return {name: importlib.import_module(module) for name, module in command_modules().items()}


def _module_name(path: Path, folder: Path, package: str) -> str | None:
    parts = path.relative_to(folder).with_suffix("").parts
    if parts[-1] == "__init__" or not all(part.isidentifier() for part in parts):
        return None
    return ".".join((package, *parts))
