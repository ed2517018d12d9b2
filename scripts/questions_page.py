"""The page of Copier's questions, docs/questions.md, from copier.yml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any

import yaml
from jinja2 import Environment, meta
from jinja2.environment import TemplateExpression

Question = Mapping[str, Any]
_JINJA = Environment(autoescape=True)
PROFILES = ("minimal", "standard", "production")
# Their defaults depend on another answer or on the date, in the same way in every profile.
DEPENDENT = {"project_slug": "from `project_name`", "author_name": "from `project_name`", "copyright_year": "this year"}

HEAD = """\
# Questions

<!-- Written by `make docs` from copier.yml. -->

Copier asks at most {asked} questions. The last one shows every option before anything is written. The others have a default, which
often depends on the profile. A project records all answers in `.copier-answers.yml`, and an update keeps them.

Give an answer on the command line and it is not asked. `--defaults` asks nothing at all. [Start](index.md) has the whole command:

```text
copier copy --trust --defaults --data profile=minimal --data 'task_examples=[email, backup]' gh:org/forge myapp
copier copy --trust --data-file answers.yml gh:org/forge myapp
```

`--ask NAME` asks a question that is not asked. Copier ignores an answer to a question that does not exist. [Examples](../examples/README.md)
has files of answers for typical services, and what each generates.

In a project, an update changes an answer. The first of these changes only the answer, the second also brings the newest release:

```text
make update ARGS="--vcs-ref=:current: --data use_flower=false"
make update ARGS="--data use_flower=false"
```
"""


def questions_page(copier_yml: str, answers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page; `answers` are the recorded ones of each profile with nothing else given."""
    config = yaml.safe_load(copier_yml)
    computed = {name: one["default"] for name, one in config.items() if _is_computed(name, one)}
    recorded = recorded_questions(config)
    # One more: whether to write the project.
    parts = [HEAD.format(asked=sum(one.get("ask") is not False for one in recorded.values()) + 1)]
    for section, names in _sections(copier_yml, recorded):
        # What describes the project has the same defaults in every profile.
        profiles = PROFILES if section == "options" else PROFILES[1:2]
        titles = [f"`{profile}`" for profile in profiles] if len(profiles) > 1 else ["default"]
        parts.append(f"\n## {section.capitalize()}\n\n")
        parts += (_row(cells) for cells in (["question", "asked", *titles], ["---"] * (2 + len(titles))))
        for name in names:
            defaults = [_default(name, answers[profile][name]) for profile in profiles]
            parts.append(_row([f"[`{name}`](#{name})", _is_asked(recorded[name]), *defaults]))
        parts += (_entry(name, recorded[name], _needs(name, recorded, computed)) for name in names)
    return "".join(parts)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _is_computed(name: str, question: Any) -> bool:
    return not name.startswith("_") and question.get("when") is False and question["default"].startswith("{{")


def recorded_questions(config: Mapping[str, Any]) -> dict[str, Question]:
    """Return the questions of a copier.yml whose answers a project records: not the last one, which confirms."""
    return {
        name: question
        for name, question in config.items()
        if not name.startswith("_") and question.get("when") is not False and not question.get("secret")
    }


def _is_asked(question: Question) -> str:
    ask = question.get("ask", True)
    if isinstance(ask, bool):
        return "yes" if ask else "no"
    return f"if `{ask.strip('{ }')}`"


def _default(name: str, value: Any) -> str:
    return DEPENDENT.get(name) or _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return f"`{_text(value)}`"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sections(copier_yml: str, recorded: Mapping[str, Question]) -> Iterator[tuple[str, list[str]]]:
    """Yield the sections that comments in copier.yml name, each with its questions."""
    parts = re.split(r"^# --- (\w+)[^\n]*$", copier_yml, flags=re.MULTILINE)
    for section, text in zip(parts[1::2], parts[2::2], strict=True):
        names = [name for name in re.findall(r"^(\w+):$", text, re.MULTILINE) if name in recorded]
        if names:
            yield section, names


def _entry(name: str, question: Question, needs: list[str]) -> str:
    """Return the part of the page about one question."""
    text = [f"\n### {name}\n", " ".join(question["help"].split()) + "\n"]
    choices = question.get("choices", [True, False] if question["type"] == "bool" else [])
    if isinstance(choices, Mapping):
        rows = [f"| `{value}` | {label.removeprefix(f'{value}: ')} |" for label, value in choices.items()]
        text += ["| answer | meaning |", "|---|---|", *rows, ""]
        if question.get("multiselect"):
            example = ", ".join(list(choices.values())[:2])
            text.append(f"Several answers are possible, as a list: `--data '{name}=[{example}]'`.\n")
    else:
        text.append(f"Answers: {', '.join(map(_shown, choices))}.\n" if choices else "Answer: a text.\n")
    if needs:
        text.append(f"It has an effect only with {', and '.join(needs)}.\n")
    text += [
        f"If Copier refuses the answer: {' '.join(message.split())}\n"
        for message in re.findall(r"%\}([^{]+)\{% endif", question.get("validator", ""))
    ]
    return "\n".join(text)


def _values(question: Question) -> list[Any]:
    choices = question.get("choices", [True, False] if question["type"] == "bool" else [])
    values = list(choices.values() if isinstance(choices, Mapping) else choices)
    return [[], *([value] for value in values)] if question.get("multiselect") else values


def _needs(name: str, recorded: Mapping[str, Question], computed: Mapping[str, str]) -> list[str]:
    """Return the answers to other questions without which `name` changes no computed value.

    All combinations of the answers that the same computed values read are tried.
    """
    parts = [part for part in computed if name in _read(part, computed)]
    others = sorted({other for part in parts for other in _read(part, computed)} & set(recorded) - {name})
    effective = []
    for combination in product(*(_values(recorded[other]) for other in others)):
        given = dict(zip(others, combination, strict=True))
        if len({_evaluated({**given, name: value}, parts, computed) for value in _values(recorded[name])}) > 1:
            effective.append(given)
    needs = []
    for other in others:
        values = [value for value in _values(recorded[other]) if any(given[other] == value for given in effective)]
        if len(values) < len(_values(recorded[other])):
            needs.append(" or ".join(_shown(f"{other}={_text(value)}") for value in values))
    return needs


def _read(part: str, computed: Mapping[str, str]) -> frozenset[str]:
    """Return the names that a computed value reads, itself or through another."""
    names = _names(computed[part])
    return names.union(*(_read(name, computed) for name in names & set(computed)))


def _evaluated(given: Mapping[str, Any], parts: Iterable[str], computed: Mapping[str, str]) -> tuple[object, ...]:
    """Return the values of `parts`; a computed value reads only those before it."""
    known = dict(given)
    for part in computed:
        if _names(computed[part]) <= set(known):
            known[part] = _expression(computed[part])(**known)
    return tuple(known[part] for part in parts)


@cache
def _names(template: str) -> frozenset[str]:
    return frozenset(meta.find_undeclared_variables(_JINJA.parse(template)))


@cache
def _expression(template: str) -> TemplateExpression:
    return _JINJA.compile_expression(template.removeprefix("{{").removesuffix("}}"))
