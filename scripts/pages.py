"""Markdown pages: their links and anchors as a git host shows them, and their text as the site's builder needs it."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

# Pages that the site has under another name; what is in docs/ keeps its own.
PLACES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "vulnerabilities.md",
    "examples/README.md": "examples.md",
}

_FENCE = re.compile(r" *(`{3,}|~{3,})")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=[)\s])")
_LINK_WITH_TEXT = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_HEADING = re.compile(r"#{1,6} +(.+?)(?: +#+)?$")
_ITEM = re.compile(r"(?:[-*+]|\d+[.)]) +")


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each line and whether it belongs to a fenced block."""
    fence = ""
    for line in text.splitlines():
        found = _FENCE.match(line)
        if fence:
            yield line, True
            if found and found[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
        else:
            fence = found[1] if found else ""
            yield line, bool(fence)


def _outside_code(line: str, change: Callable[[str], str]) -> str:
    """Return `line` with `change` applied to what is not between backticks."""
    parts, end = [], 0
    for code in _CODE.finditer(line):
        parts += [change(line[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, change(line[end:])])


def links(text: str) -> list[str]:
    """Return the targets of a page's links and images, without those in code."""
    found: list[str] = []
    for line, fenced in _lines(text):
        if not fenced:
            found += _LINK.findall(_CODE.sub("", line))
    return found


def without_links(text: str, dead: Callable[[str], bool]) -> str:
    """Return a page in which the links that are `dead` are their text."""

    def unlinked(link: re.Match[str]) -> str:
        return link[1] if dead(link[2]) else link[0]

    lines = (line if fenced else _LINK_WITH_TEXT.sub(unlinked, line) for line, fenced in _lines(text))
    return "\n".join(lines) + "\n"


def is_external(link: str) -> bool:
    """Return whether a link leads to another site."""
    return bool(re.match(r"[a-z][a-z0-9+.-]*:", link))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub builds them."""
    seen: Counter[str] = Counter()
    found = set()
    for line, fenced in _lines(text):
        heading = None if fenced else _HEADING.match(line)
        if heading:
            shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
            found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
    return found


def broken_links(page: Path) -> list[str]:
    """Return the links of a page to files and headings that do not exist."""
    found = []
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not is_external(link) and (
            not target.exists()
            or (anchor and (target.suffix != ".md" or anchor not in anchors(target.read_text(encoding="utf-8"))))
        ):
            found.append(link)
    return found


def place(page: str) -> str | None:
    """Return where the site has a file of this repository, or None if it has not."""
    return PLACES.get(page) or (page.removeprefix("docs/") if page.startswith("docs/") else None)


def for_the_site(page: str, text: str, repository: str) -> str:
    """Return a page as the site's builder needs it: links lead to a page of the site or to `repository`, and lists are lists."""
    here = posixpath.dirname(place(page) or "")

    def lead(link: str) -> str:
        path, mark, anchor = link.partition("#")
        if not path or is_external(link):
            return link
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        known = None if path.endswith("/") else place(target)
        kind = "tree" if path.endswith("/") else "blob"
        found = posixpath.relpath(known, here or ".") if known else f"{repository}/{kind}/main/{target}"
        return found + mark + anchor

    lines = [
        (line if fenced else _outside_code(line, lambda part: _LINK.sub(lambda link: lead(link[0]), part)), fenced)
        for line, fenced in _lines(text)
    ]
    return "\n".join(_spaced_lists(lines)) + "\n"


def _spaced_lists(lines: list[tuple[str, bool]]) -> Iterator[str]:
    """Yield the lines with lists as Python-Markdown reads them: after an empty line, and nested by four spaces."""
    before = ""
    width = 0
    for line, fenced in lines:
        item = None if fenced else _ITEM.match(line)
        if item:
            if before and not width:
                yield ""
            width = len(item[0])
        elif width and line.startswith(" " * width):
            line = "    " + line[width:]
        elif line and not before:
            width = 0
        yield line
        before = line
