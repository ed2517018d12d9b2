"""kombu's Redis transport, with atomic takes: a message is never popped without being registered as unacknowledged.

kombu pops a message, registers it and acknowledges it in three round trips; a worker that is killed between the first two
loses the message. Here one Lua call acknowledges, pops and registers several messages (`transport_scripts`). Keys, messages
and the records of unacknowledged messages stay kombu's: other Celery programs can use the same queues at the same time.

An idle worker does not poll. `CLIENT TRACKING` lets Redis notify it when one of its lists changes. Refusals of Redis
(a failover, a full memory) are outages: the connection is opened again, and what could not be acknowledged is acknowledged
then. docs/running-workers.md describes the design.
"""

import contextlib
import os
import re
import socket
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import kombu
import structlog
from celery.worker import state
from kombu import transport as transports
from kombu.transport import redis as base
from kombu.transport import virtual
from kombu.utils.eventio import READ
from kombu.utils.json import dumps, loads
from redis import Redis
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.core.logging import error_repr
from app.worker import transport_scripts as scripts
from app.worker.refusals import Refusals

_TESTED = ((5, 7), (5, 8))
_TAKE = "TAKE"
_MAX_ACKNOWLEDGED = 10_000
_WAIT = 0.02
"""Seconds to wait for more acknowledgements while at least half of the prefetched messages are still to be run."""

_CHECK_AFTER = 5.0
"""Seconds without a notification after which an idle worker looks at its queues: the connection may be dead."""

_ANSWERED_WITHIN = 15.0
"""Seconds after which Redis counts as frozen."""

_RECORD = re.compile(rb'\[(.*), "", ("(?:[^"\\]|\\.)*")\]', re.DOTALL)
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What reading a text raises that is no message of Celery, such as one of 100,000 brackets."""

_state: Any = state
_logger = structlog.get_logger("app.worker")


class Unsettled:
    """What outlives a lost connection: acknowledgements that Redis has not taken, and calls that it has not answered."""

    def __init__(self) -> None:
        self.acknowledged: deque[str] = deque()
        self.unanswered: deque[str] = deque()
        """Tags of messages that may have been taken by a call whose answer was lost."""


_unsettled: dict[tuple[str, str], Unsettled] = defaultdict(Unsettled)
# The calls and the messages of a parent process are not the child's.
os.register_at_fork(after_in_child=_unsettled.clear)


def register() -> None:
    """Use this transport for `redis://` and `rediss://` URLs.

    Raises:
        RuntimeError: kombu has a version with which it was not tested.
    """
    lowest, beyond = _TESTED
    if not lowest <= kombu.VERSION[:2] < beyond:
        raise RuntimeError(
            f"app/worker/transport.py is tested with kombu {lowest[0]}.{lowest[1]}, and kombu {kombu.__version__} is installed: "
            "install a tested version, or set CELERY_TRANSPORT=kombu"
        )
    for scheme in ("redis", "rediss"):
        transports.TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


class QoS(base.QoS):
    """Counts what is unacknowledged. Messages are registered when they are taken, and acknowledged with the next take."""

    multiplier = 1
    """The worker's prefetch multiplier; see `app.worker.prefetch`."""

    one_at_a_time = False
    """Whether a message is run while it is delivered: others that were taken with it would wait unrenewed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._costs: dict[str, int] = {}
        self._used = 0
        self._lock = threading.Lock()

    def cost(self, queue: str) -> int:
        """Return how much of the prefetch count a message of the queue takes."""
        prefetch = self.channel.queue_prefetch.get(queue)
        return max(1, self.multiplier // prefetch) if prefetch else 1

    def credit(self) -> int:
        """Return how much of the prefetch count is free."""
        if not self.can_consume():
            return 0
        if self.one_at_a_time or "can_consume" in vars(self):
            # Celery's setting worker_disable_prefetch replaces it.
            return 1
        return self.prefetch_count - self._used if self.prefetch_count else 100

    def has_reserve(self) -> bool:
        """Return whether more than half of the prefetch count is used: the worker has messages to run."""
        if self.one_at_a_time or "can_consume" in vars(self):
            return False
        return bool(2 * self._used > self.prefetch_count > 0)

    def can_consume(self) -> bool:
        """Return whether another message may be taken."""
        return not self.prefetch_count or self._used < self.prefetch_count

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a message that was taken."""
        # Celery raises the prefetch count by one for a task with a countdown.
        has_eta = isinstance(message.headers, dict) and message.headers.get("eta")
        cost = 1 if has_eta else self.cost(self.channel.delivering)
        with self._lock:
            self._costs[delivery_tag] = cost
            self._used += cost
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message with the next take."""
        try:
            self.channel.acknowledge(delivery_tag)
        finally:
            # If it could not be sent, it will be.
            self._settle(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Requeue a message at once, or acknowledge it with the next take."""
        if not requeue:
            self.ack(delivery_tag)
            return
        self.restore_by_tag(delivery_tag, leftmost=True)
        self._settle(delivery_tag)

    def _settle(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)
        with self._lock:
            self._used -= self._costs.pop(delivery_tag, 0)
        self.channel.connection_cycle.wake()

    def restore_unacked(self, client: Any = None) -> None:
        """Requeue what was not acknowledged, except tasks that go on running: a lost connection does not stop them."""
        stops = _state.should_stop is not None or _state.should_terminate is not None
        running = set() if stops else {request.message.delivery_tag for request in tuple(_state.active_requests)}
        try:
            with self.channel.conn_or_acquire(client) as connected:
                for tag in tuple(self._delivered):
                    if tag not in running:
                        self.restore_by_tag(tag, client=connected)
        except (*self.channel.connection_errors, ResponseError) as error:
            # A channel must be closed during an outage too.
            _logger.warning(
                "messages_not_requeued", error=error_repr(error), action="redelivered after the visibility timeout"
            )
        self._delivered.clear()
        with self._lock:
            self._costs.clear()
            self._used = 0

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int = 10) -> None:
        """Requeue messages whose visibility timeout has passed, by Redis's clock."""
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        args = [self.visibility_timeout, num or 1000]
        for tag in self.channel.run(scripts.OVERDUE, [self.unacked_index_key], args):
            self.restore_by_tag(tag.decode(), overdue=True)

    def restore_by_tag(
        self,
        tag: str,
        client: Any = None,
        leftmost: bool = False,
        *,
        overdue: bool = False,
        redelivered: bool = True,
    ) -> None:
        """Requeue a message.

        Args:
            tag: its tag in the records of unacknowledged messages.
            client: a Redis client.
            leftmost: behind all other messages of the queue instead of before them.
            overdue: only if its visibility timeout has passed.
            redelivered: mark it as redelivered; False if no worker has seen it.
        """
        channel = self.channel
        with channel.conn_or_acquire(client) as connected:
            record = connected.hget(self.unacked_key, tag)
        lists, text = ([], "") if record is None else channel.restored(record, redelivered=redelivered)
        channel.run(
            scripts.RESTORE,
            [self.unacked_key, self.unacked_index_key, *lists],
            [tag, text, "LPUSH" if leftmost else "RPUSH", self.visibility_timeout if overdue else ""],
        )


class Poller(base.MultiChannelPoller):
    """Sends the takes of channels and reads their answers, in Celery's event loop or in `drain_events`."""

    def __init__(self) -> None:
        super().__init__()
        self._waker: tuple[socket.socket, socket.socket] | None = None
        self._wakes_at: float | None = None
        self.call_later: Any = None
        """The timer of Celery's event loop, if there is one."""

    def wake_after(self, seconds: float) -> None:
        """Call `on_poll_start` again after at most so many seconds."""
        if self.call_later is not None:
            self.call_later(seconds, lambda: None)
        self._wakes_at = time.monotonic() + seconds

    def wake(self) -> None:
        """End the wait in `get`: another thread has acknowledged a message."""
        waker = self._waker
        if waker is not None:
            # If it is full, `get` is about to wake up; it may have been closed meanwhile.
            with contextlib.suppress(OSError):
                waker[1].send(b"\0")

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Wait for one event; used without an event loop."""
        if self._waker is None:
            self._waker = socket.socketpair()
            for end in self._waker:
                end.setblocking(False)
            self.poller.register(self._waker[0], READ)
        self._send_takes()
        if self._wakes_at is not None:
            remaining = max(0.0, self._wakes_at - time.monotonic())
            timeout = remaining if timeout is None else min(timeout, remaining)
            if not remaining:
                self._wakes_at = None
        super().get(callback, timeout)

    def close(self) -> None:
        """Forget all channels."""
        super().close()
        waker, self._waker = self._waker, None
        for end in waker or ():
            end.close()

    def on_poll_start(self) -> None:
        """Send what channels have to send."""
        self._send_takes()
        super().on_poll_start()

    def _send_takes(self) -> None:
        for channel in tuple(self._channels):
            channel.send_take()

    def _register_BRPOP(self, channel: Any) -> None:  # noqa: N802
        if not channel.takes:
            super()._register_BRPOP(channel)

    def handle_event(self, fileno: int, event: int) -> Any:
        """Handle an event of a socket."""
        if self._waker is not None and fileno == self._waker[0].fileno():
            self._waker[0].recv(4096)
            return True
        if self._fd_to_chan.get(fileno, (None, None))[1] == _TAKE:
            self.on_readable(fileno)
            return True
        return super().handle_event(fileno, event)

    def on_readable(self, fileno: int) -> None:
        """Read from a socket; the answer to a take also when nothing more may be consumed."""
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if channel is not None and kind == _TAKE:
            channel.read_take()
        else:
            super().on_readable(fileno)


class Channel(base.Channel):
    """A channel that takes messages with `transport_scripts.TAKE`; if none is to be acknowledged, it uses kombu's BRPOP."""

    QoS = QoS
    from_transport_options = (*base.Channel.from_transport_options, "queue_prefetch")
    queue_prefetch: Mapping[str, int] = {}
    """Prefetched messages per process, for queues that differ from the prefetch multiplier."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unacknowledging: set[str] = set()
        self._scripts: dict[str, Any] = {}
        self._prefix = f"{uuid.uuid4().hex}:"
        self._next = 0
        self._turn = 0
        self._asked: tuple[int, int, bool] | None = None
        self._is_tracking_unanswered = False
        self._asked_at = 0.0
        self._waits_until: float | None = None
        self._asked_queues: list[str] = []
        self._sending: list[str] = []
        self._undelivered: deque[tuple[str, str, bytes]] = deque()
        self.delivering = ""
        """The queue of the message that is being delivered."""
        self._is_drained = False
        self._is_notified = True
        self._tracked: Any = None
        self._refusals = Refusals()
        self._unreadable: set[bytes] = set()
        super().__init__(*args, **kwargs)
        self.connection_cycle = self.connection.cycle
        self._unsettled = _unsettled[self.connection.client.as_uri(), self.global_keyprefix + self.unacked_key]

    @cached_property
    def _takes_client(self) -> Any:
        """A client whose only connection is used for takes, and known to the poller."""
        client = self._create_client(asynchronous=True)
        client.connection = None
        return client

    @property
    def takes(self) -> bool:
        """Whether this channel consumes by takes."""
        return not self._unacknowledging.issuperset(self.active_queues)

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume a queue."""
        if no_ack and queue not in self._fanout_queues:
            self._unacknowledging.add(queue)
        else:
            self._unacknowledging.discard(queue)
        self._is_notified, self._is_drained = True, False
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Return one message of a queue, or None."""
        if no_ack:
            return super().basic_get(queue, no_ack, **kwargs)
        number, self._next = self._next, self._next + 1
        if queue in self._expires:
            with self.conn_or_acquire() as client:
                self._maybe_update_queues_expire(client, queue)
        keys, args = self._arguments([queue], 1, number, [], track=False)
        _, error, *taken = self.run(scripts.TAKE, keys, args)
        if error:
            raise ResponseError(error.decode(errors="replace"))
        for _, text in _pairs(taken):
            self.delivering = queue
            message = self.Message(self._payload(f"{self._prefix}{number}", queue, text), channel=self)
            self.qos.append(message, message.delivery_tag)
            return message
        return None

    def run(self, text: str, keys: Iterable[str], args: Iterable[Any]) -> Any:
        """Run one of the scripts."""
        # kombu's client would put `global_keyprefix` before the first key only.
        client = Redis(connection_pool=self.pool)
        if text not in self._scripts:
            self._scripts[text] = client.register_script(text)
        prefixed = [self.global_keyprefix + key for key in keys]
        return self._scripts[text](keys=prefixed, args=[*args], client=client)

    def _basic_cancel(self, consumer_tag: str) -> Any:
        result = super()._basic_cancel(consumer_tag)
        if not self.closed and not self.takes and self._unsettled.acknowledged:
            # There is no next take.
            self._acknowledge_now()
        return result

    # --- acknowledgements ---

    def acknowledge(self, tag: str) -> None:
        """Acknowledge a message with the next take; at once if this channel takes no more."""
        self._unsettled.acknowledged.append(tag)
        if not self.takes and not self.closed:
            self._acknowledge_now()

    def _acknowledge_now(self) -> None:
        tags = self._next_acknowledged()
        try:
            while tags:
                self.run(scripts.TAKE, *self._arguments([], 0, 0, tags, track=False))
                tags = self._next_acknowledged()
        except BaseException:
            self._unsettled.acknowledged.extendleft(tags)
            raise

    def _next_acknowledged(self) -> list[str]:
        waiting = self._unsettled.acknowledged
        tags: list[str] = []
        # Other threads append.
        while waiting and len(tags) < _MAX_ACKNOWLEDGED:
            tags.append(waiting.popleft())
        return tags

    # --- takes ---

    def send_take(self) -> None:
        """Send a take, if there is something to take or to acknowledge and none is under way."""
        now = time.monotonic()
        if self._asked is not None:
            if now - self._asked_at > _ANSWERED_WITHIN:
                # Not Python's TimeoutError: for `drain_events` it means that nothing has happened.
                raise RedisTimeoutError(f"Redis has not answered for {_ANSWERED_WITHIN:.0f} s")
            return
        if not self.takes or not self._refusals.may_try(now):
            return
        credit = self.qos.credit()
        has_news = self._is_notified or now - self._asked_at > _CHECK_AFTER
        if not ((credit and has_news) or self._unsettled.acknowledged):
            return
        if self.qos.has_reserve() and self._may_wait(now):
            return
        self._waits_until = None
        try:
            connection = self._connect()
        except ResponseError as error:
            self._refuse(error)
            return
        # While more is waiting, Redis need not notify.
        track = bool(credit) and self._is_drained
        number, self._next = self._next, self._next + max(credit, 1)
        queues = self._ordered_queues() if credit else []
        self._sending = self._next_acknowledged()
        keys, args = self._arguments(queues, credit, number, self._sending, track=track)
        keys = [self.global_keyprefix + key for key in keys]
        self._asked, self._asked_at, self._asked_queues = (number, credit, track), now, queues
        self._is_tracking_unanswered = track
        if track:
            self._is_notified = False
        commands = [("CLIENT", "CACHING", "YES")] if track else []
        commands.append(("EVALSHA", self._sha(), str(len(keys)), *keys, *args))
        # Without redis-py's PING: it would drop notifications.
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    def _may_wait(self, now: float) -> bool:
        """Return whether to wait for more acknowledgements."""
        if self._waits_until is None:
            self._waits_until = now + _WAIT
            self.connection_cycle.wake_after(_WAIT)
        return now < self._waits_until

    def read_take(self) -> None:
        """Read the answer to a take, or a notification, and deliver what was taken."""
        self._receive_taken()
        self._deliver_taken()

    def _receive_taken(self) -> None:
        connection = self._takes_client.connection
        if self._asked is None:
            self._read_notifications(connection)
            return
        number, credit, track = self._asked
        try:
            reply = self._arrived_answer(connection)
        except NoScriptError:
            self._load_script(connection)
            return
        except ResponseError as error:
            self._refuse(error)
            return
        except BaseException:
            connection.disconnect()
            raise
        if reply is None:
            return
        self._refusals.accepted()
        self._asked = None
        self._sending = []
        self._read_notifications(connection)
        left, unreadable, *taken = reply
        self._warn_unreadable(unreadable)
        for queue, text in _pairs(taken):
            self._undelivered.append((f"{self._prefix}{number}", self._asked_queues[queue], text))
            number += 1
        if credit:
            # Credit is left only if all queues are empty. Then the next take asks to be notified.
            self._is_drained = left > 0
            if not (self._is_drained and track):
                self._is_notified = True

    def _warn_unreadable(self, error: bytes | None) -> None:
        if error and error not in self._unreadable:
            self._unreadable.add(error)
            _logger.error(
                "queue_not_readable", error=error.decode(errors="replace"), action="other queues are consumed"
            )

    def _refuse(self, error: Exception) -> None:
        """Open another connection after a pause, which may lead to another server."""
        self._refusals.refused(error)
        if self._takes_client.connection is not None:
            self._takes_client.connection.disconnect()

    def _deliver_taken(self) -> None:
        while self._undelivered:
            tag, queue, text = self._undelivered.popleft()
            self.delivering = queue
            if queue in self.connection._callbacks:  # noqa: SLF001
                if queue in self._unacknowledging:
                    self.acknowledge(tag)
                self.connection._deliver(self._payload(tag, queue, text), queue)  # noqa: SLF001
            else:
                # No longer consumed.
                self.qos.restore_by_tag(tag, redelivered=False)

    def _arrived_answer(self, connection: Any) -> Any:
        """Return the answer to the take, or None if it has not arrived: a paused Redis answers `CLIENT CACHING` alone."""
        while connection.can_read(timeout=0):
            reply = connection.read_response(disable_decoding=True, push_request=True)
            if reply is None:
                self._is_notified = True
            elif self._is_tracking_unanswered:
                self._is_tracking_unanswered = False
            else:
                return reply
        return None

    def _read_notifications(self, connection: Any) -> None:
        """Read the notifications that have arrived, also those that redis-py has read from the socket already."""
        while connection.can_read(timeout=0):
            connection.read_response(disable_decoding=True, push_request=True)
            self._is_notified = True

    def _load_script(self, connection: Any) -> None:
        """Load the script into a Redis that has restarted, and ask again."""
        connection.send_command("SCRIPT", "LOAD", scripts.TAKE)
        # A notification may come before the answer.
        while connection.read_response(disable_decoding=True, push_request=True) is None:
            pass
        self._asked = None
        self._is_notified = True
        self._unsettled.acknowledged.extendleft(self._sending)
        self._sending = []

    def _sha(self) -> str:
        if scripts.TAKE not in self._scripts:
            self._scripts[scripts.TAKE] = Redis(connection_pool=self.pool).register_script(scripts.TAKE)
        return str(self._scripts[scripts.TAKE].sha)

    def _connect(self) -> Any:
        """Return the connection for takes: connected, with notifications, and known to the poller."""
        client, poller = self._takes_client, self.connection_cycle
        if not poller._client_registered(self, client, _TAKE):  # noqa: SLF001
            poller._register(self, client, _TAKE)  # noqa: SLF001
        connection = client.connection
        if self._tracked is not connection._sock:  # noqa: SLF001
            connection.send_command("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP")
            connection.read_response()
            self._tracked = connection._sock  # noqa: SLF001
            self._restore_unanswered()
        return connection

    def _restore_unanswered(self) -> None:
        """Requeue messages that were taken by calls whose answers were lost."""
        while self._unsettled.unanswered:
            self.qos.restore_by_tag(self._unsettled.unanswered[0], redelivered=False)
            self._unsettled.unanswered.popleft()

    def _on_connection_disconnect(self, connection: Any) -> None:
        client = self.__dict__.get("_takes_client")
        if client is not None and connection is client.connection:
            self._forget_take()
        super()._on_connection_disconnect(connection)

    def _forget_take(self) -> None:
        self._tracked = None
        self._is_notified, self._is_drained = True, False
        if self._asked is not None:
            number, credit, _ = self._asked
            self._unsettled.unanswered.extend(f"{self._prefix}{number + i}" for i in range(credit))
            self._unsettled.acknowledged.extendleft(self._sending)
            self._asked, self._sending = None, []

    def _ordered_queues(self) -> list[str]:
        """Return the queues, each time with another one first."""
        queues: list[str] = self.active_queues
        self._turn = (self._turn + 1) % len(queues)
        return queues[self._turn :] + queues[: self._turn]

    def _arguments(
        self, queues: list[str], credit: int, number: int, tags: Iterable[str], *, track: bool
    ) -> tuple[list[str], list[Any]]:
        lists = [self._q_for_pri(queue, step) for queue in queues for step in self.priority_steps]
        keys = [self.unacked_key, self.unacked_index_key, *lists]
        # Restored as a message of the default exchange, which goes to the queue that it came from.
        endings = (value for queue in queues for value in (self.qos.cost(queue), f', "", {dumps(queue)}]'))
        head = [credit, self._prefix, number, len(self.priority_steps), len(queues), int(track)]
        return keys, [*head, *endings, *tags]

    # --- messages ---

    def _payload(self, tag: str, queue: str, text: bytes) -> dict[str, Any]:
        try:
            payload = loads(text)
            payload["properties"]["delivery_tag"] = tag
            if not isinstance(payload.get("headers") or {}, dict):
                raise TypeError("the headers are no mapping")
        except _MALFORMED:
            # Not a message of Celery: without a task's name, it becomes a dead letter (app/worker/poison_messages.py).
            properties = {"delivery_tag": tag, "delivery_info": {"exchange": "", "routing_key": queue}}
            payload = {"body": text.decode(errors="replace"), "headers": {}, "properties": properties}
        return dict(payload)

    def decode_body(self, body: Any, encoding: str | None = None) -> Any:
        """Return the decoded body, or the body itself if it cannot be decoded: its consumer rejects it."""
        try:
            return super().decode_body(body, encoding)
        except _MALFORMED:
            return body

    def restored(self, record: bytes, *, redelivered: bool) -> tuple[list[str], str | bytes]:
        """Return the lists to which a record of an unacknowledged message belongs, and its text there."""
        try:
            payload, exchange, routing_key = loads(record)
            info = payload["properties"].get("delivery_info")
            priority = self._get_message_priority(payload, reverse=False)
        except _MALFORMED:
            return _unreadable(record)
        if redelivered:
            for part in (payload.get("headers"), info):
                if isinstance(part, dict):
                    part["redelivered"] = True
        queues = self._lookup(exchange, routing_key) or [routing_key]
        return [self._q_for_pri(queue, priority) for queue in queues], dumps(payload)

    def _size(self, queue: str) -> int:
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps]
        try:
            # Not in a transaction, as kombu asks: a full Redis 7.0 refuses those.
            with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                for name in lists:
                    pipe.llen(name)
                return int(sum(pipe.execute()))
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            # The worker starts and consumes its other queues: see `_warn_unreadable`.
            return 0

    # --- bindings and end ---

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        if queue in self._expires:
            super()._queue_bind(exchange, routing_key, pattern, queue)
            return
        if self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))
        member = self.sep.join([routing_key or "", pattern or "", queue or ""])
        keys = [name % (exchange,) for name in (self.keyprefix_queue, self.keyprefix_binding_permanent)]
        self.run(scripts.BIND, keys, [member])

    @cached_property
    def _refresh_binding(self) -> Any:
        """kombu's script for queues that expire, as those of remote control; also called while Redis is full."""
        return self._create_client().register_script(f"#!lua flags=allow-oom\n{base.REFRESH_BINDING}")

    def _close_clients(self) -> None:
        super()._close_clients()
        client = self.__dict__.pop("_takes_client", None)
        if client is not None and client.connection is not None:
            client.connection.disconnect()

    def close(self) -> None:
        """Acknowledge what is to be acknowledged, requeue the rest and close."""
        try:
            if not self.closed and self.connection is not None:
                self._settle_all()
        finally:
            super().close()

    def _settle_all(self) -> None:
        try:
            while self._asked is not None and self._takes_client.connection.can_read(timeout=_CHECK_AFTER):
                self._receive_taken()
            while self._undelivered:
                self.qos.restore_by_tag(self._undelivered[0][0], redelivered=False)
                self._undelivered.popleft()
            self._acknowledge_now()
        except (*self.connection_errors, ResponseError):
            pass  # They are acknowledged on the next connection, or redelivered.


class Transport(base.Transport):
    """The transport; see the module."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def _deliver(self, message: dict[str, Any], queue: str) -> None:
        if queue in self._callbacks:
            super()._deliver(message, queue)
        else:
            # No longer consumed. kombu would requeue it from the unacknowledged ones, but here it is not registered there.
            self.channels[0]._put(queue, message)  # noqa: SLF001

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Consume in Celery's event loop."""
        super().register_with_event_loop(connection, loop)
        self.cycle.call_later = loop.call_later


def _unreadable(record: bytes) -> tuple[list[str], bytes]:
    """Return the queue and the text of something that is no message of Celery, as `TAKE` recorded it."""
    found = _RECORD.fullmatch(record)
    return ([loads(found[2])], found[1]) if found else ([], b"")


def _pairs(reply: list[Any]) -> Iterable[tuple[int, bytes]]:
    numbers = iter(reply)
    return zip(numbers, numbers, strict=True)
