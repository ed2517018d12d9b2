"""Time limits that are given alone. A worker arms the hard limit when the soft one is over: a soft one above it switches both off."""

from typing import Any

SHARE = 0.9
"""Of the hard limit, after which a task that names no soft limit is asked to end."""


def limits(hard: Any, soft: Any, default_hard: float, default_soft: float) -> tuple[float, float]:
    """Return the hard and the soft limit in seconds, of which None was not given.

    Raises:
        ValueError: one is no positive number, or the soft one is not below the hard one.
    """
    for name, value in (("time_limit", hard), ("soft_time_limit", soft)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise ValueError(f"{name}={value!r} must be a number of seconds above 0.")
    if hard is not None and soft is not None and soft >= hard:
        raise ValueError(f"soft_time_limit={soft} must be below time_limit={hard}.")
    if hard is None:
        hard = default_hard if soft is None or soft < default_hard else soft / SHARE
    if soft is None:
        soft = min(default_soft, hard * SHARE)
    return hard, soft


def enforceable(hard: float | None, soft: float | None) -> tuple[float | None, float | None]:
    """Return the limits of a message, which any producer may have written, with the soft one below the hard one."""
    if hard and (not soft or soft >= hard):
        return hard, hard * SHARE
    return hard, soft
