"""Whatever a person types as a name gives a sound project, or a sentence that says what is wrong with it."""

from __future__ import annotations

import keyword
import re
import tomllib

import pytest
import yaml

from tests.conftest import Renderer
from tests.copy.sound import problems

_SLUG = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My App", "my-app"),
        ("  ", None),
        ("", None),
        ("Café Crème", "cafe-creme"),
        ("Łódź Straße", None),
        ("O'Brien's Shop", "obriens-shop"),
        ('Say "hello"', None),
        ("9 Lives", "app-9-lives"),
        ("class", None),
        ("日本語", "app"),
        ("a/b\\c", None),
        ("{{ 7 * 7 }}", None),
        ("{% raw %}", None),
        ("$(id) `id`", None),
        ("two\nlines", None),
        ("x" * 200, None),
        ("../../etc", None),
        ("tests: yes # no", None),
        ("- yes", None),
        ("null", None),
        ("app", None),
        ("celery", None),
    ],
)
def test_project_name(render: Renderer, name: str, slug: str | None) -> None:
    """`slug` is the one expected; where it is None, a refusal or any good slug will do."""
    try:
        project = render({"project_name": name})
    except ValueError as error:
        assert slug is None, error
        assert "project_name" in str(error) or "project_slug" in str(error)
        # "Validation error for question 'project_name': " and a sentence.
        assert len(str(error).split(":", 1)[1].split()) >= 3, error
        return
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))
    assert answers["project_name"] == name
    assert _SLUG.fullmatch(answers["project_slug"]), answers["project_slug"]
    assert slug in (None, answers["project_slug"])
    assert problems(project) == []
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata["name"] == answers["project_slug"]
    assert not keyword.iskeyword(metadata["name"].replace("-", "_")) or name == metadata["name"]


@pytest.mark.parametrize("slug", ["", "9lives", "a b", "Ünï", "UPPER", "a--b", "-a", "a-", "../a", "a.b", "a" * 80])
def test_bad_slug_is_refused(render: Renderer, slug: str) -> None:
    with pytest.raises(ValueError, match=r"project_slug.*:.*\w+ \w+"):
        render({"project_slug": slug})


@pytest.mark.parametrize("question", ["description", "author_name"])
@pytest.mark.parametrize(
    "text",
    [
        "It's Zoë's & Łukasz's, 100 percent: yes, really",
        'Say "hello"',
        "back\\slash",
        "{{ 7 * 7 }}",
        "# not a comment",
        "two\nlines",
        "key: value",
        "a, b; c | d",
        "[x] (y)",
        "'''",
        "*x &y !z @w",
        "-",
        "yes",
        "1.0",
    ],
)
def test_texts(render: Renderer, question: str, text: str) -> None:
    try:
        project = render({question: text})
    except ValueError as error:
        assert question in str(error)
        return
    assert problems(project) == []
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))
    assert answers[question] == text
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    written = metadata["description"] if question == "description" else metadata["authors"][0]["name"]
    assert written == text


@pytest.mark.parametrize(
    "address",
    [
        *("", "nobody", "a b@example.com", "a@b", 'a"@example.com', "a@example.com\n"),
        *("a..b@example.com", ".a@example.com", "a@-b.com", "ä@example.com", f"{'a' * 65}@example.com"),
    ],
)
def test_bad_mail_address_is_refused(render: Renderer, address: str) -> None:
    with pytest.raises(ValueError, match="author_email"):
        render({"author_email": address})


def test_ordinary_texts_are_accepted(render: Renderer) -> None:
    """A validator that refuses everything would pass the tests above."""
    project = render(
        {
            "project_name": "Café Crème 2",
            "description": "It's for Zoë & Łukasz: orders, and more (v2)",
            "author_name": "Zoë O'Neil",
            "author_email": "zoe.oneil+forge@mail.example.com",
        }
    )
    assert problems(project) == []
