"""Configuration: one `SettingsGroup` per topic, with one instance below it, such as `app_settings`.

The core's groups are in this package, a feature's in its `config.py`. Values come from the process environment, then
`secret/.env.<ENVIRONMENT>`, then the classes' defaults. If settings are invalid, the process exits with code 2
and prints one line for each to stderr.
"""

import importlib
import pkgutil
import sys
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.core.config.base import SettingsGroup
from app.core.config.problems import all_groups, find_problems
from app.core.discovery import feature_modules
from app.core.moved import moved_attributes


class UnsafeSettings(SystemExit):
    """The settings are not safe for production; the message lists the problems. Ends the process with exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 2


def load_groups() -> list[SettingsGroup]:
    """Read all settings groups of the application again and return them."""
    return [group() for group in all_groups() if group.__module__.startswith("app.")]


def audit_settings() -> list[str]:
    """Return the settings that are not safe for production: one sentence each, with the variable's name."""
    return [problem for group in load_groups() for problem in group.audit()]


def require_safe_settings() -> None:
    """Check the settings in staging and production; do nothing in development and tests.

    Raises:
        UnsafeSettings: the audit found problems, which are also printed to stderr.
    """
    from app.core.config.application import ApplicationSettings  # noqa: PLC0415 - defines a group: see _load

    application = ApplicationSettings()
    unsafe = audit_settings() if application.must_be_safe else []
    if unsafe:
        listed = "\n".join(f"- {problem}" for problem in unsafe)
        message = f"ENVIRONMENT={application.environment} needs safe settings; fix these:\n{listed}"
        print(message, file=sys.stderr)
        raise UnsafeSettings(message)


def _load() -> None:
    """Import all modules with settings first, so that all problems are reported at once."""
    names = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
    invalid = []
    for name in (*names, *feature_modules("config")):
        try:
            importlib.import_module(name)
        except (ValidationError, SettingsError) as error:
            # `find_problems` reports it with the place of each value, if the group still exists: Python forgets a module that
            # failed, and only the error's traceback refers to its classes.
            invalid.append(error)
    problems = find_problems()
    if problems:
        # Exit without a traceback, which would hide the problems.
        print(*problems, sep="\n", file=sys.stderr)
        sys.exit(2)


_load()


class _Settings:
    """The attributes of `settings` in releases before 0.5.0, such as `settings.celery`."""

    __getattr__ = moved_attributes(
        "settings",
        {
            "app": "app.core.config.application.app_settings",
            "database": "app.core.config.database.database_settings",
            "redis": "app.core.config.redis.redis_settings",
            "celery": "app.core.config.celery.celery_settings",
            "jwt": "app.features.accounts.config.jwt_settings",
            "passwords": "app.features.accounts.config.password_settings",
            "codes": "app.features.accounts.complete.config.code_settings",
            "email": "app.features.email.config.email_settings",
            "redbeat": "app.features.redbeat.config.redbeat_settings",
            "notifications": "app.features.notifications.config.notification_settings",
            "storage": "app.features.storage.config.storage_settings",
            "backup": "app.features.backup.config.backup_settings",
            "metrics": "app.features.metrics.config.metrics_settings",
            "sentry": "app.features.error_reports.config.sentry_settings",
            "cors": "app.features.cors.config.cors_settings",
        },
    )


settings: Any = _Settings()
"""Deprecated: import the group's instance instead."""
