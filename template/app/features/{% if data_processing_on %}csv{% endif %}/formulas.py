"""Cells that a spreadsheet would take for formulas: https://owasp.org/www-community/attacks/CSV_Injection."""

import re

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(\d[\d.,]*|[.,]\d+)([eE][+-]?\d+)?%?", re.ASCII)


def escape_formula(cell: object) -> object:
    """Return a cell with an apostrophe before what a spreadsheet would run; numbers, such as -5, stay what they are."""
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell
