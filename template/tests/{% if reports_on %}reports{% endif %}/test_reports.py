"""Monthly reports: the bounds of a month, the counts per day, and the PDF."""

import asyncio
import io
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx2 as httpx
import pytest
from pypdf import PdfReader
from pypdf.generic import ContentStream
from reportlab.pdfbase import pdfmetrics
from sqlalchemy import Column, Integer, MetaData, Table, insert

from app.api import owner
from app.core.config.application import app_settings
from app.core.config.celery import celery_settings
from app.core.database import session_scope
from app.features.reports.pdf import _fonts, render_pdf
from app.features.reports.service import Month, MonthlyReport, Series, count_per_day, reportable_month
from app.main import create_app
from app.models import UtcDateTime

BERLIN = ZoneInfo("Europe/Berlin")


def _hours(month: Month) -> list[float]:
    edges = month.edges()
    return [(end - start) / timedelta(hours=1) for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize(
    ("year", "month", "days", "odd"),
    [(2026, 3, 31, {29: 23}), (2026, 10, 31, {25: 25}), (2024, 2, 29, {}), (2026, 2, 28, {}), (2026, 12, 31, {})],
)
def test_each_day_ends_at_the_start_of_the_next(year: int, month: int, days: int, odd: dict[int, int]) -> None:
    hours = _hours(Month(year, month, BERLIN))
    assert len(hours) == days
    assert {day: length for day, length in enumerate(hours, 1) if length != 24} == odd


def test_a_month_starts_and_ends_at_midnight_of_its_time_zone() -> None:
    edges = Month(2026, 3, BERLIN).edges()
    assert edges[0] == datetime(2026, 2, 28, 23, tzinfo=UTC)
    assert edges[-1] == datetime(2026, 3, 31, 22, tzinfo=UTC), "daylight saving time has started in between"
    assert Month(2026, 12, BERLIN).edges()[-1] == Month(2027, 1, BERLIN).edges()[0]


def test_a_day_that_a_time_zone_skipped_has_no_hours() -> None:
    hours = _hours(Month(2011, 12, ZoneInfo("Pacific/Apia")))
    assert hours[29] == 0
    assert sum(hours) == 30 * 24


def test_the_default_time_zone_is_that_of_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_settings, "timezone", "Asia/Tokyo")
    assert Month(2026, 1).edges()[0] == datetime(2025, 12, 31, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("month", "year", "reason"),
    [
        (0, 2026, "month=.* must be an integer from 1 to 12"),
        (13, 2026, "month=.* must be an integer from 1 to 12"),
        ("5", 2026, "month=.* must be an integer from 1 to 12"),
        (True, 2026, "month=.* must be an integer from 1 to 12"),
        (1, 1969, "year=.* must be an integer from 1970 to 9999"),
        (1, 10_000, "year=.* must be an integer from 1970 to 9999"),
        (12, 9999, "9999-12 has not started"),
    ],
)
def test_an_invalid_month_is_rejected(month: Any, year: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        reportable_month(month, year)


def test_a_month_can_be_reported_from_its_start() -> None:
    now = datetime.now(ZoneInfo(celery_settings.timezone))
    assert reportable_month(now.month, now.year) == Month(now.year, now.month)
    later = now.replace(day=1) + timedelta(days=31)
    with pytest.raises(ValueError, match="has not started"):
        reportable_month(later.month, later.year)


@pytest.fixture
def visits() -> Iterator[Table]:
    """Yield an empty table with a datetime column."""
    table = Table("visits", MetaData(), Column("id", Integer, primary_key=True), Column("at", UtcDateTime))

    async def run(method: Any) -> None:
        async with session_scope() as db:
            await (await db.connection()).run_sync(method)

    asyncio.run(run(table.create))
    yield table
    asyncio.run(run(table.drop))


def test_rows_are_counted_on_the_day_of_the_time_zone(visits: Table) -> None:
    month = Month(2026, 3, BERLIN)
    edges = month.edges()
    tick = timedelta(microseconds=1)
    moments = [
        *(edges[0] - tick, edges[0], edges[1] - tick, edges[1]),
        # The evening of the 29th, after the start of daylight saving time.
        *[datetime(2026, 3, 29, 21, 59, tzinfo=UTC)] * 3,
        *(edges[-1] - tick, edges[-1], edges[-1] + timedelta(hours=12)),
    ]

    async def count() -> list[int]:
        async with session_scope() as db:
            await db.execute(insert(visits), [{"at": moment} for moment in moments])
            return await count_per_day(db, visits.c.at, month)

    counts = asyncio.run(count())
    assert len(counts) == 31
    assert {day: number for day, number in enumerate(counts, 1) if number} == {1: 2, 2: 1, 29: 3, 31: 1}


def _report(*series: Series) -> MonthlyReport:
    return MonthlyReport(Month(2026, 2, BERLIN), list(series), ["Größe, Łódź, señor & <b>"])


def _bars(page: Any, reader: PdfReader) -> list[float]:
    """Return the heights of the rectangles on the page, sorted."""
    stream = ContentStream(page.get_contents(), reader)
    return sorted(float(operands[3]) for operands, operator in stream.operations if operator == b"re")


def test_the_pdf_shows_a_title_a_chart_and_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_settings, "name", "Café Ångström")
    values = [0] * 28
    values[3], values[4] = 1234, 617
    content = render_pdf(_report(Series("Orders", values)))
    reader = PdfReader(io.BytesIO(content))
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert "Café Ångström: February 2026" in text
    assert "Größe, Łódź, señor & <b>" in text or "Größe, Łódz, señor & <b>" in text
    assert "Days start at midnight in Europe/Berlin." in text
    assert "The month is not over" not in text or datetime.now(UTC) < datetime(2026, 3, 1, tzinfo=UTC)
    for day, number in (("2026-02-01", "0"), ("2026-02-04", "1,234"), ("2026-02-28", "0"), ("Total", "1,851")):
        assert f"{day}\n{number}" in text
    assert "2026-02-29" not in text
    heights = _bars(reader.pages[0], reader)
    assert heights[-1] > 50, "the chart has a bar for the highest value"
    assert heights[-1] == pytest.approx(2 * heights[-2], rel=0.01), "and one that is half as high"
    assert reader.metadata is not None
    assert reader.metadata.title == "Café Ångström: February 2026"


def test_the_same_report_has_the_same_bytes() -> None:
    report = _report(Series("Orders", list(range(28))), Series("Visits", [1] * 28))
    assert render_pdf(report) == render_pdf(report)


@pytest.mark.parametrize("series", [[], [Series("Orders", [0] * 28)], [Series(f"S{n}", [n] * 28) for n in range(7)]])
def test_a_report_may_have_no_or_many_series(series: list[Series]) -> None:
    reader = PdfReader(io.BytesIO(render_pdf(_report(*series))))
    assert "February 2026" in reader.pages[0].extract_text()


def _runs(content: bytes) -> list[tuple[int, float, float, float]]:
    """Return the page, baseline, left end and right end of each piece of text."""
    runs: list[tuple[int, float, float, float]] = []
    for number, page in enumerate(PdfReader(io.BytesIO(content)).pages):

        def note(text: str, outer: Any, inner: Any, font: Any, size: float, number: int = number) -> None:
            if text.strip():
                name = _fonts()["Bold" in font["/BaseFont"] or font["/BaseFont"].endswith("Bd")]
                left, base = inner[4] * outer[0] + outer[4], inner[5] * outer[3] + outer[5]
                runs.append((number, base, left, left + pdfmetrics.stringWidth(text.strip(), name, size)))

        page.extract_text(visitor_text=note)
    return runs


@pytest.mark.parametrize(
    "series",
    [
        [Series(f"A rather long name of a series no. {number}", [10**number] * 28) for number in range(12)],
        [Series(f"S{number}", [123_456_789] * 28) for number in range(14)],
        [Series("Größe " * 20, [10**12] * 28), Series("x" * 100, [1] * 28)],
    ],
    ids=["long names", "many series", "very long names"],
)
def test_no_text_is_cut_off_or_overlaps(series: list[Series]) -> None:
    runs = sorted(_runs(render_pdf(_report(*series))))
    assert len(runs) > 28 * (len(series) + 1)
    assert min(left for *_, left, _ in runs) > 10
    assert max(right for *_, right in runs) < 595 - 40
    for (page, base, _, end), (next_page, next_base, start, _) in itertools.pairwise(runs):
        assert (page, base) != (next_page, next_base) or end <= start + 0.5


def test_characters_missing_in_the_font_are_replaced() -> None:
    pages = PdfReader(io.BytesIO(render_pdf(_report(Series("\u65e5\u672c <b>", [1] * 28))))).pages
    assert pages[0].extract_text().count("?? <b>") == 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body", [{"month": 13, "year": 2026}, {"month": 1, "year": 1969}, {"month": 1, "year": 9999}, {"month": 1}, {}]
)
async def test_the_api_rejects_an_invalid_month(body: dict[str, int]) -> None:
    app = create_app()
    app.dependency_overrides[owner.current_owner] = lambda: "ada"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.post("/reports", json=body)).status_code == 422
