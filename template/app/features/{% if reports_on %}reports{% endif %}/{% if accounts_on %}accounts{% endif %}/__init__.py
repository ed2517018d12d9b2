"""What the monthly report counts of accounts."""
