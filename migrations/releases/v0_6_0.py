"""0.6.0: without the names of releases before 0.5.0."""

from __future__ import annotations

from collections.abc import Mapping

from engine.release import Answers, Release
from engine.stale_imports import modules
from releases import v0_5_0
from releases.conditions import with_celery, with_pack

_ACCOUNTS = "app.features.accounts"
_SETTINGS = "app.core.config.settings"
_WORKER = "app.worker"
_NAMES = {
    # Modules that 0.5.0 merged into others.
    "app.core.config.passwords": f"{_ACCOUNTS}.config",
    "app.models.account_registration": f"{_ACCOUNTS}.complete.models",
    "app.models.session": f"{_ACCOUNTS}.models",
    # Models.
    "app.models.AccountCode": f"{_ACCOUNTS}.complete.models.AccountCode",
    "app.models.AccountRegistration": f"{_ACCOUNTS}.complete.models.AccountRegistration",
    "app.models.Session": f"{_ACCOUNTS}.models.Session",
    "app.models.User": f"{_ACCOUNTS}.models.User",
    # Settings.
    _SETTINGS: "an instance for each group, such as app.core.config.application.app_settings",
    f"{_SETTINGS}.app": "app.core.config.application.app_settings",
    f"{_SETTINGS}.backup": "app.features.backup.config.backup_settings",
    f"{_SETTINGS}.celery": "app.core.config.celery.celery_settings",
    f"{_SETTINGS}.codes": f"{_ACCOUNTS}.complete.config.code_settings",
    f"{_SETTINGS}.cors": "app.features.cors.config.cors_settings",
    f"{_SETTINGS}.database": "app.core.config.database.database_settings",
    f"{_SETTINGS}.email": "app.features.email.config.email_settings",
    f"{_SETTINGS}.jwt": f"{_ACCOUNTS}.config.jwt_settings",
    f"{_SETTINGS}.metrics": "app.features.metrics.config.metrics_settings",
    f"{_SETTINGS}.notifications": "app.features.notifications.config.notification_settings",
    f"{_SETTINGS}.passwords": f"{_ACCOUNTS}.config.password_settings",
    f"{_SETTINGS}.redbeat": "app.features.redbeat.config.redbeat_settings",
    f"{_SETTINGS}.redis": "app.core.config.redis.redis_settings",
    f"{_SETTINGS}.sentry": "app.features.error_reports.config.sentry_settings",
    f"{_SETTINGS}.storage": "app.features.storage.config.storage_settings",
    "app.core.config.base.BaseConcern": "app.core.config.base.SettingsGroup",
    # Routes.
    "app.api.owner.Owner": "app.api.owner.OwnerDep",
    "app.api.owner.TaskReader": "app.api.owner.TaskReaderDep",
    "app.features.files.quota.JOB_ANSWERS": "app.features.files.quota.JOB_RESPONSES",
    # Tasks.
    "hides_arguments": "redact_arguments",
    "tells_last_success": "record_last_success",
    f"{_WORKER}.beat.HonestScheduler": f"{_WORKER}.beat.HeartbeatScheduler",
    f"{_WORKER}.heartbeat.Beating": f"{_WORKER}.heartbeat.HeartbeatThread",
    f"{_WORKER}.heartbeat.HeldTasks": f"{_WORKER}.visibility.VisibilityRenewal",
    f"{_WORKER}.heartbeat.renew": f"{_WORKER}.visibility.renew",
    f"{_WORKER}.liveness.EVERY": f"{_WORKER}.liveness.INTERVAL",
    f"{_WORKER}.liveness.Heartbeat": f"{_WORKER}.liveness.LivenessHeartbeat",
    f"{_WORKER}.liveness.Progress": f"{_WORKER}.progress.ConsumerProgress",
    f"{_WORKER}.liveness.living_workers": f"{_WORKER}.liveness.count_workers",
    f"{_WORKER}.liveness.touch": f"{_WORKER}.liveness.touch_probe_file",
    f"{_WORKER}.messages.MessageGuard": f"{_WORKER}.poison_messages.PoisonMessageHandler",
    f"{_WORKER}.owners.TooManyJobs": f"{_WORKER}.job_limit.TooManyJobs",
    f"{_WORKER}.owners.admit": f"{_WORKER}.job_limit.admit",
    f"{_WORKER}.owners.jobs_key": f"{_WORKER}.job_limit.jobs_key",
    f"{_WORKER}.records.ResultBackend": f"{_WORKER}.result_backend.ResultBackend",
    f"{_WORKER}.records.TaskStatus": f"{_WORKER}.status.TaskStatus",
    f"{_WORKER}.records.count_redelivery": f"{_WORKER}.redelivery.count_redelivery",
    f"{_WORKER}.records.excuse_redelivery": f"{_WORKER}.redelivery.excuse_redeliveries",
    f"{_WORKER}.records.read_status": f"{_WORKER}.status.read_status",
    f"{_WORKER}.task.RedeliveryLimitExceeded": f"{_WORKER}.redelivery.RedeliveryLimitExceeded",
}


def _names(answers: Answers) -> Mapping[str, str]:
    """Return what 0.5.0 renamed and still accepted."""
    moved = modules(v0_5_0.RELEASE.moves(answers))
    return {old: new for old, new in moved.items() if old.startswith("app.")} | _NAMES


RELEASE = Release(
    "0.6.0",
    names=_names,
    changes=(
        "The names of modules, settings and models of releases before 0.5.0, which warned in 0.5.0, are removed: `settings.celery`, "
        "app.services.accounts, app.models.User and others.",
        with_pack("backup", "`python -m app.backup` is removed: use `python -m app.features.backup`."),
        with_celery(
            "The task options hides_arguments and tells_last_success raise TypeError: write redact_arguments and record_last_success."
        ),
        with_celery(
            "Workers take messages with app/worker/transport.py: faster, and a killed worker loses none. Queues, messages and results stay "
            "as they are, and workers of both releases can run at the same time. CELERY_TRANSPORT=kombu returns to the old way."
        ),
        with_celery(
            "A worker takes four messages for each process in advance, of the queue long one: see docs/running-workers.md. Move long "
            "tasks to that queue, or set worker_prefetch_multiplier=1 in app/core/celery.py."
        ),
        with_celery(
            "WORKER_POOL and WORKER_CONCURRENCY replace --concurrency in the commands; a worker without them starts 2 processes. "
            "An option that you added to a command takes precedence."
        ),
        with_celery(
            "A task has one log line at INFO, task_finished; task_started is logged at DEBUG, and its field retries is attempt."
        ),
    ),
    steps=(
        "If a part above lists files that use an old name, change each of its lines: importing an old name fails. Run `make check` "
        "and the tests.",
    ),
)
