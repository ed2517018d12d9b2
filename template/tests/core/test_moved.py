"""Names of earlier releases still work, and warn."""

import importlib
import importlib.util
import sys

import pytest

from app.core.moved_modules import MOVED


def _is_here(name: str) -> bool:
    """Return whether this project has the module: its feature may be switched off."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("old", sorted(old for old, new in MOVED.items() if _is_here(new)))
def test_a_moved_module_is_the_one_with_the_new_name(old: str) -> None:
    new = importlib.import_module(MOVED[old])
    spec = new.__spec__
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}"):
        assert importlib.import_module(old) is new
    assert new.__spec__ is spec


def test_a_module_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"app\.services\.nothing"):
        importlib.import_module("app.services.nothing")


def test_settings_are_found_by_their_old_names() -> None:
    from app.core.config import settings
    from app.core.config.application import app_settings

    with pytest.warns(DeprecationWarning, match="settings.app is now app.core.config.application.app_settings"):
        assert settings.app is app_settings
    with pytest.raises(AttributeError, match="settings has no attribute 'nothing'"):
        settings.nothing  # noqa: B018
    with pytest.warns(DeprecationWarning, match="SettingsGroup"):
        assert importlib.import_module("app.core.config.base").BaseConcern
