"""Report the exceptions of requests and tasks to Sentry, without personal data. Does nothing if SENTRY_DSN is empty."""

import sentry_sdk
from sentry_sdk.integrations import Integration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.types import Event, Hint

from app.core.config import defaults
from app.core.config.application import app_settings
from app.features.error_reports.config import sentry_settings


def start(*more: Integration) -> None:
    """Start to report the errors of this process and its forks; `more` are additional Sentry integrations."""
    dsn = sentry_settings.dsn.get_secret_value()
    if not dsn:
        return
    sentry_sdk.init(
        dsn,
        environment=app_settings.environment,
        release=f"{defaults.SLUG}@{app_settings.version}",
        before_send=_without_query,
        send_default_pii=False,
        # Local variables and bodies contain the data of clients.
        include_local_variables=False,
        max_request_body_size="never",
        # The integrations for databases and Redis would add every statement and key to a report.
        auto_enabling_integrations=False,
        integrations=[LoggingIntegration(level=None, event_level=None), *more],
    )


def _without_query(event: Event, _: Hint) -> Event:
    event.get("request", {}).pop("query_string", None)
    return event
