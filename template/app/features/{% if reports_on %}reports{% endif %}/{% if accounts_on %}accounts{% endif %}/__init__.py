"""Series of accounts for the monthly report."""
