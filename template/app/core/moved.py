"""Deprecated names of earlier releases. They work for one more minor release and warn with their new place."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved_attributes(owner: str, moved: Mapping[str, str]) -> Callable[..., Any]:
    """Return a `__getattr__` for a module or a class whose attributes have moved.

    Args:
        owner: the old place, for the warning.
        moved: the new dotted name of each old attribute.
    """

    def get(*arguments: Any) -> Any:
        name = arguments[-1]
        if name not in moved:
            raise AttributeError(f"{owner} has no attribute {name!r}")
        module, _, attribute = moved[name].rpartition(".")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError:
            # This project does not have the feature.
            raise AttributeError(f"{owner} has no attribute {name!r}") from None
        warnings.warn(f"{owner}.{name} is now {moved[name]}", DeprecationWarning, stacklevel=2)
        return found

    return get
