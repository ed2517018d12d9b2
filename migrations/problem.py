"""What a person must be told."""

UNDO = "git reset --hard && git clean -fd"


class Problem(Exception):
    """Why the update cannot go on, and what to do about it."""
