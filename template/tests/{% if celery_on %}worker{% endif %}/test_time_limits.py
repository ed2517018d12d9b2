"""Time limits that are given alone or contradict each other."""

import pytest

from app.core.celery import celery_app
from app.tasks.process_task import process_task
from app.worker.time_limits import complete_limits, enforceable_limits


@pytest.mark.parametrize(
    ("hard", "soft", "expected"),
    [
        (None, None, (300, 270)),
        (3, None, (3, pytest.approx(2.7))),
        (600, None, (600, 270)),
        (None, 10, (300, 10)),
        (None, 900, (pytest.approx(1000), 900)),
        (20, 10, (20, 10)),
    ],
)
def test_a_limit_that_is_given_alone_sets_the_other(
    hard: float | None, soft: float | None, expected: tuple[float, float]
) -> None:
    assert complete_limits(hard, soft, 300, 270) == expected


@pytest.mark.parametrize(
    ("hard", "soft"), [(0, None), (-1, None), (None, 0), (3, 3), (3, 4), ("3", None), (True, None)]
)
def test_limits_that_contradict_each_other_are_refused(hard: object, soft: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        complete_limits(hard, soft, 300, 270)
    with pytest.raises(ValueError, match="must be"):
        process_task.apply_async(({},), time_limit=hard, soft_time_limit=soft)


def test_limits_of_any_producers_message_are_enforceable_limits() -> None:
    assert enforceable_limits(2, 270) == enforceable_limits(2, None) == (2, 0.9 * 2)
    assert enforceable_limits(300, 270) == (300, 270)
    assert enforceable_limits(None, 5) == (None, 5)


def test_a_task_with_one_limit_can_be_called() -> None:
    @celery_app.task(name="probe.one_limit", time_limit=3)
    def one() -> None:
        pass

    assert (one.time_limit, one.soft_time_limit) == (3, pytest.approx(2.7))
    celery_app.tasks.pop("probe.one_limit")


def test_contradictory_limits_of_a_task_are_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"probe\.contradiction: soft_time_limit=4 must be below time_limit=3"):

        @celery_app.task(name="probe.contradiction", time_limit=3, soft_time_limit=4, lazy=False)
        def one() -> None:
            pass

    celery_app.tasks.pop("probe.contradiction", None)
