"""Hard and soft time limits that fit together. A worker starts the hard limit when the soft one is over: a soft limit above
the hard one disables both.
"""

from typing import Any

SOFT_SHARE = 0.9
"""The share of the hard limit that is the soft limit of a task without one."""


def complete_limits(hard: Any, soft: Any, default_hard: float, default_soft: float) -> tuple[float, float]:
    """Return the hard and the soft limit in seconds; None means that it was not given.

    Raises:
        ValueError: one is not a positive number, or the soft limit is not below the hard one.
    """
    for name, value in (("time_limit", hard), ("soft_time_limit", soft)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise ValueError(f"{name}={value!r} must be a number of seconds above 0.")
    if hard is not None and soft is not None and soft >= hard:
        raise ValueError(f"soft_time_limit={soft} must be below time_limit={hard}.")
    if hard is None:
        hard = default_hard if soft is None or soft < default_hard else soft / SOFT_SHARE
    if soft is None:
        soft = min(default_soft, hard * SOFT_SHARE)
    return hard, soft


def enforceable_limits(hard: float | None, soft: float | None) -> tuple[float | None, float | None]:
    """Return the limits of a message, which any producer may have written, with the soft one below the hard one."""
    if hard and (not soft or soft >= hard):
        return hard, hard * SOFT_SHARE
    return hard, soft
