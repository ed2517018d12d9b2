"""What is done with a row of a CSV file. Put your own here."""


def output_columns(columns: list[str]) -> list[str]:
    """Return the columns of the output, given those of the input."""
    return columns


def process_row(row: dict[str, str]) -> dict[str, str]:
    """Return the row as it is written to the output: its values without spaces around them.

    Rows are handed over in order. After a crash the rows of the last batch are handed over again, and are still in the output
    once: what else this does must bear that.

    Raises:
        ValueError: the row is put aside, with the message as the reason.
    """
    processed = {column: value.strip() for column, value in row.items()}
    if not any(processed.values()):
        raise ValueError("the row is empty")
    return processed
