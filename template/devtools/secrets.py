"""`make secrets`: writes the settings files that a fresh clone lacks, with random values. Never touches one that exists.

`make secrets ARGS="--rotate redis_password"` puts a new random value for each of these names into the files that exist.
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
    """Return `text` with a value for each `<random:name>`: the one in `values`, or a random one, which is put there."""
    known = {} if values is None else values
    return _PLACEHOLDER.sub(lambda found: known.setdefault(found[1], secrets.token_urlsafe(32)), text)


def write_missing(folder: Path) -> list[Path]:
    """Write `.env.NAME` for each `env.NAME.example` in `folder` that has none, and return what was written."""
    groups: dict[str, dict[str, str]] = {}
    for example, target in _pairs(folder):
        values = groups.setdefault(_group(target), {})
        for name, pattern in _places(example):
            found = pattern.search(target.read_text(encoding="utf-8")) if target.exists() else None
            if found:
                # What is written percent-encoded in an address.
                values[name] = unquote(found[2]) if "://" in found[1] else found[2]
    written = []
    for example, target in _pairs(folder):
        if not target.exists():
            # Readable by its owner alone from the first moment on.
            target.touch(mode=0o600, exist_ok=False)
            target.write_text(fill(example.read_text(encoding="utf-8"), groups[_group(target)]), encoding="utf-8")
            written.append(target)
    return written


def rotate(folder: Path, names: list[str]) -> list[Path]:
    """Put a new random value for each name into the files of production and of its servers; return what was written.

    Raises:
        ValueError: a name is in none of these files, or there is no name.
    """
    pairs = [(example, target) for example, target in _pairs(folder) if _group(target) == "production"]
    known = {name for example, _ in pairs for name, _ in _places(example)}
    if not names or not known.issuperset(names):
        raise ValueError(f"Name what to rotate: {', '.join(sorted(known))}.")
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
    """Make the settings files readable by their owner alone: a copy of the template cannot write them so."""
    for path in folder.glob(".env.*"):
        path.chmod(0o600)


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    for example in sorted(folder.glob("env.*.example")):
        yield example, folder / f".{example.stem}"


def _group(target: Path) -> str:
    """Return whose values the file has: the servers of docker-compose.yml share production's passwords."""
    return "production" if target.name in _OF_PRODUCTION else target.name


def _places(example: Path) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Give each random value's name, and what finds it in the file made from `example`: before it, and itself."""
    for setting, text in _SETTING.findall(example.read_text(encoding="utf-8")):
        found = _PLACEHOLDER.search(text)
        if found:
            before = re.escape(f"{setting}={text[: found.start()]}")
            yield found[1], re.compile(rf"^({before})([^@\s]+)", re.MULTILINE)


def main() -> None:
    """Write what is missing, or rotate what the command line names, and say so."""
    folder = ROOT / "secret"
    if sys.argv[1:2] == ["--rotate"]:
        try:
            rotated = rotate(folder, sys.argv[2:])
        except ValueError as error:
            sys.exit(str(error))
        for path in rotated:
            print(f"{path.relative_to(ROOT)}: new values; who uses them must start anew")
        return
    written = write_missing(folder)
    protect(folder)
    for path in written:
        print(f"{path.relative_to(ROOT)}: written with random values")
    if not written:
        print("secret/: every file is there already; nothing was changed")


if __name__ == "__main__":
    main()
