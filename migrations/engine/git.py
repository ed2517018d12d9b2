"""Call git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

# Set by a hook or an editor that called Copier, these would send git to another repository.
_FOREIGN = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"}
_SETTINGS = (
    "core.quotePath=false",
    "core.fsmonitor=false",
    "core.safecrlf=false",
    "commit.gpgSign=false",
    f"core.hooksPath={os.devnull}",
    # The output is parsed: plain paths, relative to the current folder.
    "color.ui=false",
    "grep.fullName=false",
    # A submodule is its owner's.
    "submodule.recurse=false",
)
_IDENTITY = {"NAME": "Forge", "EMAIL": "forge@localhost", "DATE": "2000-01-01T00:00:00Z"}


def run(
    folder: Path,
    *arguments: str | Path,
    extra: Mapping[str, str] | None = None,
    data: bytes | None = None,
    accept: tuple[int, ...] = (0,),
) -> bytes:
    """Run git in `folder` and return its output.

    Raises:
        subprocess.CalledProcessError: the exit code is not one of `accept`; the message has git's own words.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    # The result must not depend on the user's name or language.
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_LITERAL_PATHSPECS": "1"}
    environment |= {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _IDENTITY.items()}
    environment |= dict(extra or {})
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    done = subprocess.run(
        ["git", *settings, *map(str, arguments)],
        cwd=folder,
        env=environment,
        input=data,
        capture_output=True,
        check=False,
    )
    if done.returncode not in accept:
        words = done.stderr.decode(errors="replace").strip()
        raise subprocess.CalledProcessError(
            done.returncode, f"git {' '.join(map(str, arguments))}: {words}", done.stdout, done.stderr
        )
    return done.stdout


def text(
    folder: Path,
    *arguments: str | Path,
    extra: Mapping[str, str] | None = None,
    data: bytes | None = None,
    accept: tuple[int, ...] = (0,),
) -> str:
    """Run git and return its output as text, without the newline at its end."""
    printed = run(folder, *arguments, extra=extra, data=data, accept=accept)
    return printed.decode("utf-8", "surrogateescape").rstrip("\n")


def names(folder: Path, *arguments: str | Path, extra: Mapping[str, str] | None = None) -> list[str]:
    """Run a command of git that ends each name with a NUL byte, and return the names."""
    return [name for name in text(folder, *arguments, extra=extra).split("\0") if name]
