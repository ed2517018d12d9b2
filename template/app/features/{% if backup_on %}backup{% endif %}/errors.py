"""What went wrong with a backup."""


class BackupFailed(Exception):
    """A backup was not made or not restored; the message says why, without a secret."""
