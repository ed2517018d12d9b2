"""What stops an update."""

UNDO = "git reset --hard && git clean -fd"


class Problem(Exception):
    """Why the update cannot continue, and what the user can do about it."""
