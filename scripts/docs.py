"""Write the generated pages and the listings of the examples, then build the site: `make docs`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import copier
import yaml

from forge_template import ROOT, copy_working_tree, working_files
from listing import listing
from pages import PLACES, broken_links, for_the_site, is_external, place, without_links
from questions_page import PROFILES, questions_page, recorded_questions

DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
SITE = ROOT / "site"


class _Configuration(yaml.SafeLoader):
    """Reads mkdocs.yml without the functions that it names."""


_Configuration.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def configuration() -> dict[str, Any]:
    """Return what mkdocs.yml holds."""
    loaded: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Configuration)  # noqa: S506
    return loaded


def navigation(entries: list[Any]) -> Iterator[str]:
    """Yield the pages of a `nav`, in its order."""
    for entry in entries:
        for target in entry.values() if isinstance(entry, dict) else [entry]:
            yield from navigation(target) if isinstance(target, list) else [target]


def site_files() -> dict[str, str]:
    """Return the files of this repository that the site has, by their place in it."""
    return {found: name for name in working_files("docs", *PLACES) if (found := place(name))}


def nav_problems(nav: list[str], pages: set[str]) -> list[str]:
    """Return what is wrong with the navigation `nav` of a site that has these pages."""
    return [
        *(f"mkdocs.yml: nav names {page}, which does not exist" for page in nav if page not in pages),
        *(f"mkdocs.yml: nav names {page} twice" for page in sorted(set(nav)) if nav.count(page) > 1),
        *(f"mkdocs.yml: nav needs a line for {page}" for page in sorted(pages - set(nav))),
    ]


def everything_on() -> dict[str, Any]:
    """Return the answers that give a project every page: yes to each question, and all choices where several are possible.

    Of a choice, the default: it is what most readers have.
    """
    config = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    answers: dict[str, Any] = {"profile": "production"}
    for name, question in recorded_questions(config).items():
        if question["type"] == "bool":
            answers[name] = True
        elif question.get("multiselect"):
            answers[name] = list(question["choices"].values())
    return answers


def project_pages(project: Path) -> dict[str, str]:
    """Return the pages of docs/project/, from a project that was rendered with every option on."""
    pages = {page.name: page.read_text(encoding="utf-8") for page in sorted((project / "docs").glob("*.md"))}
    # Its lines are those of mkdocs.yml.
    del pages["index.md"]

    def dead(link: str) -> bool:
        """Return whether a link leads to the index or out of docs/, which this repository does not have."""
        return not is_external(link) and link.partition("#")[0] not in {"", *pages}

    return {name: without_links(text, dead) for name, text in pages.items()}


def _render(template: Path, target: Path, answers: Mapping[str, Any], *only: str) -> Path:
    """Copy the template without a question; `only` names what is written, where that is less than everything."""
    excluded = ["*", *(f"!{name}" for name in only)] if only else []
    copier.run_copy(str(template), target, data=dict(answers), defaults=True, unsafe=True, quiet=True, exclude=excluded)
    return target


def _write(path: Path, text: str) -> None:
    """Write a page, and say so if it has changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def write_generated(scratch: Path) -> None:
    """Bring docs/questions.md, docs/project/ and examples/*.txt up to date."""
    template = copy_working_tree(scratch / "template")
    answers = {}
    for profile in PROFILES:
        recorded = _render(template, scratch / profile, {"profile": profile}, ".copier-answers.yml")
        answers[profile] = yaml.safe_load((recorded / ".copier-answers.yml").read_text(encoding="utf-8"))
    _write(DOCS / "questions.md", questions_page((ROOT / "copier.yml").read_text(encoding="utf-8"), answers))

    pages = project_pages(_render(template, scratch / "everything", everything_on(), "docs", "docs/*"))
    for name, text in pages.items():
        _write(DOCS / "project" / name, text)
    for left in (DOCS / "project").glob("*.md"):
        if left.name not in pages:
            left.unlink()
            print(f"removed {left.relative_to(ROOT)}")

    for example in sorted(EXAMPLES.glob("*.yml")):
        given = yaml.safe_load(example.read_text(encoding="utf-8"))
        _write(example.with_suffix(".txt"), listing(_render(template, scratch / example.stem, given)))


def build(scratch: Path) -> None:
    """Build the site from a copy of the pages whose links lead to pages of the site, or exit with what is wrong."""
    config = configuration()
    found = site_files()
    pages = {name: source for name, source in found.items() if name.endswith(".md")}
    problems = nav_problems(list(navigation(config["nav"])), set(pages))
    # zensical sees neither a missing picture nor a link to a missing folder.
    problems += [
        f"{source}: {link} leads nowhere"
        for source in ("README.md", *pages.values())
        for link in broken_links(ROOT / source)
    ]
    if problems:
        sys.exit("\n".join(problems))
    for name, source in found.items():
        target = scratch / "docs" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name in pages:
            text = (ROOT / source).read_text(encoding="utf-8")
            target.write_text(for_the_site(source, text, config["extra"]["repository"]), encoding="utf-8")
        else:
            shutil.copy2(ROOT / source, target)
    shutil.copy2(ROOT / "mkdocs.yml", scratch)
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run([zensical, "build", "--strict"], cwd=scratch, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        # It ends with a traceback after its warnings, too.
        warnings, aborted, _ = done.stderr.partition("Traceback (most recent call last):")
        sys.exit(warnings if "--strict" in done.stderr and aborted else done.stderr)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(scratch / "site", SITE)
    print(f"built {SITE.relative_to(ROOT)}/index.html")


def main() -> None:
    """Write all generated files, then build."""
    with tempfile.TemporaryDirectory(prefix="forge-docs-") as scratch:
        # The user's settings may hold answers.
        settings = Path(scratch, "settings.yml")
        settings.write_text("{}\n", encoding="utf-8")
        os.environ["COPIER_SETTINGS_PATH"] = str(settings)
        write_generated(Path(scratch, "rendered"))
        build(Path(scratch, "site"))


if __name__ == "__main__":
    main()
