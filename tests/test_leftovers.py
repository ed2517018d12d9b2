"""What a merge leaves behind is seen, and what only looks like it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from leftovers import leftovers


@pytest.mark.parametrize("line", ["<<<<<<< HEAD", ">>>>>>> theirs", "||||||| base", "<<<<<<<"])
def test_marker(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(f"one\r\n{line}\r\ntwo\r\n".encode())
    assert leftovers([str(path)]) == [f"{path}:2: a conflict marker"]


def test_rejected_file() -> None:
    assert leftovers(["a.py.rej"]) != []


def test_what_is_no_marker(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"Heading\n=======\n\n>>> a\n  <<<<<<< x\n<<<<<<<< eight\n\xff\n")
    assert leftovers([str(path)]) == []
