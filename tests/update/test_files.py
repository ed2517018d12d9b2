"""Small files are written whole, and settings stay private."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from engine.files import HALF_WRITTEN, copy_private, parse_yaml, write_whole


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_copy_of_settings_is_the_owners_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(b"KEY=1\r\n")
    copy_private(source, target)
    assert (target.read_bytes(), mode(target)) == (b"KEY=1\r\n", 0o600)


@pytest.mark.parametrize("before", [0o600, 0o640, 0o755])
def test_a_file_that_is_written_again_keeps_its_mode(tmp_path: Path, before: int) -> None:
    path = tmp_path / "file"
    path.write_text("a longer text", encoding="utf-8")
    path.chmod(before)
    write_whole(path, b"short")
    assert (path.read_bytes(), mode(path)) == (b"short", before)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_new_file_can_be_read_by_everybody(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_whole(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == 0o644


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"x"


def test_what_a_killed_write_left_longer_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 7)
    (tmp_path / f"file{HALF_WRITTEN}7").write_bytes(b"what was left")
    write_whole(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_yaml_with_objects_is_refused() -> None:
    with pytest.raises(Exception, match="could not determine a constructor"):
        parse_yaml("!!python/object/apply:os.getcwd []")
