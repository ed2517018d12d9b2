"""0.5.0: features in folders."""

from __future__ import annotations

from collections.abc import Mapping

from engine.release import Answers, Release
from releases.conditions import with_celery, with_pack

_APPLICATION = {
    "app/api/csv_files.py": "app/features/csv/routes.py",
    "app/api/current_user.py": "app/features/accounts/deps.py",
    "app/api/even_time.py": "app/features/accounts/complete/constant_time.py",
    "app/api/file_space.py": "app/features/files/quota.py",
    "app/api/files.py": "app/features/files/routes.py",
    "app/api/images.py": "app/features/images/routes.py",
    "app/api/known_device.py": "app/features/accounts/complete/known_device.py",
    "app/api/limits.py": "app/features/accounts/complete/limits.py",
    "app/api/logins.py": "app/features/accounts/complete/login_routes.py",
    "app/api/reports.py": "app/features/reports/routes.py",
    "app/api/tasks.py": "app/features/tasks/routes.py",
    "app/api/users.py": "app/features/accounts/complete/user_routes.py",
    "app/backup.py": "app/features/backup/__main__.py",
    "app/core/config/backup.py": "app/features/backup/config.py",
    "app/core/config/codes.py": "app/features/accounts/complete/config.py",
    "app/core/config/cors.py": "app/features/cors/config.py",
    "app/core/config/email.py": "app/features/email/config.py",
    "app/core/config/jwt.py": "app/features/accounts/config.py",
    "app/core/config/metrics.py": "app/features/metrics/config.py",
    "app/core/config/notifications.py": "app/features/notifications/config.py",
    "app/core/config/redbeat.py": "app/features/redbeat/config.py",
    "app/core/config/sentry.py": "app/features/error_reports/config.py",
    "app/core/config/storage.py": "app/features/storage/config.py",
    "app/core/error_reports.py": "app/features/error_reports/reporting.py",
    "app/core/metrics.py": "app/features/metrics/exposition.py",
    "app/core/rate_limit.py": "app/features/accounts/complete/rate_limit.py",
    "app/core/request_metrics.py": "app/features/metrics/requests.py",
    "app/core/security.py": "app/features/accounts/security.py",
    "app/core/tokens.py": "app/features/accounts/tokens.py",
    "app/core/tracing.py": "app/features/tracing/provider.py",
    "app/models/account_code.py": "app/features/accounts/complete/models.py",
    "app/models/user.py": "app/features/accounts/models.py",
    "app/schemas/account.py": "app/features/accounts/schemas.py",
    "app/services/accounts.py": "app/features/accounts/service.py",
    "app/services/after_commit.py": "app/features/accounts/complete/after_commit.py",
    "app/services/backup.py": "app/features/backup/service.py",
    "app/services/backup_failed.py": "app/features/backup/errors.py",
    "app/services/cleanup.py": "app/features/cleanup/service.py",
    "app/services/codes.py": "app/features/accounts/complete/codes.py",
    "app/services/csv_formulas.py": "app/features/csv/formulas.py",
    "app/services/csv_job.py": "app/features/csv/job.py",
    "app/services/csv_reader.py": "app/features/csv/reader.py",
    "app/services/csv_rows.py": "app/features/csv/rows.py",
    "app/services/database_programs.py": "app/features/backup/programs.py",
    "app/services/delivery.py": "app/features/notifications/delivery.py",
    "app/services/images.py": "app/features/images/service.py",
    "app/services/logins.py": "app/features/accounts/complete/logins.py",
    "app/services/monthly_report.py": "app/features/reports/service.py",
    "app/services/notifications.py": "app/features/notifications/service.py",
    "app/services/pace.py": "app/features/notifications/pace.py",
    "app/services/registration.py": "app/features/accounts/complete/registration.py",
    "app/services/report_pdf.py": "app/features/reports/pdf.py",
    "app/services/sessions.py": "app/features/accounts/sessions.py",
    "app/templates/email/": "app/features/email/templates/",
    "app/utils/email.py": "app/features/email/service.py",
    "app/utils/smtp.py": "app/features/email/smtp.py",
    "app/utils/storage.py": "app/features/storage/service.py",
    "app/worker/discovery.py": "app/core/discovery.py",
    "app/worker/messages.py": "app/worker/poison_messages.py",
    "app/worker/state_writes.py": "app/worker/result_backend.py",
    "app/worker/errors.py": "app/features/error_reports/tasks/worker.py",
    "app/worker/last_success.py": "app/features/metrics/tasks/last_success.py",
    "app/worker/metrics.py": "app/features/metrics/tasks/worker.py",
    "app/worker/queue_metrics.py": "app/features/metrics/tasks/queues.py",
    "app/worker/tracing.py": "app/features/tracing/tasks/worker.py",
}
_TESTS = {
    "tests/e2e/test_account_mails.py": "tests/e2e/accounts/test_account_mails.py",
    "tests/e2e/test_backup_task.py": "tests/e2e/backup/test_backup_task.py",
    "tests/e2e/test_csv_task.py": "tests/e2e/csv/test_csv_task.py",
    "tests/e2e/test_error_reports.py": "tests/e2e/error_reports/test_error_reports.py",
    "tests/e2e/test_image_memory.py": "tests/e2e/images/test_image_memory.py",
    "tests/e2e/test_killed_upload.py": "tests/e2e/files/test_killed_upload.py",
    "tests/e2e/test_mails.py": "tests/e2e/email/test_mails.py",
    "tests/e2e/test_many_logins.py": "tests/e2e/accounts/test_many_logins.py",
    "tests/e2e/test_notify.py": "tests/e2e/notifications/test_notify.py",
    "tests/e2e/test_register.py": "tests/e2e/accounts/test_register.py",
    "tests/e2e/test_report.py": "tests/e2e/reports/test_report.py",
    "tests/e2e/test_schedule.py": "tests/e2e/schedule/test_schedule.py",
    "tests/e2e/test_task_metrics.py": "tests/e2e/metrics/test_task_metrics.py",
    "tests/e2e/test_thumbnails.py": "tests/e2e/images/test_thumbnails.py",
    "tests/e2e/test_tracing.py": "tests/e2e/tracing/test_tracing.py",
    "tests/e2e/test_two_beats.py": "tests/e2e/redbeat/test_two_beats.py",
    "tests/people.py": "tests/accounts/complete/people.py",
    "tests/receiver.py": "tests/notifications/receiver.py",
    "tests/test_account_codes.py": "tests/accounts/complete/test_account_codes.py",
    "tests/test_account_logins.py": "tests/accounts/complete/test_account_logins.py",
    "tests/test_accounts.py": "tests/accounts/basic/test_accounts.py",
    "tests/test_api.py": "tests/core/test_api.py",
    "tests/test_audit.py": "tests/core/test_audit.py",
    "tests/test_backup.py": "tests/backup/test_backup.py",
    "tests/test_backup_alert.py": "tests/metrics/test_backup_alert.py",
    "tests/test_backup_postgresql.py": "tests/backup/test_backup_postgresql.py",
    "tests/test_backup_programs.py": "tests/backup/test_backup_programs.py",
    "tests/test_backup_sqlite.py": "tests/backup/test_backup_sqlite.py",
    "tests/test_cleanup.py": "tests/cleanup/test_cleanup.py",
    "tests/test_compose.py": "tests/core/test_compose.py",
    "tests/test_config.py": "tests/core/test_config.py",
    "tests/test_content_too_large.py": "tests/core/test_content_too_large.py",
    "tests/test_csv.py": "tests/csv/test_csv.py",
    "tests/test_dashboards.py": "tests/metrics/test_dashboards.py",
    "tests/test_database.py": "tests/core/test_database.py",
    "tests/test_devtools.py": "tests/core/test_devtools.py",
    "tests/test_docs.py": "tests/core/test_docs.py",
    "tests/test_email.py": "tests/email/test_email.py",
    "tests/test_error_reports.py": "tests/error_reports/test_error_reports.py",
    "tests/test_expiry.py": "tests/worker/test_expiry.py",
    "tests/test_file_owners.py": "tests/files/test_file_owners.py",
    "tests/test_files.py": "tests/files/test_files.py",
    "tests/test_final_states.py": "tests/worker/test_final_states.py",
    "tests/test_images.py": "tests/images/test_images.py",
    "tests/test_jobs.py": "tests/worker/test_jobs.py",
    "tests/test_kubernetes.py": "tests/kubernetes/test_kubernetes.py",
    "tests/test_kubernetes_workers.py": "tests/kubernetes/test_kubernetes_workers.py",
    "tests/test_last_runs.py": "tests/worker/test_last_runs.py",
    "tests/test_liveness.py": "tests/worker/test_liveness.py",
    "tests/test_logging.py": "tests/core/test_logging.py",
    "tests/test_login.py": "tests/accounts/test_login.py",
    "tests/test_mail_address.py": "tests/core/test_mail_address.py",
    "tests/test_messages.py": "tests/worker/test_poison_messages.py",
    "tests/test_metrics.py": "tests/metrics/test_metrics.py",
    "tests/test_migrations.py": "tests/core/test_migrations.py",
    "tests/test_models.py": "tests/accounts/test_models.py",
    "tests/test_notifications.py": "tests/notifications/test_notifications.py",
    "tests/test_openapi.py": "tests/core/test_openapi.py",
    "tests/test_permissions.py": "tests/worker/test_permissions.py",
    "tests/test_probe.py": "tests/core/test_probe.py",
    "tests/test_publish.py": "tests/worker/test_publish.py",
    "tests/test_rate_limit.py": "tests/accounts/complete/test_rate_limit.py",
    "tests/test_redelivery.py": "tests/worker/test_redelivery.py",
    "tests/test_redis.py": "tests/cache/test_redis.py",
    "tests/test_redis_tls.py": "tests/worker/test_redis_tls.py",
    "tests/test_redis_url.py": "tests/cache/test_redis_url.py",
    "tests/test_report_data.py": "tests/reports/test_report_data.py",
    "tests/test_reports.py": "tests/reports/test_reports.py",
    "tests/test_restored_entries.py": "tests/redbeat/test_restored_entries.py",
    "tests/test_security.py": "tests/accounts/test_security.py",
    "tests/test_storage.py": "tests/storage/test_storage.py",
    "tests/test_summer_time.py": "tests/worker/test_summer_time.py",
    "tests/test_task_api.py": "tests/tasks/test_task_api.py",
    "tests/test_task_owners.py": "tests/accounts/test_task_owners.py",
    "tests/test_threads.py": "tests/core/test_threads.py",
    "tests/test_time_limits.py": "tests/worker/test_time_limits.py",
    "tests/test_tracing.py": "tests/tracing/test_tracing.py",
    "tests/test_wiring.py": "tests/worker/test_wiring.py",
    "tests/test_worker_memory.py": "tests/worker/test_worker_memory.py",
}


def _moved(answers: Answers) -> Mapping[str, str]:
    """Return the moves; a few files had the same name for different answers."""
    features = "app/features"
    complete = answers.get("auth") == "complete" and bool(answers.get("use_celery"))
    accounts = answers.get("auth") in {"basic", "complete"}
    moves = {**_APPLICATION, **_TESTS}
    moves["app/api/accounts.py"] = f"{features}/accounts/{'complete' if complete else 'basic'}/routes.py"
    mails = "mails/" if answers.get("use_celery") else ""
    moves["app/services/welcome.py"] = f"{features}/accounts/basic/{mails}welcome.py"
    moves["app/services/database_dump.py"] = f"{features}/backup/{answers.get('database', 'postgresql')}.py"
    moves["app/services/report_data.py"] = f"{features}/reports/{'accounts/series' if accounts else 'data'}.py"
    if answers.get("scheduler") == "redbeat":
        moves["app/worker/schedule.py"] = f"{features}/redbeat/scheduler.py"
    return moves


RELEASE = Release(
    "0.5.0",
    moved=_moved,
    changes=(
        "Each feature is a folder in app/features/, and its files are found by their names: see docs/features.md. The old "
        "names of modules, settings and models work until 0.6.0, with a DeprecationWarning.",
        "Each settings group has its own instance: use `from app.core.config.celery import celery_settings` instead of "
        "`settings.celery`.",
        with_pack(
            "backup", "`python -m app.backup` is now `python -m app.features.backup`; the old name works until 0.6.0."
        ),
    ),
    steps=(
        "If you added routes, checks or handlers to app/main.py, or settings to app/core/config/__init__.py, move them into a "
        "folder in app/features/ as docs/features.md shows: updates never change a folder that you added.",
        with_celery(
            "Import the status of tasks from app.worker.status, and other moved names as the lines above show."
        ),
    ),
)
