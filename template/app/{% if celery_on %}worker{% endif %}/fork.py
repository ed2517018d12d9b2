"""Share memory between the processes of a prefork worker.

What the main process imports before it forks is in memory once; what each process imports itself is there once for each, and
the first task waits for it. With four processes that use the database, a worker takes 165 MB instead of 250.
"""

import gc
from typing import Any

from celery import concurrency
from celery.signals import worker_init

from app.core.config.database import database_settings
from app.core.discovery import load_feature_modules


def connect() -> None:
    """Prepare the main process when a worker starts, before its pool forks."""
    worker_init.connect(prepare, weak=False)


def prepare(sender: Any, **_: object) -> None:
    """Import what tasks import when they run, if the worker's pool forks."""
    if concurrency.get_implementation(sender.pool_cls).__module__ != "celery.concurrency.prefork":
        return
    from app.core import database  # noqa: F401, PLC0415 - other pools and beat start without SQLAlchemy

    for name in ("models", "service"):
        load_feature_modules(name)
    # The first connection would import the database's driver.
    database_settings.sqlalchemy_url.get_dialect().import_dbapi()
    # Otherwise the first garbage collection of each process writes to nearly all shared memory, and so copies it.
    gc.collect()
    gc.freeze()
