"""Errors of backups."""


class BackupFailed(Exception):
    """A backup was not created or not restored; the message is the reason and contains no secret."""
