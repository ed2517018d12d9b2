"""Render a monthly report as a PDF."""

import calendar
import functools
import io
import unicodedata
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.shapes import Drawing
from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from app.core.config.application import app_settings
from app.features.reports.service import Month, MonthlyReport, Series

_COLORS = [colors.HexColor(color) for color in ("#2f6fab", "#e0873a", "#4f9d69", "#8a5aa8", "#b04a4a")]
_MARGIN = 50
# reportlab's frame has a padding of 6 points on each side.
_WIDTH = A4[0] - 2 * _MARGIN - 12


def render_pdf(report: MonthlyReport) -> bytes:
    """Return the PDF. The same report always results in the same bytes."""
    content = io.BytesIO()
    title = f"{app_settings.name}: {month_name(report.month)}"
    document = SimpleDocTemplate(
        content,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=title,
        author=app_settings.name,
        # Omit the creation time and random id of a PDF.
        invariant=1,
    )
    document.build([*_head(title, report), *(_body(report) if report.series else ())])
    return content.getvalue()


def month_name(month: Month) -> str:
    """Return the month's name and year, such as `May 2026`."""
    return f"{calendar.month_name[month.month]} {month.year}"


def _head(title: str, report: MonthlyReport) -> list[Flowable]:
    regular, bold = _fonts()
    heading = ParagraphStyle("heading", fontName=bold, fontSize=18, leading=24)
    text = ParagraphStyle("text", fontName=regular, fontSize=9, leading=13, textColor=colors.HexColor("#444444"))
    notes = [f"Days start at midnight in {report.month.zone.key}.", *report.notes]
    if report.month.edges()[-1] > datetime.now(UTC):
        notes.append("The month is not over yet; these are the numbers so far.")
    return [Paragraph(_printable(title), heading), *(Paragraph(_printable(note), text) for note in notes)]


def _body(report: MonthlyReport) -> list[Flowable]:
    body: list[Flowable] = []
    # One chart and table for as many series as there are colors; a table with that many columns fits the page.
    for first in range(0, len(report.series), len(_COLORS)):
        series = report.series[first : first + len(_COLORS)]
        body += [
            Spacer(0, 8),
            KeepTogether([_chart(series), _legend(series)]),
            Spacer(0, 8),
            _table(report.month, series),
        ]
    return body


def _chart(series: list[Series]) -> Drawing:
    regular, _ = _fonts()
    drawing = Drawing(_WIDTH, 150)
    chart = VerticalBarChart()
    chart.data = [one.values for one in series]
    chart.categoryAxis.categoryNames = [str(day) for day in range(1, len(series[0].values) + 1)]
    chart.valueAxis.valueMin = 0
    # The axis has whole numbers, even if all values are 0.
    highest = max(1, *(value for one in series for value in one.values))
    chart.valueAxis.valueStep = max(1, -(-highest // 5))
    chart.valueAxis.valueMax = chart.valueAxis.valueStep * -(-highest // chart.valueAxis.valueStep)
    chart.x = max(30, 10 + pdfmetrics.stringWidth(str(chart.valueAxis.valueMax), regular, 6))
    chart.y, chart.width, chart.height = 14, _WIDTH - chart.x, 130
    for axis in (chart.categoryAxis, chart.valueAxis):
        axis.labels.fontName, axis.labels.fontSize = regular, 6
    for number, color in enumerate(_COLORS[: len(series)]):
        chart.bars[number].fillColor, chart.bars[number].strokeColor = color, None
    drawing.add(chart)
    return drawing


def _legend(series: list[Series]) -> Table:
    text = ParagraphStyle("legend", fontName=_fonts()[0], fontSize=8, leading=10)
    lines = [
        ("LINEBEFORE", (number, 0), (number, 0), 8, color, "butt")
        for number, color in enumerate(_COLORS[: len(series)])
    ]
    style = TableStyle([*lines, ("LEFTPADDING", (0, 0), (-1, -1), 12), ("VALIGN", (0, 0), (-1, -1), "TOP")])
    names = [Paragraph(_printable(one.name), text) for one in series]
    return Table([names], colWidths=[_WIDTH / len(_COLORS)] * len(series), style=style, hAlign="LEFT")


def _table(month: Month, series: list[Series]) -> Table:
    regular, bold = _fonts()
    text = ParagraphStyle("head", fontName=bold, fontSize=8, leading=10, alignment=TA_RIGHT)
    rows: list[list[object]] = [["Day", *(Paragraph(_printable(one.name), text) for one in series)]]
    for index in range(len(series[0].values)):
        day = f"{month.year}-{month.month:02}-{index + 1:02}"
        rows.append([day, *(f"{one.values[index]:,}" for one in series)])
    rows.append(["Total", *(f"{sum(one.values):,}" for one in series)])
    style = TableStyle(
        [
            ("FONT", (0, 0), (-1, -1), regular, 8),
            ("FONT", (0, 0), (-1, 0), bold, 8),
            ("FONT", (0, -1), (-1, -1), bold, 8),
            ("ALIGN", (1, 0), (-1, -1), "RIGHT"),
            ("VALIGN", (0, 0), (-1, 0), "BOTTOM"),
            ("LINEBELOW", (0, 0), (-1, 0), 0.7, colors.black),
            ("LINEABOVE", (0, -1), (-1, -1), 0.7, colors.black),
            ("TOPPADDING", (0, 0), (-1, -1), 1),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
        ]
    )
    return Table(rows, colWidths=[_WIDTH / len(rows[0])] * len(rows[0]), style=style, repeatRows=1)


@functools.cache
def _fonts() -> tuple[str, str]:
    """Register a regular and a bold font and return their names.

    DejaVu (Debian's package `fonts-dejavu-core`) supports nearly all European scripts. The fallback is Bitstream Vera,
    which comes with reportlab and supports western languages.
    """
    for regular, bold in (("DejaVuSans", "DejaVuSans-Bold"), ("Vera", "VeraBd")):
        try:
            for name in (regular, bold):
                pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
        except TTFError:
            continue
        return regular, bold
    raise RuntimeError("No font found: reportlab was installed without its fonts.")


def _printable(text: str) -> str:
    """Return `text` for a paragraph. A letter that the font does not have is replaced by the letter without accent."""
    known = pdfmetrics.getFont(_fonts()[0]).face.charToGlyph
    return escape("".join(char if ord(char) in known else _plain(char) for char in text))


def _plain(char: str) -> str:
    base = unicodedata.normalize("NFKD", char)[0]
    return base if base.isascii() else "?"
