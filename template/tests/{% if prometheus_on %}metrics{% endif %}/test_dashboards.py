"""Dashboards and alert rules use only metrics and labels that the code exports."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.core.discovery import load_feature_modules
from tests import ROOT

FOLDER = ROOT / "observability"
# Metrics of Prometheus itself and of its client, which does not export them on every system.
KNOWN: dict[str, set[str]] = {"up": set(), "process_resident_memory_bytes": set()}
OF_PROMETHEUS = {"job", "instance", "le"}
OPERATORS = {"and", "by", "ignoring", "on", "or", "unless", "without"}
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?")


def exported() -> dict[str, set[str]]:
    """Return the labels of each exported metric."""
    found = dict(KNOWN)
    load_feature_modules("requests")
    load_feature_modules("worker")
    # Other features have a module of this name too.
    queues = [module for module in load_feature_modules("queues") if ".metrics." in module.__name__]
    collectors: list[Any] = [REGISTRY, *(module.QueueMetrics() for module in queues)]
    for metric in [metric for collector in collectors for metric in collector.collect()]:
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(metric.type, [""])
        labels = {label for sample in metric.samples for label in sample.labels} | {*getattr(metric, "_labelnames", ())}
        found |= {metric.name + suffix: labels for suffix in suffixes}
    # A metric without samples does not show its labels.
    for metric in vars(REGISTRY)["_names_to_collectors"].values():
        names = set(getattr(metric, "_labelnames", ()))
        for name in found:
            if names and name.startswith(vars(metric)["_name"]):
                found[name] |= names
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each expression with the name of its file."""
    for path in sorted(FOLDER.glob("rules/*.yml")):
        for expression in re.findall(r"^ +expr: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield path.name, expression
    for path in sorted(FOLDER.glob("grafana/*.json")):
        board: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield path.name, target["expr"]


def unknown(expression: str) -> set[str]:
    """Return the metrics and labels in an expression that are not exported."""
    known, wrong = exported(), set()
    groups = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    grouped = {label for group in groups for label in re.split(r", *", group)}
    bare = re.sub(r"\b(by|on) \([^)]*\)|\[[^]]*\]", " ", expression)
    used: set[str] = set()
    for name, selector in _SELECTOR.findall(re.sub(r"\b\w+\s*(?=\()", " ", bare)):
        if name in OPERATORS:
            continue
        if name not in known:
            wrong.add(name)
            continue
        used |= known[name]
        wrong |= set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selector)) - known[name] - OF_PROMETHEUS
    return wrong | (grouped - used - OF_PROMETHEUS)


def test_there_are_expressions() -> None:
    assert len(list(expressions())) >= 9


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_is_exported(where: str, expression: str) -> None:
    assert unknown(expression) == set(), where


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("sum(rate(http_request_total[5m])) > 1", {"http_request_total"}),
        ('http_requests_total{code="500"}', {"code"}),
        ("sum by (path) (rate(http_requests_total[5m]))", {"path"}),
        ('up{job="api"} == 0', set()),
    ],
)
def test_an_unknown_metric_or_label_is_found(expression: str, wrong: set[str]) -> None:
    assert unknown(expression) == wrong


def runbooks() -> dict[str, str]:
    """Return the address of each alert's section in docs/operations.md."""
    found = {}
    for path in sorted(FOLDER.glob("rules/*.yml")):
        for alert in path.read_text(encoding="utf-8").split("- alert: ")[1:]:
            address = re.search(r"^ +runbook_url: (\S+)$", alert, re.MULTILINE)
            found[alert.splitlines()[0]] = address[1] if address else "none"
    return found


def sections() -> set[str]:
    """Return the headings of docs/operations.md that are names of alerts."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    alerts = re.search(r"^## Alerts$(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    assert alerts
    return set(re.findall(r"^### (\S+)$", alerts[1], re.MULTILINE))


def test_every_alert_names_its_section_of_the_runbook() -> None:
    assert runbooks() == {alert: f"docs/operations.md#{alert.lower()}" for alert in runbooks()}


def test_the_runbook_has_a_section_for_every_alert_and_for_no_other() -> None:
    assert sections() == set(runbooks())
