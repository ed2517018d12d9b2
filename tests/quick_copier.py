"""Copier as it is, but for two things that take two thirds of a copy's time and change nothing here.

It compiles each name and each file again at every copy, and asks git about each file whether it ignores executable bits. A copy
in a test's process and `Person.update` run this; tests/update/test_make_update.py runs the Copier that users have.
"""

from __future__ import annotations

import sys
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

import jinja2
from copier import _main
from copier._cli import CopierApp

_compile = jinja2.Environment.compile
_compiled: dict[tuple[Any, ...], CodeType] = {}
_settings: WeakKeyDictionary[jinja2.Environment, tuple[Any, ...]] = WeakKeyDictionary()


def _settings_of(environment: jinja2.Environment) -> tuple[Any, ...]:
    """Return what the code of a template depends on besides its text. Filters of constants run when it is compiled."""
    if environment not in _settings:
        filters = {name: getattr(call, "__code__", call) for name, call in environment.filters.items()}
        _settings[environment] = (
            type(environment),
            environment.lexer,
            tuple(sorted(f"{type(one).__module__}.{type(one).__name__}" for one in environment.extensions.values())),
            frozenset(filters.items()),
            frozenset(environment.tests),
        )
    return _settings[environment]


def _compiled_once(self: jinja2.Environment, source: Any, *arguments: Any, **options: Any) -> Any:
    if not isinstance(source, str):
        return _compile(self, source, *arguments, **options)
    key = (source, arguments, tuple(sorted(options.items())), _settings_of(self))
    if key not in _compiled:
        _compiled[key] = _compile(self, source, *arguments, **options)
    return _compiled[key]


def quicken() -> None:
    """Compile each text once in this process, and take it that git looks at executable bits, as it does on Linux."""
    jinja2.Environment.compile = _compiled_once  # type: ignore[method-assign]
    assert hasattr(_main.Worker, "_sync_git_index_executable_bit")
    _main.Worker._sync_git_index_executable_bit = lambda *_: None  # type: ignore[method-assign]


def main() -> None:
    """Run Copier's command."""
    quicken()
    CopierApp.run([sys.executable, *sys.argv[1:]])
