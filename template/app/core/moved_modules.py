"""Deprecated module names of releases before 0.5.0. Importing one works for one more minor release and warns.

A type checker knows only the new names. The report of an update lists the lines to change.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "app.api.csv_files": "app.features.csv.routes",
    "app.api.even_time": "app.features.accounts.complete.constant_time",
    "app.api.file_space": "app.features.files.quota",
    "app.api.files": "app.features.files.routes",
    "app.api.images": "app.features.images.routes",
    "app.api.known_device": "app.features.accounts.complete.known_device",
    "app.api.limits": "app.features.accounts.complete.limits",
    "app.api.logins": "app.features.accounts.complete.login_routes",
    "app.api.reports": "app.features.reports.routes",
    "app.api.tasks": "app.features.tasks.routes",
    "app.api.users": "app.features.accounts.complete.user_routes",
    "app.core.config.backup": "app.features.backup.config",
    "app.core.config.codes": "app.features.accounts.complete.config",
    "app.core.config.cors": "app.features.cors.config",
    "app.core.config.email": "app.features.email.config",
    "app.core.config.jwt": "app.features.accounts.config",
    "app.core.config.metrics": "app.features.metrics.config",
    "app.core.config.notifications": "app.features.notifications.config",
    "app.core.config.passwords": "app.features.accounts.config",
    "app.core.config.redbeat": "app.features.redbeat.config",
    "app.core.config.sentry": "app.features.error_reports.config",
    "app.core.config.storage": "app.features.storage.config",
    "app.core.error_reports": "app.features.error_reports.reporting",
    "app.core.metrics": "app.features.metrics.exposition",
    "app.core.rate_limit": "app.features.accounts.complete.rate_limit",
    "app.core.request_metrics": "app.features.metrics.requests",
    "app.core.tracing": "app.features.tracing.provider",
    "app.models.account_code": "app.features.accounts.complete.models",
    "app.models.account_registration": "app.features.accounts.complete.models",
    "app.models.session": "app.features.accounts.models",
    "app.models.user": "app.features.accounts.models",
    "app.schemas.account": "app.features.accounts.schemas",
    "app.services.accounts": "app.features.accounts.service",
    "app.services.after_commit": "app.features.accounts.complete.after_commit",
    "app.services.backup": "app.features.backup.service",
    "app.services.backup_failed": "app.features.backup.errors",
    "app.services.cleanup": "app.features.cleanup.service",
    "app.services.codes": "app.features.accounts.complete.codes",
    "app.services.csv_formulas": "app.features.csv.formulas",
    "app.services.csv_job": "app.features.csv.job",
    "app.services.csv_reader": "app.features.csv.reader",
    "app.services.csv_rows": "app.features.csv.rows",
    "app.services.database_programs": "app.features.backup.programs",
    "app.services.delivery": "app.features.notifications.delivery",
    "app.services.images": "app.features.images.service",
    "app.services.logins": "app.features.accounts.complete.logins",
    "app.services.monthly_report": "app.features.reports.service",
    "app.services.notifications": "app.features.notifications.service",
    "app.services.pace": "app.features.notifications.pace",
    "app.services.registration": "app.features.accounts.complete.registration",
    "app.services.report_data": "app.features.reports.data",
    "app.services.report_pdf": "app.features.reports.pdf",
    "app.services.sessions": "app.features.accounts.sessions",
    "app.utils.smtp": "app.features.email.smtp",
    "app.worker.errors": "app.features.error_reports.tasks.worker",
    "app.worker.last_success": "app.features.metrics.tasks.last_success",
    "app.worker.metrics": "app.features.metrics.tasks.worker",
    "app.worker.queue_metrics": "app.features.metrics.tasks.queues",
    "app.worker.tracing": "app.features.tracing.tasks.worker",
}
_EMPTY_PACKAGES = {"app.schemas", "app.services"}


class _Alias(Loader):
    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        # The module has run under its new name; importing the old name has overwritten its spec.
        module.__spec__ = self._spec


class _MovedModules(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in _EMPTY_PACKAGES:
            package = ModuleSpec(fullname, None, is_package=True)
            package.submodule_search_locations = []
            return package
        if fullname not in MOVED:
            return None
        try:
            module = importlib.import_module(MOVED[fullname])
        except ModuleNotFoundError:
            # This project does not have the feature.
            return None
        warnings.warn(f"{fullname} is now {MOVED[fullname]}", DeprecationWarning, stacklevel=2)
        return ModuleSpec(fullname, _Alias(module))


def install() -> None:
    """Let imports fall back to the moved modules if Python finds no module with the name."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
