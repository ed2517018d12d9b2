"""The application with all of its servers."""

from app.cli.console import ExitCode, fail


def command() -> None:
    """Run the application and everything it needs on this machine, until Ctrl-C: `make dev`."""
    try:
        from devtools import dev
    except ModuleNotFoundError as error:
        if error.name != "devtools":
            raise
        fail("devtools/ is missing, as in the image for production.", ExitCode.USAGE)
    dev.main()
