"""What a person must be told."""


class Problem(Exception):
    """Why the update cannot go on, and what to do about it."""
