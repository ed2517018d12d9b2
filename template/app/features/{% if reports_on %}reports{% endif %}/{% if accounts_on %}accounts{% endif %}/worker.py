"""Add the series of accounts to the monthly report."""

from app.features.reports.accounts.series import NOTE, account_series
from app.features.reports.data import notes, sources


def connect() -> None:
    """Register the series."""
    sources.append(account_series)
    notes.append(NOTE)
