"""The workflow that looks packages up in a vulnerability database: what fails it, and how to ignore an advisory."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from forge_template import ROOT, project_environment

WORKFLOWS = ROOT / "template" / "{% if ci == 'github' %}.github{% endif %}" / "workflows"
# One with a fix and one without.
ADVISORIES = {"GHSA-aaaa-bbbb-cccc": ("fixed", "2.0"), "PYSEC-2026-1": ("unfixed", None)}
PROJECT = """\
[project]
name = "audited"
version = "1"
requires-python = ">=3.11"
"""
LOCK = """\
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "audited"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "fixed" }, { name = "unfixed" }]

[package.metadata]
requires-dist = [{ name = "fixed" }, { name = "unfixed" }]
"""
PACKAGE = """
[[package]]
name = "{name}"
version = "1.0"
source = { registry = "{database}simple" }
sdist = { url = "{database}{name}-1.0.tar.gz", hash = "sha256:{hash}" }
"""


class Database(BaseHTTPRequestHandler):
    """OSV with two advisories."""

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        names = {package: advisory for advisory, (package, _) in ADVISORIES.items()}
        known = [names.get(query["package"]["name"]) for query in queries]
        self._answer({"results": [{"vulns": [_stamped({"id": each})]} if each else {} for each in known]})

    def do_GET(self) -> None:
        advisory = self.path.rpartition("/")[2]
        if advisory not in ADVISORIES:
            # The index, which uv asks for the status of each package.
            self.send_error(404)
            return
        package, fixed = ADVISORIES[advisory]
        events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
        affected = {
            "package": {"name": package, "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }
        self._answer(_stamped({"id": advisory, "summary": "Made up", "affected": [affected]}))

    def _answer(self, body: Mapping[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _stamped(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "modified": "2026-01-01T00:00:00Z", "published": "2026-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of the made-up database."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Database) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def workflow() -> str:
    return (WORKFLOWS / "audit.yml").read_text(encoding="utf-8")


def audit(workflow: str, folder: Path, database: str, settings: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow's command on two packages, with these lines in pyproject.toml."""
    (folder / "pyproject.toml").write_text(
        f'{PROJECT}dependencies = ["fixed", "unfixed"]\n{settings}', encoding="utf-8"
    )
    values = {"{database}": database, "{hash}": "0" * 64}
    lock = LOCK + "".join(PACKAGE.replace("{name}", name) for name, _ in ADVISORIES.values())
    for name, value in values.items():
        lock = lock.replace(name, value)
    (folder / "uv.lock").write_text(lock, encoding="utf-8")
    [command] = [
        step["run"] for step in yaml.safe_load(workflow)["jobs"]["audit"]["steps"] if step.get("name") == "Audit"
    ]
    return subprocess.run(
        ["bash", "-c", f"{command} --service-url {database}"],
        cwd=folder,
        env=project_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "settings", ["", '[tool.uv]\nconstraint-dependencies = ["fixed<1"]\n'], ids=["current lock", "outdated lock"]
)
def test_an_advisory_of_a_locked_version_fails_the_audit(
    workflow: str, tmp_path: Path, database: str, settings: str
) -> None:
    done = audit(workflow, tmp_path, database, settings)
    assert done.returncode == 1, done.stderr
    assert all(advisory in done.stdout for advisory in ADVISORIES)


def test_the_settings_in_the_workflows_first_lines_ignore_an_advisory(
    workflow: str, tmp_path: Path, database: str
) -> None:
    settings = "\n".join(re.findall(r"^#   (.+)$", workflow, re.MULTILINE))
    for pattern, advisory in (("ignore-until-fixed", "PYSEC-2026-1"), ("ignore", "GHSA-aaaa-bbbb-cccc")):
        settings, count = re.subn(
            rf'^{pattern} = \["GHSA-[x-]+"\]', f'{pattern} = ["{advisory}"]', settings, flags=re.M
        )
        assert count == 1
    done = audit(workflow, tmp_path, database, settings)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_advisory_is_no_longer_ignored_when_it_is_fixed(workflow: str, tmp_path: Path, database: str) -> None:
    settings = '[tool.uv.audit]\nignore-until-fixed = ["PYSEC-2026-1", "GHSA-aaaa-bbbb-cccc"]\n'
    done = audit(workflow, tmp_path, database, settings)
    assert done.returncode == 1, done.stderr
    assert "GHSA-aaaa-bbbb-cccc" in done.stdout
    assert "PYSEC-2026-1" not in done.stdout


def test_ci_does_not_depend_on_the_audit() -> None:
    assert "audit" not in (WORKFLOWS / "ci.yml.jinja").read_text(encoding="utf-8")
