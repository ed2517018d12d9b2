"""One logging configuration for the API, the worker and beat."""

import logging
import logging.config
import sys

import structlog

from app.core.config import settings

# uvicorn brings handlers of its own; Celery reports what app/worker/logs.py says in one line with its times.
_OWN_HANDLERS = ("uvicorn", "uvicorn.access", "uvicorn.error")
_QUIETER = ("celery.app.trace", "celery.worker.strategy", "kombu", "asyncio")


def configure_logging() -> None:
    """Send every record, structlog's and the standard library's, to standard error in `LOG_FORMAT` from `LOG_LEVEL` up."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
    ]
    renderers: list[structlog.types.Processor]
    if settings.app.log_format == "json":
        renderers = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # Without the records' extra fields: Celery puts a failed task's arguments there.
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.app.log_level)
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _QUIETER:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))

    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
