"""Prevent CSV injection: https://owasp.org/www-community/attacks/CSV_Injection."""

import re

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(\d[\d.,]*|[.,]\d+)([eE][+-]?\d+)?%?", re.ASCII)


def escape_formula(cell: object) -> object:
    """Return the cell with an apostrophe in front if a spreadsheet would run it as a formula. Numbers are unchanged."""
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell
