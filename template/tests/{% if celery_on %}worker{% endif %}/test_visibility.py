"""The visibility heartbeat renews unacknowledged tasks, and no others."""

from dataclasses import dataclass
from typing import Any

import pytest

from app.core.celery import celery_app
from app.worker import visibility


@dataclass(frozen=True)
class _Request:
    """The part of a worker's request that the heartbeat reads."""

    delivery_tag: str

    @property
    def message(self) -> "_Request":
        return self


def test_only_unacknowledged_tasks_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    held = _Request("held")
    acknowledged = _Request("acknowledged")
    monkeypatch.setattr("celery.worker.state.reserved_requests", [held])
    monkeypatch.setattr("celery.worker.state.active_requests", [])
    monkeypatch.setattr("celery.worker.state.scheduled_requests", [acknowledged])
    with celery_app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.client.zadd(channel.unacked_index_key, {"held": 1, "other": 1})
        visibility.renew(channel)
        scores = dict(channel.client.zrange(channel.unacked_index_key, 0, -1, withscores=True))
        channel.client.delete(channel.unacked_index_key)
    assert scores.keys() == {b"held", b"other"}, "an acknowledged task must not be added again"
    assert scores[b"held"] > 1
    assert scores[b"other"] == 1
