"""The parts of the benchmarks that measure nothing: figures, tables, plots, the page and the command line."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as Xml
from pathlib import Path

import pytest

from benchmarks import resp, results, scaling, stats, svg, tables
from benchmarks.__main__ import PAGE, PARTS, RESULTS, asked
from benchmarks.context import Context
from benchmarks.environments import pinned_versions
from benchmarks.parts import Metric, Part
from benchmarks.report import page, plot_file
from benchmarks.results import Result
from benchmarks.stats import Summary
from forge_template import ROOT

MACHINE = {"system": "Linux", "processor": "2 cores", "memory": "8 GiB", "load": "0.1 0.1 0.1"}
RATE, LAG = Metric("rate", "tasks/s", ratio=True), Metric("lag", "lag, ms")
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def result() -> Result:
    """Two systems that were measured twice each."""
    made = Result("worker", False, "2026-01-02", MACHINE)
    for base, other in ((100.0, 250.0), (200.0, 300.0)):
        made.add("", "base", "rate", base)
        made.add("", "other", "rate", other)
    made.add("", "other", "lag", 1.25)
    return made


def test_a_ratio_compares_two_runs_of_the_same_turn() -> None:
    assert stats.ratios([250, 300], [100, 200]) == [2.5, 1.5]
    with pytest.raises(ValueError, match="2 runs"):
        stats.ratios([1, 2], [1])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1, 100), (0, 1)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert stats.percentile(range(100, 0, -1), share) == expected


def test_a_rate_does_not_count_the_warm_up() -> None:
    starts_slowly = [5.0, 5.6, *(6 + number / 100 for number in range(18))]
    assert stats.rate(starts_slowly, 1) == pytest.approx(100)
    with pytest.raises(ValueError, match="too few"):
        stats.rate(starts_slowly, 2)


def test_a_table_shows_ratios_first_and_the_spread_of_runs(result: Result) -> None:
    assert tables.table(result, (RATE, LAG), "base").splitlines() == [
        "| system | tasks/s: ratio | tasks/s | lag, ms |",
        "| --- | ---: | ---: | ---: |",
        "| base | 1 | 150 (100-200) |  |",
        "| other | **2.00** (1.50-2.50) | 275 (250-300) | 1.2 |",
    ]


def test_a_table_of_several_cases_compares_within_each_case(result: Result) -> None:
    for system, rate in (("base", 10.0), ("other", 5.0)):
        result.add("large", system, "rate", rate)
    assert tables.table(result, (RATE,), "base").splitlines()[-1] == "| large | other | **0.50** (0.50-0.50) | 5.0 |"


def test_a_result_is_read_as_it_was_written(result: Result, tmp_path: Path) -> None:
    assert results.read(result.write(tmp_path)) == result


def test_bars_are_as_long_as_their_medians() -> None:
    rows = [svg.Bar("a < b", Summary(4, 3, 5)), svg.Bar("c", Summary(1, 1, 1))]
    plot = Xml.fromstring(svg.bars("Tasks", rows))
    wide, narrow = (float(one.attrib["width"]) for one in plot.iter(f"{_SVG}rect"))
    assert wide == pytest.approx(4 * narrow, rel=0.01)
    assert "a < b" in [one.text for one in plot.iter(f"{_SVG}text")]


def test_equal_factors_are_equally_far_apart_on_a_curve() -> None:
    plot = Xml.fromstring(svg.lines("Messages", "queues", {"Forge": [(1, 1000), (10, 100), (100, 10)]}))
    points = next(one for one in plot.iter(f"{_SVG}polyline")).attrib["points"].split()
    x, y = ([float(one.split(",")[axis]) for one in points] for axis in (0, 1))
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    assert y[1] - y[0] == pytest.approx(y[2] - y[1], abs=0.2)
    with pytest.raises(ValueError, match="logarithmic"):
        svg.lines("Messages", "queues", {"Forge": [(0, 1)]})


def test_a_command_may_hold_any_bytes() -> None:
    assert resp.encode("SET", b"\r\n", 7) == b"*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$1\r\n7\r\n"


def test_sizes_that_are_asked_for_replace_the_others() -> None:
    measured = scaling.cases(Context(Path(), sizes={"queues": (3, 5)}))
    assert [(name, case.queues, case.consumers) for name, _, case in measured] == [("queues", 3, 1), ("queues", 5, 1)]


def test_a_million_messages_wait_but_not_a_million_large_ones() -> None:
    assert scaling.Case(waiting=1_000_000).messages() == 1_000_000
    assert scaling.Case(size=1_000_000).messages() < 300


def test_a_run_of_some_systems_or_sizes_does_not_change_the_page() -> None:
    assert not asked(["worker"]).partial
    for options in (["--quick"], ["--runs", "1"], ["worker", "--systems", "dramatiq"], ["scaling", "--queues", "1,2"]):
        assert asked(options).partial


@pytest.mark.parametrize("wrong", [["worke"], ["worker", "--systems", "sidekiq"]])
def test_an_unknown_part_or_system_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        asked(wrong)
    assert wrong[-1] in capsys.readouterr().err


@pytest.mark.parametrize(("bound", "problems"), [(math.inf, 0), (2.5, 0), (1.9, 1)])
def test_a_part_fails_above_its_bound(result: Result, bound: float, problems: int) -> None:
    bounded = Part("update", "", "", (RATE,), "base", lambda _context: result, bound=bound)
    assert len(bounded.beyond_bound(result)) == problems


def test_every_peer_has_an_exact_version() -> None:
    assert pinned_versions("fastapi-fullstack", "aegis-stack", "cookiecutter")
    assert all(pinned_versions("celery", "kombu", "dramatiq", "taskiq", "taskiq-redis", "huey", "arq", "rq").values())


def test_the_comparison_is_about_the_measured_versions() -> None:
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    for name, version in pinned_versions("fastapi-fullstack", "aegis-stack", "cookiecutter", "celery").items():
        assert f"{name}=={version}" in text or re.search(
            rf"^\| version \|.* {re.escape(version)} \|$", text, re.MULTILINE
        )


def test_the_page_names_what_is_not_measured(result: Result) -> None:
    text = page(PARTS, {"worker": result})
    assert "| base |" in text
    assert 'Not measured yet: `make bench ARGS="scaling"`' in text


def test_the_page_and_its_plots_show_the_kept_results() -> None:
    kept = {path.stem: results.read(path) for path in RESULTS.glob("*.json")}
    assert PAGE.read_text(encoding="utf-8") == page(PARTS, kept), "run: make bench ARGS=--page"
    plots = {
        plot_file(name): plot
        for part in PARTS
        if part.name in kept
        for name, plot in part.plots(kept[part.name]).items()
    }
    assert {path.name: path.read_text(encoding="utf-8") for path in PAGE.parent.glob("benchmarks-*.svg")} == plots
