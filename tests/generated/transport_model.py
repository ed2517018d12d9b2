"""A model of the queues, against which hypothesis plays consumers of both transports, their faults and the passing of time.

test_transport_model.py copies this into a generated project and runs it there, on the Redis of the project's tests.
"""

import contextlib
import os
import select
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from kombu import Connection, Consumer, Producer, Queue
from kombu.transport.redis import Transport as KombuTransport

from app.core.config.celery import celery_settings
from app.worker import transport, transport_scripts
from app.worker.transport import Transport, Unsettled

URL = celery_settings.broker_url.get_secret_value()
QUEUES = {name: Queue(name, routing_key=name) for name in ("short", "other", "long")}
PREFETCH, MULTIPLIER, TIMEOUT = 4, 2, 60
OPTIONS = {"visibility_timeout": TIMEOUT, "queue_prefetch": {"long": 1}, "unacked_restore_throttle": 1}
STALLED = 2.0
"""Seconds after which a consumer that could take a message and does not counts as stalled."""

LOST = (*Transport.connection_errors, *Transport.channel_errors)
workers = st.integers(0, 1)
numbers = st.integers(0, 7)
queues = st.sampled_from(sorted(QUEUES))

transport._WAIT = 0.0
# The tasks that are running, which a lost connection does not stop.
celery: Any = SimpleNamespace(should_stop=None, should_terminate=None, active_requests=[])
transport._state = celery


class Worker:
    """A process that consumes with the project's transport, and connects again when it loses its connection."""

    def __init__(self) -> None:
        self.unsettled = Unsettled()
        self.queues = set(QUEUES)
        self.held: list[Any] = []
        self.settled: set[str] = set()
        self.connect()

    def connect(self) -> None:
        self.has_got = False
        self.connection = Connection(URL, transport=Transport, transport_options=OPTIONS)
        self.channel: Any = self.connection.default_channel
        # In reality each process has its own.
        self.channel._unsettled = self.unsettled
        self.channel.qos.multiplier = MULTIPLIER
        self.consumer = Consumer(self.channel, [], on_message=self.receive, prefetch_count=PREFETCH)
        for name in sorted(self.queues):
            self.add(name)

    def add(self, name: str) -> None:
        self.queues.add(name)
        self.consumer.add_queue(QUEUES[name])
        self.consumer.consume()

    def cancel(self, name: str) -> None:
        self.queues.discard(name)
        self.consumer.cancel_by_queue(name)

    def receive(self, message: Any) -> None:
        assert message.delivery_tag not in {one.delivery_tag for one in self.held}, "delivered twice to one consumer"
        self.held.append(message)

    @property
    def sock(self) -> Any:
        client = self.channel.__dict__.get("_takes_client")
        return client.connection._sock if client is not None and client.connection is not None else None

    def step(self) -> bool:
        """Do what the event loop does once; return whether a call was sent or is under way."""
        self.channel.send_take()
        asked = self.channel._asked is not None
        if asked or (self.sock is not None and select.select([self.sock], [], [], 0)[0]):
            self.channel.read_take()
        return asked

    def reconnect(self) -> None:
        """Do what Celery does when the connection is lost."""
        celery.active_requests = [SimpleNamespace(message=message) for message in self.held[::2]]
        with contextlib.suppress(*LOST):
            self.connection.close()
        celery.active_requests = []
        for _ in range(5):
            with contextlib.suppress(*LOST):
                self.connect()
                return
        raise AssertionError("cannot connect")

    def attempt(self, action: Any, *args: Any) -> Any:
        """Do something that a lost connection may interrupt."""
        try:
            return action(*args)
        except LOST:
            self.reconnect()
            return None

    def close(self) -> None:
        celery.should_stop = True
        with contextlib.suppress(*LOST):
            self.connection.close()
        celery.should_stop = None

    def die(self) -> None:
        """End as by SIGKILL: nothing is said to Redis any more."""
        self.channel.qos._on_collect.cancel()
        self.channel.qos._delivered.clear()
        self.channel._asked = None
        self.channel._undelivered.clear()
        self.channel._unsettled = Unsettled()
        self.channel._disconnect_pools()
        self.connection.transport.cycle.close()


class KombuWorker:
    """A process that consumes with kombu's transport."""

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.connection = Connection(URL, transport=KombuTransport, transport_options=OPTIONS)
        self.channel: Any = self.connection.default_channel

    def get(self, queue: str) -> None:
        message = self.channel.basic_get(queue)
        if message is not None:
            self.held.append(message)

    def close(self) -> None:
        self.connection.close()


class Model(RuleBasedStateMachine):
    """What was published is in a queue or unacknowledged, in one place, until somebody who had it acknowledges it."""

    def __init__(self) -> None:
        super().__init__()
        self.redis = redis.Redis.from_url(URL)
        self.redis.flushdb()
        self.publisher = Connection(URL, transport=KombuTransport)
        self.workers = [Worker(), Worker()]
        self.old = KombuWorker()
        self.published: dict[int, str] = {}
        self.acknowledged: set[int] = set()
        self.publish("short", 0, 3)
        self.publish("long", 3, 2)

    # --- what Redis has ---

    def waiting(self, queue: str) -> list[int]:
        """Return what is in a queue, in the order in which it is to be taken."""
        lists = [queue, *(f"{queue}\x06\x16{step}" for step in (3, 6, 9))]
        return [number(text) for one in lists for text in reversed(self.redis.lrange(one, 0, -1))]

    def tags(self) -> set[str]:
        return {tag.decode() for tag in self.redis.hkeys("unacked")}

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        with self.redis.pipeline() as pipe:
            for queue in QUEUES:
                for step in ("", "\x06\x163", "\x06\x166", "\x06\x169"):
                    pipe.lrange(queue + step, 0, -1)
            *lists, records, tags, index = (
                pipe.hvals("unacked").hkeys("unacked").zrange("unacked_index", 0, -1).execute()
            )
        everywhere = [number(text) for texts in (*lists, records) for text in texts]
        missing = set(self.published) - self.acknowledged - set(everywhere)
        assert not missing, f"lost: {missing}"
        assert len(everywhere) == len(set(everywhere)), f"in two places: {sorted(everywhere)}"
        assert set(tags) == set(index), "unacknowledged without a time, or a time without a message"

    # --- producers ---

    @rule(queue=queues, priority=st.integers(0, 9), count=st.integers(1, 6))
    def publish(self, queue: str, priority: int, count: int) -> None:
        producer = Producer(self.publisher)
        for _ in range(count):
            body = len(self.published)
            self.published[body] = queue
            producer.publish(
                {}, routing_key=queue, priority=priority, headers={"number": body}, declare=[QUEUES[queue]]
            )

    # --- consumers ---

    @rule(which=workers)
    def take(self, which: int) -> None:
        """Take until there is no credit or no message; the highest priority of each queue first."""
        worker = self.workers[which]
        before = {queue: self.waiting(queue) for queue in QUEUES}
        is_connected = self.is_settled(worker)
        count, started = len(worker.held), time.monotonic()
        while True:
            channel = worker.channel
            is_asking = worker.attempt(worker.step)
            if channel is not worker.channel:
                return
            if not is_asking:
                can_take = channel.qos.can_consume() and any(self.waiting(queue) for queue in worker.queues)
                if not can_take:
                    break
                assert time.monotonic() - started < STALLED, "stalled"
        # A single message may be got beyond it.
        assert worker.has_got or channel.qos._used < PREFETCH + MULTIPLIER, "took more than it may hold"
        assert not worker.settled & self.tags(), "acknowledged, and still registered"
        if is_connected:
            for queue, order in before.items():
                taken = [
                    m.headers["number"] for m in worker.held[count:] if self.published[m.headers["number"]] == queue
                ]
                assert taken == order[: len(taken)], "in another order than that of the queue"

    def is_settled(self, worker: Worker) -> bool:
        """Return whether a take brings only what is in the queues now."""
        return worker.sock is not None and worker.channel._asked is None and not worker.unsettled.unanswered

    @rule(which=workers)
    def send(self, which: int) -> None:
        """Send a take and leave its answer unread."""
        worker = self.workers[which]
        worker.attempt(worker.channel.send_take)

    @rule(which=workers, queue=queues)
    def get(self, which: int, queue: str) -> None:
        worker = self.workers[which]
        message = worker.attempt(worker.channel.basic_get, queue)
        if message is not None:
            worker.has_got = True
            worker.held.append(message)

    @rule(queue=queues)
    def get_with_kombu(self, queue: str) -> None:
        self.old.get(queue)

    def one_of(self, which: int, position: int) -> tuple[Any, Any] | None:
        worker: Any = (*self.workers, self.old)[which]
        if not worker.held:
            return None
        return worker, worker.held.pop(position % len(worker.held))

    @rule(which=st.integers(0, 2), position=numbers, again=st.booleans())
    def acknowledge(self, which: int, position: int, again: bool) -> None:
        """Acknowledge a message that was delivered, perhaps long ago and on another connection, perhaps twice."""
        if (found := self.one_of(which, position)) is None:
            return
        worker, message = found
        self.acknowledged.add(message.headers["number"])
        for _ in range(2 if again else 1):
            if worker is self.old:
                message.channel.basic_ack(message.delivery_tag)
            else:
                worker.settled.add(message.delivery_tag)
                worker.attempt(message.channel.basic_ack, message.delivery_tag)

    @rule(which=st.integers(0, 2), position=numbers)
    def requeue(self, which: int, position: int) -> None:
        if (found := self.one_of(which, position)) is None:
            return
        worker, message = found
        is_registered = message.delivery_tag in self.tags()
        if worker is self.old:
            message.channel.basic_reject(message.delivery_tag, requeue=True)
            return
        channel = worker.channel
        worker.attempt(message.channel.basic_reject, message.delivery_tag, True)
        if is_registered and channel is worker.channel and message.headers["number"] not in self.acknowledged:
            assert message.headers["number"] in self.waiting(self.published[message.headers["number"]])

    @rule(which=workers, queue=queues)
    def cancel_or_add_a_queue(self, which: int, queue: str) -> None:
        worker = self.workers[which]
        worker.attempt(worker.cancel if queue in worker.queues else worker.add, queue)

    # --- ends and faults ---

    @rule(which=workers)
    def close(self, which: int) -> None:
        worker = self.workers[which]
        worker.close()
        self.workers[which] = Worker()

    @rule(which=workers)
    def die(self, which: int) -> None:
        self.workers[which].die()
        self.workers[which] = Worker()

    @rule()
    def close_kombu(self) -> None:
        self.old.close()
        self.old = KombuWorker()

    @rule(which=workers, asks=st.booleans())
    def lose_the_connection(self, which: int, asks: bool) -> None:
        """Close the socket of a worker, before or after it has sent a take."""
        worker = self.workers[which]
        if asks:
            self.send(which)
        if worker.sock is not None:
            worker.channel._takes_client.connection.disconnect()

    @rule(which=workers, acknowledges=st.booleans())
    def lose_the_call(self, which: int, acknowledges: bool) -> None:
        """Lose a take on its way to Redis."""
        worker = self.workers[which]
        if acknowledges:
            self.take(which)
            self.acknowledge(which, 0, again=False)
        if worker.sock is None:
            return
        connection = worker.channel._takes_client.connection

        def lose(*_: Any, **__: Any) -> None:
            connection.disconnect()
            raise redis.ConnectionError("lost")

        with patch.object(connection, "send_packed_command", lose):
            self.send(which)
        self.take(which)

    @rule(which=workers, acknowledges=st.booleans())
    def cut_the_answer(self, which: int, acknowledges: bool) -> None:
        """Lose the answer to a take that Redis has done."""
        worker = self.workers[which]
        if acknowledges:
            self.take(which)
            self.acknowledge(which, 0, again=False)
        self.send(which)
        if worker.channel._asked is not None:
            select.select([worker.sock], [], [], 5)
            worker.channel._takes_client.connection.disconnect()

    @rule(asks=st.booleans())
    def kill_all_connections(self, asks: bool) -> None:
        if asks:
            for which in range(len(self.workers)):
                self.send(which)
        mine = self.redis.client_id()
        for client in self.redis.client_list():
            # kombu's own transport and the producers may lose messages with their connections.
            if int(client["id"]) != mine and client["name"] == "" and client["addr"] in self.addresses():
                self.redis.client_kill_filter(_id=client["id"])

    def addresses(self) -> set[str]:
        pools = [pool for w in self.workers for pool in (w.channel._pool, w.channel._async_pool) if pool is not None]
        sockets = [
            connection._sock
            for pool in pools
            for connection in (*pool._available_connections, *pool._in_use_connections)
            if connection is not None and connection._sock is not None
        ]
        return {"{}:{}".format(*one.getsockname()[:2]) for one in sockets}

    @rule()
    def forget_the_scripts(self) -> None:
        self.redis.script_flush()

    # --- time ---

    def age(self) -> None:
        for tag in self.redis.zrange("unacked_index", 0, -1):
            self.redis.zincrby("unacked_index", -2 * TIMEOUT, tag)

    @rule(by=st.integers(0, 2))
    def time_passes(self, by: int) -> None:
        """Let the visibility timeout pass, with nothing renewed; one consumer requeues what is overdue."""
        self.age()
        self.restore(by)

    @rule(by=st.integers(0, 2))
    def renew(self, by: int) -> None:
        """Let the visibility timeout pass; what is renewed stays with its consumer, whatever others do."""
        self.age()
        worker = self.workers[by % len(self.workers)]
        # One that has looked for overdue messages just before they were renewed.
        overdue = (
            worker.attempt(worker.channel.run, transport_scripts.OVERDUE, ["unacked_index"], [TIMEOUT, 1000]) or []
        )
        held = [message for one in self.workers for message in one.held] + self.old.held
        renewed = {message.delivery_tag for message in held} & self.tags()
        if renewed:
            self.redis.register_script(transport_scripts.RENEW)(keys=["unacked_index"], args=sorted(renewed))
        for tag in overdue:
            worker.attempt(self.restore_if_overdue, worker, tag.decode())
        self.restore(by)
        assert renewed <= self.tags(), "requeued although it was renewed"

    def restore_if_overdue(self, worker: Worker, tag: str) -> None:
        worker.channel.qos.restore_by_tag(tag, overdue=True)

    def restore(self, by: int) -> None:
        if by == len(self.workers):
            self.old.channel.qos.restore_visible(num=None, interval=1)
        else:
            worker = self.workers[by]
            worker.attempt(lambda: worker.channel.qos.restore_visible(num=None, interval=1))

    # --- the end ---

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            for worker in self.workers:
                worker.close()
            self.old.close()
            self.publisher.close()
            self.redis.close()

    def finish(self) -> None:
        """Drain and acknowledge everything; nothing may be left."""
        for worker in self.workers:
            worker.die()
        self.old.close()
        self.workers = [Worker()]
        self.old = KombuWorker()
        self.age()
        self.restore(0)
        worker = self.workers[0]
        until = time.monotonic() + 5
        while True:
            worker.attempt(worker.step)
            while worker.held:
                message = worker.held.pop()
                self.acknowledged.add(message.headers["number"])
                message.ack()
            left = [key for key in self.redis.scan_iter() if not key.startswith(b"_kombu.binding")]
            if not left:
                break
            assert time.monotonic() < until, f"not drained: {left}"
        assert self.acknowledged == set(self.published)


def number(text: bytes) -> int:
    """Return the number of a message in a queue or in a record of an unacknowledged one."""
    return int(text.partition(b'"number": ')[2].partition(b",")[0].partition(b"}")[0])


TestTransport = Model.TestCase
TestTransport.settings = settings(
    max_examples=int(os.environ.get("FORGE_MODEL_EXAMPLES", "100")),
    stateful_step_count=40,
    deadline=None,
    # Shrinking would take minutes, with consumers that stall.
    phases=(Phase.generate, *((Phase.shrink,) if "FORGE_MODEL_SHRINK" in os.environ else ())),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
