"""How a row of a CSV file is processed. Replace this with your own processing."""


def output_columns(columns: list[str]) -> list[str]:
    """Return the output's columns for the input's columns."""
    return columns


def process_row(row: dict[str, str]) -> dict[str, str]:
    """Return the output row: here the values without surrounding spaces.

    Called for each row in order. After a crash it is called again for the rows of the last batch. They appear in the
    output once, but any other side effect must be idempotent.

    Raises:
        ValueError: the row is rejected; the message is the reason.
    """
    processed = {column: value.strip() for column, value in row.items()}
    if not any(processed.values()):
        raise ValueError("the row is empty")
    return processed
