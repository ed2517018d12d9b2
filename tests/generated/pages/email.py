"""docs/email.md."""

from tests.pages.hooks import Names, after


@after("def send_invoice")
async def its_arguments_are_in_no_event(names: Names) -> None:
    assert names["send_invoice"].redact_arguments is True
