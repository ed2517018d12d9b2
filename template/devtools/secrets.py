"""`make secrets`: writes the settings files that a fresh clone lacks, with random values. Never touches one that exists."""

import re
import secrets
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PLACEHOLDER = re.compile(r"<random:(\w+)>")


def fill(text: str) -> str:
    """Return `text` with a random value for each `<random:name>`; the same name gets the same value."""
    values: dict[str, str] = {}
    return _PLACEHOLDER.sub(lambda found: values.setdefault(found[1], secrets.token_urlsafe(32)), text)


def write_missing(folder: Path) -> list[Path]:
    """Write `.env.NAME` for each `env.NAME.example` in `folder` that has none, and return what was written."""
    written = []
    for example in sorted(folder.glob("env.*.example")):
        target = folder / f".{example.stem}"
        if not target.exists():
            # Readable by its owner alone from the first moment on.
            target.touch(mode=0o600, exist_ok=False)
            target.write_text(fill(example.read_text(encoding="utf-8")), encoding="utf-8")
            written.append(target)
    return written


def protect(folder: Path) -> None:
    """Make the settings files readable by their owner alone: a copy of the template cannot write them so."""
    for path in folder.glob(".env.*"):
        path.chmod(0o600)


def main() -> None:
    """Write what is missing and say so."""
    written = write_missing(ROOT / "secret")
    protect(ROOT / "secret")
    for path in written:
        print(f"{path.relative_to(ROOT)}: written with random values")
    if not written:
        print("secret/: every file is there already; nothing was changed")


if __name__ == "__main__":
    main()
