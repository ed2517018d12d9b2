"""`make secrets`: create missing settings files, with random values. It never changes an existing file.

`make secrets ARGS="--rotate redis_password"` replaces the values with these names in the existing files of production.
"""

import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
_PLACEHOLDER = re.compile(r"<random:(\w+)>")
_OF_PRODUCTION = {".env.production", ".env.flower", ".env.mariadb", ".env.postgres", ".env.redis"}
_SETTING = re.compile(r"^([A-Z_]+)=(.*)$", re.MULTILINE)


def fill(text: str, values: dict[str, str] | None = None) -> str:
    """Replace each `<random:name>` in `text` by the value in `values`, or by a new random value, which is added to `values`."""
    known = {} if values is None else values
    return _PLACEHOLDER.sub(lambda found: known.setdefault(found[1], secrets.token_urlsafe(32)), text)


def write_missing(folder: Path) -> list[Path]:
    """Create the missing `.env.NAME` of each `env.NAME.example` in `folder`; return the new files."""
    groups: dict[str, dict[str, str]] = {}
    for example, target in _pairs(folder):
        values = groups.setdefault(_group(target), {})
        for name, pattern in _places(example):
            found = pattern.search(target.read_text(encoding="utf-8")) if target.exists() else None
            if found:
                # In a URL, the value is percent-encoded.
                values[name] = unquote(found[2]) if "://" in found[1] else found[2]
    written = []
    for example, target in _pairs(folder):
        if not target.exists():
            # Before the secrets are written: only the owner may read the file.
            target.touch(mode=0o600, exist_ok=False)
            target.write_text(fill(example.read_text(encoding="utf-8"), groups[_group(target)]), encoding="utf-8")
            written.append(target)
    return written


def rotate(folder: Path, names: list[str]) -> list[Path]:
    """Replace the values with these names in the files of production and its servers; return the changed files.

    Raises:
        ValueError: there is no name, or none of these files has it.
    """
    pairs = [(example, target) for example, target in _pairs(folder) if _group(target) == "production"]
    known = {name for example, _ in pairs for name, _ in _places(example)}
    if not names or not known.issuperset(names):
        raise ValueError(f"--rotate needs one or more of these names: {', '.join(sorted(known))}.")
    new = {name: secrets.token_urlsafe(32) for name in names}
    written = []
    for example, target in pairs:
        before = after = target.read_text(encoding="utf-8") if target.exists() else ""
        for name, pattern in _places(example):
            if name in new:
                after = pattern.sub(rf"\g<1>{new[name]}", after)
        if after != before:
            target.write_text(after, encoding="utf-8")
            written.append(target)
    return written


def protect(folder: Path) -> None:
    """Make the settings files readable only by their owner; Copier cannot set permissions."""
    for path in folder.glob(".env.*"):
        path.chmod(0o600)


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    for example in sorted(folder.glob("env.*.example")):
        yield example, folder / f".{example.stem}"


def _group(target: Path) -> str:
    """Return the group of files that shares its values: the servers in docker-compose.yml use the passwords of production."""
    return "production" if target.name in _OF_PRODUCTION else target.name


def _places(example: Path) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield the name of each random value, and a pattern for it: group 1 is the text before the value, group 2 the value."""
    for setting, text in _SETTING.findall(example.read_text(encoding="utf-8")):
        found = _PLACEHOLDER.search(text)
        if found:
            before = re.escape(f"{setting}={text[: found.start()]}")
            yield found[1], re.compile(rf"^({before})([^@\s]+)", re.MULTILINE)


def main() -> None:
    """Create the missing files, or rotate the values that the command line names; print what was done."""
    folder = ROOT / "secret"
    if sys.argv[1:2] == ["--rotate"]:
        try:
            rotated = rotate(folder, sys.argv[2:])
        except ValueError as error:
            sys.exit(str(error))
        for path in rotated:
            print(f"{path.relative_to(ROOT)}: new values; restart the processes that read this file")
        return
    written = write_missing(folder)
    protect(folder)
    for path in written:
        print(f"{path.relative_to(ROOT)}: created with random values")
    if not written:
        print("secret/: no file is missing; nothing was changed")


if __name__ == "__main__":
    main()
