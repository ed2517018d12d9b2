"""Report invalid settings: one line each with the variable, the place of its value and the rule, but never a secret."""

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from dotenv.parser import Original, parse_stream
from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic_settings import SettingsError

from app.core.config.base import ROOT, SettingsGroup, env_files

_SHOWN = 60
"""Longer values are not shown."""


def find_problems() -> list[str]:
    """Return the problems of all imported groups; each prevents the application from starting."""
    problems = [problem for path in env_files() for problem in _unreadable(path)]
    if problems:
        return problems
    problems = list(_misspelled())
    for group in all_groups():
        try:
            group()
        except ValidationError as error:
            problems += [_describe(group, dict(each)) for each in error.errors(include_url=False)]
        except SettingsError as error:
            problems.append(str(error))
    return problems


def all_groups(parent: type[SettingsGroup] = SettingsGroup) -> Iterator[type[SettingsGroup]]:
    """Return all imported groups."""
    for group in parent.__subclasses__():
        yield group
        yield from all_groups(group)


def _names(group: type[SettingsGroup], field: str) -> list[str]:
    """Return the variables of a field, the preferred name first."""
    alias = group.model_fields[field].validation_alias
    others = [str(one) for one in alias.choices[1:]] if isinstance(alias, AliasChoices) else []
    return [group.variable(field), *others]


def _is_secret(group: type[SettingsGroup], field: str) -> bool:
    annotation = group.model_fields[field].annotation
    return SecretStr in (annotation, *get_args(annotation))


def _label(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _lines(path: Path) -> list[tuple[int, str | None, str | None, bool]]:
    """Return the line, name and value of each statement in a settings file, and whether it is a syntax error."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [(_line(one.original), one.key, one.value, one.error) for one in parse_stream(file)]


def _line(original: Original) -> int:
    # The statement's text includes the empty lines before it.
    text = original.string
    return original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _unreadable(path: Path) -> Iterator[str]:
    try:
        lines = _lines(path)
    except UnicodeDecodeError:
        yield f"{_label(path)} is not encoded in UTF-8; save it as UTF-8."
    except OSError as error:
        yield f"{_label(path)} cannot be read: {error.strerror}."
    else:
        for number, key, value, broken in lines:
            if broken or (key and value is None):
                yield f"{_label(path)}, line {number} is not NAME=value; quote values with spaces, quotes or a #."


def _place(names: list[str]) -> str:
    """Return where the value of a setting comes from."""
    given = {name.upper() for name in os.environ}
    if given & {name.upper() for name in names}:
        return "in the process environment"
    if given & {f"{name.upper()}_FILE" for name in names}:
        return f"in the file from {names[0]}_FILE"
    for path in reversed(env_files()):
        for number, key, _, _ in _lines(path):
            if key and key.upper() in {name.upper() for name in names}:
                return f"in {_label(path)}, line {number}"
    return "by default"


def _describe(group: type[SettingsGroup], error: dict[str, Any]) -> str:
    rule = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    rule = re.sub(r"unable to parse string as .*", "unable to parse it", rule)
    rule = f"{re.sub('^String should', 'must', rule).rstrip('.')}."
    field = next((name for name in group.model_fields if error["loc"][:1] in ((name,), *_locations(group, name))), None)
    if field is None:
        # A rule about several settings, which contains their names.
        named = [name for name in _known() if re.search(rf"\b{name}\b", rule)]
        places = ", ".join(f"{name} {_place([name])}" for name in named)
        return f"{rule} ({places})" if places else rule
    names = _names(group, field)
    text = str(error["input"])
    secret = _is_secret(group, field) or ("://" in text and "@" in text) or len(text) > _SHOWN
    return f"{names[0]}{'' if secret else f'={text!r}'} ({_place(names)}): {rule}"


def _locations(group: type[SettingsGroup], field: str) -> list[tuple[str]]:
    return [(name,) for name in _names(group, field)]


def _known() -> dict[str, bool]:
    """Return every variable, and whether it is a secret, which `NAME_FILE` can set too."""
    return {
        name.upper(): _is_secret(group, field)
        for group in all_groups()
        for field in group.model_fields
        for name in _names(group, field)
    }


def _misspelled() -> Iterator[str]:
    known = _known()
    accepted = {*known, *(f"{name}_FILE" for name, secret in known.items() if secret)}
    # Kubernetes and Docker set such variables for each service, and its name may be similar to a setting's.
    given = (name for name, value in os.environ.items() if not re.match(r"(tcp|udp|sctp)://", value))
    places = dict.fromkeys(given, "in the process environment")
    for path in env_files():
        places |= {key: f"in {_label(path)}, line {number}" for number, key, _, _ in _lines(path) if key}
    for name, place in sorted(places.items()):
        meant = [one for one in accepted if is_near(name.upper(), one)]
        if name.upper() not in accepted and meant:
            best = max(meant, key=lambda one: difflib.SequenceMatcher(None, name.upper(), one).ratio())
            yield f"{name} ({place}) is not a setting. Did you mean {best}? Otherwise rename it."


def is_near(name: str, known: str) -> bool:
    """Return whether `name` is probably `known` misspelled: one typo in a short name, two in a long one.

    `DATABASE_URL_2` is a different name, since it only extends a known one. So is `METRICS_PORT`, which Kubernetes
    sets for a service called metrics: it differs from `METRICS_HOST` by a whole short word.
    """
    # At each start, all variables are compared with all settings. A typo adds or removes at most one letter, so this cheap test
    # excludes nearly all of them.
    if abs(len(name) - len(known)) > 2 or len(set(name) - set(known)) > 2 or len(set(known) - set(name)) > 2:
        return False
    if re.match(rf"{known}[_\d]", name):
        return False
    words, known_words = name.split("_"), known.split("_")
    if len(words) == len(known_words) and any(
        _typos(word, wanted) > (1 if len(wanted) < 6 else 2) for word, wanted in zip(words, known_words, strict=True)
    ):
        return False
    return _typos(name, known) <= (1 if len(known) < 12 else 2)


def _typos(one: str, other: str) -> int:
    """Return how many letters are missing, added, wrong or swapped with their neighbour, at most 3."""
    if abs(len(one) - len(other)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        older, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if older and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return min(row[-1], 3)
