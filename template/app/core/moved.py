"""Names of earlier releases: they work for one more release, with a DeprecationWarning that says where they are now."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved_attributes(owner: str, moved: Mapping[str, str]) -> Callable[..., Any]:
    """Return a `__getattr__` for a module or a class whose attributes have moved.

    Args:
        owner: how the old place is called in the warning.
        moved: the dotted name of the new place, by the old attribute.
    """

    def get(*arguments: Any) -> Any:
        name = arguments[-1]
        if name not in moved:
            raise AttributeError(f"{owner} has no attribute {name!r}")
        module, _, attribute = moved[name].rpartition(".")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError:
            # A feature that this project does not have.
            raise AttributeError(f"{owner} has no attribute {name!r}") from None
        warnings.warn(f"{owner}.{name} is now {moved[name]}", DeprecationWarning, stacklevel=2)
        return found

    return get
