"""One logging configuration for the API, the worker and beat."""

import io
import logging
import logging.config
import re
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from app.core.config.application import app_settings

# uvicorn installs its own handlers, which would log each record twice.
_OWN_HANDLERS = ("uvicorn", "uvicorn.access", "uvicorn.error")
# Clients can put these into paths and headers: characters that move the cursor, start a line or change the text
# direction.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTROL_IN_TRACEBACK = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
# Celery's messages about each task: app/worker/logs.py logs one line per run instead.
_QUIETER = ("celery.app.trace", "celery.worker.strategy", "kombu", "asyncio")

# One list: loggers that were used before go on with it, and so do tests with structlog.testing.capture_logs().
_processors: list[structlog.types.Processor] = []


def configure_logging() -> None:
    """Write all records of structlog and `logging` from `LOG_LEVEL` up to stderr in `LOG_FORMAT`."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
    ]
    renderers: list[structlog.types.Processor]
    if app_settings.log_format == "json":
        renderers = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_escaped_traceback)
        renderers = [_escape_controls, console]

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Formatter(
            # Without ExtraAdder: Celery puts a failed task's arguments into the records' extra fields.
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(app_settings.log_level)
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _QUIETER:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))

    _processors[:] = [
        # First: a line below the level costs nothing more.
        structlog.stdlib.filter_by_level,
        *shared,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def error_repr(error: BaseException) -> str:
    """Return the class and the arguments of an error: the `repr` of redis-py's errors (8.1.0) leaves the message out."""
    return BaseException.__repr__(error)


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """structlog's formatter, which copies no more of a structlog record than its event: half of the time of a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        event: Any = record.msg
        logger, method = getattr(record, "_logger", None), getattr(record, "_name", "")
        if logger is None or not isinstance(event, dict):
            return super().format(record)
        rendered: Any = {**event, "_record": record, "_from_structlog": True}
        for processor in self.processors:
            rendered = processor(logger, method, rendered)
        return str(rendered)


def _escape_controls(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape control characters, so that a client cannot forge log lines. The JSON renderer does so itself."""
    for key, value in event.items():
        if isinstance(value, str):
            # The line breaks of a stack are ours.
            event[key] = (_CONTROL_IN_TRACEBACK if key == "stack" else _CONTROL).sub(_escaped, value)
    return event


def _escaped_traceback(output: TextIO, exc_info: ExcInfo) -> None:
    written = io.StringIO()
    structlog.dev.plain_traceback(written, exc_info)
    output.write(_CONTROL_IN_TRACEBACK.sub(_escaped, written.getvalue()))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
