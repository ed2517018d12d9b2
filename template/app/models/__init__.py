"""Tables. A feature's are in its `models.py`; others can be modules of this package. `load_models` finds both."""

import importlib
import pkgutil

from app.core.discovery import load_feature_modules
from app.models.base import Base, UtcDateTime

__all__ = ["Base", "UtcDateTime", "load_models"]


def load_models() -> None:
    """Import every module with tables, so that `Base.metadata` has all of them."""
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    load_feature_modules("models")
