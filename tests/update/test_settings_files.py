"""What an update does to secret/.env.*, without an update."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.settings_files import Change, names, update, with_new_settings


def test_a_setting_is_a_line_that_gives_a_name_a_value() -> None:
    assert names("A=1\nexport B=2\n  C_1 = 3\n# D=4\n5E=6\nF\n\n_G=\n") == ["A", "B", "C_1", "_G"]


@pytest.mark.parametrize(
    ("old", "rendered", "content", "added"),
    [
        ("A=1\n", "A=2\n", "A=1\n", []),
        (
            "A=1\n",
            "# Of A.\nA=2\n# Of B.\n# More.\nB=3\n",
            "A=1\n\n# Added by the update to 9.\n# Of B.\n# More.\nB=3\n",
            ["B"],
        ),
        ("A=1", "# Of nothing.\n\nB=3\nC=4\n", "A=1\n\n# Added by the update to 9.\nB=3\nC=4\n", ["B", "C"]),
        ("", "B=3\n", "\n# Added by the update to 9.\nB=3\n", ["B"]),
        ("A=1\r\n", "B=3\n", "A=1\r\n\r\n# Added by the update to 9.\r\nB=3\r\n", ["B"]),
    ],
)
def test_new_settings_come_to_the_end_with_their_comments(
    old: str, rendered: str, content: str, added: list[str]
) -> None:
    assert with_new_settings(old, rendered, "9") == (content, added)


@pytest.mark.parametrize(
    ("own", "fresh", "before", "added", "removed"),
    [
        ("A=1\n", "A=2\n", {"A"}, [], []),
        ("A=1\n", "A=2\nB=3\n", {"A"}, ["B"], []),
        ("A=1\nB=2\n", "A=2\n", {"A", "B"}, [], ["B"]),
        ("A=1\nB=2\n", "A=2\nC=3\n", {"A", "B"}, ["C"], ["B"]),
        # The owner's own, and one that the owner has removed.
        ("A=1\nMINE=2\n", "A=2\n", {"A", "B"}, [], []),
    ],
)
def test_what_is_new_is_added_and_what_is_no_longer_read_stays_and_is_reported(
    tmp_path: Path, own: str, fresh: str, before: set[str], added: list[str], removed: list[str]
) -> None:
    project, rendered = tmp_path / "project", tmp_path / "rendered"
    for folder, content in ((project, own), (rendered, fresh)):
        (folder / "secret").mkdir(parents=True)
        (folder / "secret" / ".env.development").write_text(content, encoding="utf-8")
    # The project has no such file, as in a fresh clone.
    (rendered / "secret" / ".env.production").write_text("A=1\n", encoding="utf-8")
    expected = [Change(".env.development", added, removed)] if added or removed else []
    assert update(project, rendered, {".env.development": before}, "9") == expected
    written = (project / "secret" / ".env.development").read_text(encoding="utf-8")
    assert names(written) == names(own) + added
    assert [path.name for path in (project / "secret").iterdir()] == [".env.development"]
