"""The transport takes, acknowledges and requeues messages atomically, next to consumers that use kombu's transport."""

import contextlib
import json
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import kombu
import pytest
import redis
from celery.concurrency import solo
from kombu import Connection, Consumer, Producer, Queue
from kombu.transport.redis import Transport as KombuTransport

from app.core.config.celery import celery_settings
from app.worker import transport, transport_scripts
from app.worker.prefetch import QueuePrefetch
from app.worker.transport import Channel, Transport

URL = celery_settings.broker_url.get_secret_value()
QUEUES = [Queue(name, routing_key=name) for name in ("probe-a", "probe-b", "probe-long")]


class Receiver:
    """A consumer of the probe queues."""

    def __init__(
        self, prefetch: int, *, multiplier: int = 1, kind: Any = Transport, timeout: int = 60, **more: Any
    ) -> None:
        self.messages: list[Any] = []
        options = {"visibility_timeout": timeout, "queue_prefetch": {"probe-long": 1}, "unacked_restore_throttle": 1}
        options.update(more)
        self.connection = Connection(URL, transport=kind, transport_options=options)
        self.channel: Any = self.connection.default_channel
        self.channel.qos.multiplier = multiplier
        self.consumer = Consumer(self.channel, QUEUES, on_message=self.messages.append, prefetch_count=prefetch)
        self.consumer.consume()

    @property
    def bodies(self) -> list[Any]:
        return [message.payload for message in self.messages]

    def drain(self, done: Callable[[], object] = lambda: False, limit: float = 5) -> None:
        """Handle events until `done`, or until nothing happens."""
        until = time.monotonic() + limit
        while not done() and time.monotonic() < until:
            try:
                self.connection.drain_events(timeout=0.2)
            except TimeoutError:
                if self.channel._asked is None if isinstance(self.channel, Channel) else True:
                    return

    def receive(self, number: int) -> None:
        """Handle events until so many messages have arrived."""
        until = time.monotonic() + 10
        while len(self.messages) < number and time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                self.connection.drain_events(timeout=0.2)
        assert len(self.messages) >= number, self.bodies


@pytest.fixture
def client() -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(URL) as connected:
        connected.flushdb()
        yield connected
        connected.flushdb()


@pytest.fixture
def receiver(client: Any) -> Iterator[Callable[..., Receiver]]:
    opened: list[Receiver] = []

    def new(*args: Any, **kwargs: Any) -> Receiver:
        opened.append(Receiver(*args, **kwargs))
        return opened[-1]

    yield new
    for one in opened:
        with contextlib.suppress(Exception):
            one.connection.close()


def publish(*bodies: object, queue: str = "probe-a", **options: Any) -> None:
    with Connection(URL, transport=KombuTransport) as connection:
        producer = Producer(connection)
        declared = next(one for one in QUEUES if one.name == queue)
        for body in bodies:
            producer.publish(body, routing_key=queue, declare=[declared], **options)


def test_a_message_is_taken_and_registered_at_once(receiver: Callable[..., Receiver], client: Any) -> None:
    publish(*range(5))
    one = receiver(3)
    one.receive(3)
    assert one.bodies == [0, 1, 2]
    assert client.llen("probe-a") == 2
    registered = client.hgetall("unacked")
    assert {tag.decode() for tag in registered} == {message.delivery_tag for message in one.messages}
    assert client.zcard("unacked_index") == 3
    for record in registered.values():
        payload, exchange, routing_key = json.loads(record)
        assert payload["properties"]
        assert (exchange, routing_key) == ("", "probe-a")


def test_the_text_of_a_message_is_registered_unchanged(receiver: Callable[..., Receiver], client: Any) -> None:
    publish({"big": 9007199254740993, "float": 1.0, "empty": [], "text": "é/"})
    (text,) = client.lrange("probe-a", 0, -1)
    one = receiver(1)
    one.receive(1)
    (record,) = client.hvals("unacked")
    assert record == b"[" + text + b', "", "probe-a"]'
    assert one.bodies == [{"big": 9007199254740993, "float": 1.0, "empty": [], "text": "é/"}]


def test_acknowledged_messages_are_unregistered_with_the_next_take(
    receiver: Callable[..., Receiver], client: Any
) -> None:
    publish(*range(4))
    one = receiver(2)
    one.receive(2)
    for message in one.messages:
        message.ack()
    one.receive(4)
    assert client.hlen("unacked") == client.zcard("unacked_index") == 2
    for message in one.messages[2:]:
        message.ack()
    one.drain(lambda: not client.hlen("unacked"))
    assert not client.exists("unacked", "unacked_index", "probe-a")


def test_an_acknowledgement_from_another_thread_wakes_the_consumer(receiver: Callable[..., Receiver]) -> None:
    publish(1, 2)
    one = receiver(1)
    one.receive(1)
    timer = threading.Timer(0.2, one.messages[0].ack)
    timer.start()
    started = time.monotonic()
    with contextlib.suppress(TimeoutError):
        one.connection.drain_events(timeout=30)
    assert time.monotonic() - started < 20
    one.receive(2)
    one.drain()
    # It waits again.
    turns: list[None] = []
    one.channel.send_take = lambda: turns.append(None)
    with pytest.raises(TimeoutError):
        one.connection.drain_events(timeout=0.2)
    assert len(turns) < 10


def test_an_idle_consumer_sends_nothing_until_a_message_arrives(receiver: Callable[..., Receiver], client: Any) -> None:
    one = receiver(1)
    one.drain()
    with client.monitor() as monitor:
        with pytest.raises(TimeoutError):
            one.connection.drain_events(timeout=1)
        client.ping()
        commands = []
        for command in monitor.listen():
            commands.append(command["command"])
            if command["command"].startswith("PING"):
                break
    assert [command for command in commands if "probe-a" in command] == []
    timer = threading.Timer(0.2, publish, ["late"])
    timer.start()
    started = time.monotonic()
    one.receive(1)
    assert time.monotonic() - started < transport._CHECK_AFTER
    timer.join()


def test_queues_share_the_prefetch_count_whatever_their_priorities(receiver: Callable[..., Receiver]) -> None:
    publish(*["urgent"] * 10, priority=0)
    publish(*["patient"] * 10, queue="probe-b", priority=9)
    one = receiver(8)
    one.receive(8)
    assert sorted(one.bodies) == ["patient"] * 4 + ["urgent"] * 4


def test_within_a_queue_the_higher_priority_comes_first(receiver: Callable[..., Receiver]) -> None:
    publish("low", priority=9)
    publish("middle", priority=3)
    publish("high", priority=0)
    one = receiver(2)
    one.receive(2)
    assert one.bodies == ["high", "middle"]


def test_a_worker_takes_no_more_long_tasks_than_it_has_processes(
    receiver: Callable[..., Receiver], client: Any
) -> None:
    publish(*range(10), queue="probe-long")
    # Two processes with a multiplier of 4.
    one = receiver(8, multiplier=4)
    one.drain()
    assert len(one.messages) == 2
    assert client.llen("probe-long") == 8
    one.messages[0].ack()
    one.receive(3)
    one.drain()
    assert len(one.messages) == 3


def test_short_tasks_fill_what_long_ones_leave(receiver: Callable[..., Receiver]) -> None:
    publish(1, queue="probe-long")
    publish(*range(20))
    one = receiver(8, multiplier=4)
    one.drain()
    assert len(one.messages) == 1 + 4


def test_the_messages_of_a_dead_consumer_are_requeued_and_marked(
    receiver: Callable[..., Receiver], client: Any
) -> None:
    publish("first", "second")
    dead = receiver(2, timeout=1)
    dead.receive(2)
    other = receiver(2, timeout=1)
    other.receive(2)
    assert sorted(other.bodies) == ["first", "second"]
    assert all(message.properties["delivery_info"]["redelivered"] for message in other.messages)
    # The dead one was only slow: what it acknowledges now is not the other's delivery.
    for message in dead.messages:
        message.ack()
    dead.drain()
    assert client.hlen("unacked") == 2


def test_the_visibility_timeout_is_measured_by_the_clock_of_redis(
    receiver: Callable[..., Receiver], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("long")
    one = receiver(1, timeout=60)
    one.receive(1)
    ahead = time.time() + 3600
    monkeypatch.setattr("kombu.transport.redis.time", lambda: ahead)
    one.channel.qos.restore_visible(interval=1)
    assert client.hlen("unacked") == 1
    (score,) = [score for _, score in client.zrange("unacked_index", 0, -1, withscores=True)]
    assert abs(score - float(client.time()[0])) < 30


def test_a_rejected_message_is_the_next_to_be_taken_last(receiver: Callable[..., Receiver], client: Any) -> None:
    publish("again", "other")
    one = receiver(1)
    one.receive(1)
    one.messages[0].requeue()
    one.receive(2)
    assert one.bodies == ["again", "other"]
    assert client.hlen("unacked") == 1


def test_closing_requeues_what_was_not_acknowledged(receiver: Callable[..., Receiver], client: Any) -> None:
    publish(*range(4))
    one = receiver(3)
    one.receive(3)
    one.messages[0].ack()
    one.connection.close()
    assert client.llen("probe-a") == 3
    assert not client.exists("unacked", "unacked_index")


def test_a_refused_call_is_tried_again_and_loses_nothing(
    receiver: Callable[..., Receiver], client: Any, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    publish(*range(3))
    one = receiver(1)
    one.receive(1)
    client.replicaof("127.0.0.1", "1")
    try:
        one.messages[0].ack()
        one.drain(limit=1)
        assert len(one.messages) == 1
    finally:
        client.replicaof("NO", "ONE")
    one.receive(2)
    one.drain()
    assert client.hlen("unacked") == 1
    assert client.llen("probe-a") == 1
    output = capfd.readouterr().out + caplog.text
    assert "broker_refuses" in output
    assert "read only replica" in output


def test_a_key_of_another_type_blocks_only_its_own_queue(
    receiver: Callable[..., Receiver], client: Any, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    client.set("probe-a", "no list")
    publish(1, 2, queue="probe-b")
    one = receiver(4)
    one.receive(2)
    one.drain()
    output = capfd.readouterr().out + caplog.text
    assert output.count("queue_not_readable") == 1
    assert "probe-a: WRONGTYPE" in output
    client.delete("probe-a")
    publish(3)
    one.receive(3)
    assert sorted(one.bodies) == [1, 2, 3]


def test_a_missing_permission_is_an_outage_and_no_unreadable_queue(
    receiver: Callable[..., Receiver], client: Any, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    publish(1)
    one = receiver(1)
    client.execute_command("ACL", "SETUSER", "default", "-rpop")
    try:
        one.drain(lambda: False, limit=1)
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+rpop")
    one.receive(1)
    output = capfd.readouterr().out + caplog.text
    assert "broker_refuses" in output
    assert "queue_not_readable" not in output


def test_a_message_that_cannot_be_requeued_does_not_keep_others_unacknowledged(
    receiver: Callable[..., Receiver], client: Any
) -> None:
    publish("kept")
    dead = receiver(2)
    dead.receive(1)
    publish("requeued", queue="probe-b")
    dead.receive(2)
    client.set("probe-a", "no list")
    for tag, _ in client.zscan_iter("unacked_index"):
        client.zadd("unacked_index", {tag: client.zscore("unacked_index", tag) - 3600})
    qos: Any = receiver(1).channel.qos
    qos.restore_visible(interval=0)
    assert client.llen("probe-b") == 1
    assert client.hlen("unacked") == client.zcard("unacked_index") == 1
    client.delete("probe-a")
    for tag, score in client.zscan_iter("unacked_index"):
        client.zadd("unacked_index", {tag: score - 3600})
    qos.restore_visible(interval=0)
    assert client.llen("probe-a") == 1
    assert not client.exists("unacked", "unacked_index")


def test_a_full_redis_is_emptied(receiver: Callable[..., Receiver], client: Any) -> None:
    publish(*range(3))
    client.config_set("maxmemory", 1)
    try:
        one = receiver(1)
        for number in range(3):
            one.receive(number + 1)
            one.messages[number].ack()
        one.drain(lambda: not client.exists("unacked"))
        assert not client.exists("unacked", "unacked_index", "probe-a")
    finally:
        client.config_set("maxmemory", 0)


def test_scripts_that_redis_has_forgotten_are_loaded_again(receiver: Callable[..., Receiver], client: Any) -> None:
    publish(1, 2)
    one = receiver(1)
    one.receive(1)
    client.script_flush()
    one.messages[0].ack()
    one.receive(2)


@pytest.mark.parametrize(
    "text",
    [
        b"no JSON",
        b"[]",
        b'{"properties": 1}',
        b'"text"',
        b"\xff\xfe",
        b'{"body": "x"',
        b"[" * 100_000,
        b'{"properties": {}, "headers": "text"}',
    ],
)
def test_what_is_no_message_is_delivered_as_one_without_a_task(
    receiver: Callable[..., Receiver], client: Any, text: bytes
) -> None:
    client.lpush("probe-a", text)
    one = receiver(1)
    one.receive(1)
    (message,) = one.messages
    assert message.headers == {}
    message.requeue()
    assert client.lrange("probe-a", 0, -1) == [text], "requeued unchanged"


@pytest.mark.parametrize(
    ("body", "encoding"), [("no base64", "base64"), ("text", "unknown"), ("text", 5), (5, "base64")]
)
def test_a_body_that_cannot_be_decoded_reaches_the_consumer(
    receiver: Callable[..., Receiver], client: Any, body: object, encoding: object
) -> None:
    publish({"a": 1})
    message = json.loads(client.rpop("probe-a"))
    message["body"], message["properties"]["body_encoding"] = body, encoding
    client.lpush("probe-a", json.dumps(message))
    one = receiver(1)
    one.receive(1)
    with pytest.raises(Exception, match=r".+"):
        one.messages[0].decode()


def test_a_lost_answer_loses_and_marks_no_message(receiver: Callable[..., Receiver], client: Any) -> None:
    publish("only")
    one = receiver(1)
    one.channel.send_take()
    connection = one.channel._takes_client.connection
    deadline = time.monotonic() + 5
    while not client.hlen("unacked") and time.monotonic() < deadline:
        client.ping()
    assert client.hlen("unacked") == 1
    connection.disconnect()
    one.receive(1)
    assert not one.messages[0].properties["delivery_info"].get("redelivered")
    assert client.hlen("unacked") == 1


def test_kombu_consumers_share_the_queues(receiver: Callable[..., Receiver], client: Any) -> None:
    publish(*range(20))
    new, old = receiver(1), receiver(1, kind=KombuTransport)
    done: list[Any] = []
    deadline = time.monotonic() + 20
    while len(done) < 20 and time.monotonic() < deadline:
        for one in (new, old):
            with contextlib.suppress(TimeoutError):
                one.connection.drain_events(timeout=0.1)
            while one.messages:
                done.append(one.messages[0].payload)
                one.messages.pop(0).ack()
    new.drain()
    assert sorted(done) == list(range(20))
    assert not client.exists("unacked")


def test_kombu_requeues_what_a_dead_consumer_of_this_transport_had(
    receiver: Callable[..., Receiver], client: Any
) -> None:
    publish("one", priority=3)
    dead = receiver(1)
    dead.receive(1)
    old = receiver(1, kind=KombuTransport, timeout=1)
    client.zadd("unacked_index", dict.fromkeys(client.zrange("unacked_index", 0, -1), 1))
    old.receive(1)
    assert old.bodies == ["one"]


def test_a_single_message_is_got_and_registered(client: Any) -> None:
    publish("x")
    with Connection(URL, transport=Transport) as connection:
        message = connection.default_channel.basic_get("probe-a")
        assert client.hlen("unacked") == 1
        message.ack()
        assert client.hlen("unacked") == 0


def test_a_message_that_is_registered_while_it_is_looked_for_is_not_lost(
    receiver: Callable[..., Receiver], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("x")
    one = receiver(1)
    one.receive(1)
    (tag,) = client.hkeys("unacked")
    # Redis runs a take of a connection that is lost already after the other connection has looked for its messages.
    monkeypatch.setattr(redis.Redis, "hget", lambda *_: None)
    one.channel.qos.restore_by_tag(tag.decode())
    assert client.hlen("unacked") == client.zcard("unacked_index") == 1


def test_a_prefix_stands_before_all_keys(receiver: Callable[..., Receiver], client: Any) -> None:
    prefixed = {"global_keyprefix": "mine:"}
    with Connection(URL, transport=KombuTransport, transport_options=prefixed) as connection:
        for number in range(3):
            Producer(connection).publish(number, routing_key="probe-a", declare=QUEUES[:1])
    one = receiver(2, **prefixed)
    one.receive(2)
    one.messages[0].requeue()
    one.messages[1].ack()
    one.receive(4)
    one.messages[2].ack()
    assert client.hlen("mine:unacked") == client.zcard("mine:unacked_index") > 0
    one.connection.close()
    with Connection(URL, transport=Transport, transport_options=prefixed) as connection:
        connection.default_channel.basic_get("probe-a").ack()
    assert all(key.startswith(b"mine:") for key in client.scan_iter())
    assert not client.exists("mine:unacked", "mine:unacked_index", "mine:probe-a")


def test_a_call_that_is_repeated_takes_nothing_more(client: Any) -> None:
    publish("first", "second")
    with Connection(URL, transport=Transport) as connection:
        channel: Any = connection.default_channel
        call = (transport_scripts.TAKE, *channel._arguments(["probe-a"], 1, 0, [], track=False))
        assert len(channel.run(*call)) == 4
        assert len(channel.run(*call)) == 2
        assert client.llen("probe-a") == client.hlen("unacked") == 1


def test_an_acknowledgement_from_another_thread_waits_no_longer_than_it_must(
    receiver: Callable[..., Receiver],
) -> None:
    publish(*range(5))
    one = receiver(4)
    one.receive(4)
    one.drain()
    timer = threading.Timer(0.2, one.messages[0].ack)
    timer.start()
    started = time.monotonic()
    while len(one.messages) < 5 and time.monotonic() - started < 10:
        with contextlib.suppress(TimeoutError):
            one.connection.drain_events(timeout=4)
    assert time.monotonic() - started < 3


def test_a_worker_that_has_messages_to_run_acknowledges_several_at_once(receiver: Callable[..., Receiver]) -> None:
    publish(*range(6))
    one = receiver(4)
    one.receive(4)
    one.drain()
    one.messages[0].ack()
    one.channel.send_take()
    assert one.channel._asked is None
    one.messages[1].ack()
    one.channel.send_take()
    assert one.channel._asked is not None
    one.receive(6)


def test_a_queue_of_long_tasks_does_not_wait_until_the_others_are_empty(receiver: Callable[..., Receiver]) -> None:
    publish(*range(40))
    one = receiver(8, multiplier=4)
    one.receive(8)
    publish("long", queue="probe-long")
    for done in range(20):
        one.messages[done].ack()
        one.receive(8 + done)
        one.drain(limit=0.5)
        if "long" in one.bodies:
            break
    assert "long" in one.bodies


def test_a_pool_that_runs_tasks_while_they_are_delivered_takes_one_at_a_time(
    receiver: Callable[..., Receiver], client: Any
) -> None:
    publish(*range(3))
    one = receiver(4, timeout=1)
    pool = solo.TaskPool(app=None)
    worker = SimpleNamespace(task_consumer=one.consumer, prefetch_multiplier=4, pool=pool)
    QueuePrefetch(worker).start(worker)
    taken: list[int] = []

    def run(message: Any) -> None:
        taken.append(client.hlen("unacked"))
        message.ack()

    one.consumer.on_message = run
    one.drain(lambda: len(taken) == 3)
    one.drain()
    # The others, which nobody renews, stay in the queue until the first one is done.
    assert taken == [1, 1, 1]
    assert not client.exists("unacked")


def test_what_was_acknowledged_before_the_last_consumer_was_cancelled_is_unregistered(
    receiver: Callable[..., Receiver], client: Any
) -> None:
    publish(*range(4))
    one = receiver(4)
    one.receive(4)
    one.drain()
    one.messages[0].ack()
    one.consumer.cancel()
    assert client.hlen("unacked") == 3


def test_a_frozen_redis_is_an_outage(receiver: Callable[..., Receiver], client: Any) -> None:
    one = receiver(1)
    one.channel.send_take()
    one.channel._asked_at -= 60
    with pytest.raises(redis.TimeoutError):
        one.connection.drain_events(timeout=1)


def test_closing_while_redis_refuses_closes_all_sockets(receiver: Callable[..., Receiver], client: Any) -> None:
    publish(*range(2))
    one = receiver(2)
    one.receive(2)
    one.drain()
    one.messages[0].ack()
    taking, poller = one.channel._takes_client.connection, one.channel.connection_cycle
    client.replicaof("127.0.0.1", "1")
    try:
        one.connection.default_channel.close()
    finally:
        client.replicaof("NO", "ONE")
    assert taking._sock is None
    assert one.channel not in poller._channels
    other = receiver(1)
    other.drain()
    assert client.hlen("unacked") == 1, "what was acknowledged is unregistered by the next connection"


@pytest.mark.parametrize("no_ack_first", [True, False])
def test_a_channel_may_have_consumers_of_both_kinds(client: Any, no_ack_first: bool) -> None:
    publish("to acknowledge")
    publish("not", queue="probe-b")
    got: list[Any] = []
    with Connection(URL, transport=Transport) as connection:
        channel = connection.default_channel
        for no_ack in (no_ack_first, not no_ack_first):
            queue = QUEUES[1] if no_ack else QUEUES[0]
            Consumer(channel, [queue], on_message=got.append, no_ack=no_ack).consume()
        deadline = time.monotonic() + 10
        while len(got) < 2 and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
        assert sorted(message.payload for message in got) == ["not", "to acknowledge"]
        with contextlib.suppress(TimeoutError):
            connection.drain_events(timeout=0.2)
        assert client.hlen("unacked") == 1


def test_what_a_cancelled_consumer_without_acknowledgement_gets_is_requeued(client: Any) -> None:
    publish("x")
    message = json.loads(client.rpop("probe-a"))
    with Connection(URL, transport=Transport) as connection:
        channel: Any = connection.default_channel
        channel.connection._deliver(message, "probe-a")
    assert client.llen("probe-a") == 1


def test_two_prefixes_do_not_mix_what_is_acknowledged(receiver: Callable[..., Receiver], client: Any) -> None:
    with Connection(URL, transport=KombuTransport, transport_options={"global_keyprefix": "mine:"}) as connection:
        Producer(connection).publish("x", routing_key="probe-a", declare=QUEUES[:1])
    one, other = receiver(1, global_keyprefix="mine:"), receiver(1)
    one.receive(1)
    other.drain()
    one.messages[0].ack()
    other.drain()
    one.drain()
    assert not client.exists("mine:unacked")


def test_a_child_process_does_not_inherit_what_is_unsettled() -> None:
    unsettled = transport._unsettled["redis://probe", ""]
    unsettled.unanswered.append("tag")
    if (pid := os.fork()) == 0:
        os._exit(len(transport._unsettled))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    del transport._unsettled["redis://probe", ""]


def test_a_recovered_channel_has_all_its_credit(receiver: Callable[..., Receiver]) -> None:
    publish(*range(2))
    one = receiver(2)
    one.receive(2)
    one.channel.basic_recover(requeue=True)
    one.receive(4)


def test_a_notification_behind_an_answer_is_read_with_it(receiver: Callable[..., Receiver], client: Any) -> None:
    publish(*range(2))
    one = receiver(2)
    one.receive(2)
    channel, connection = one.channel, one.channel._takes_client.connection
    one.messages[0].ack()
    one.drain()
    channel.qos.prefetch_count = 1
    # An acknowledgement without credit: nothing is taken, and nothing asked to be notified again.
    channel._unsettled.acknowledged.append("another")
    until = time.monotonic() + 5
    while channel._asked is None and time.monotonic() < until:
        channel.send_take()
    select.select([connection._sock], [], [], 5)
    publish("late")
    channel.read_take()
    assert not connection.can_read(timeout=0)
    channel.qos.prefetch_count = 2
    one.receive(3)


def test_flushing_the_database_wakes_an_idle_consumer(receiver: Callable[..., Receiver], client: Any) -> None:
    one = receiver(1)
    one.drain()
    client.flushall()
    publish("x")
    started = time.monotonic()
    one.receive(1)
    assert time.monotonic() - started < transport._CHECK_AFTER


def test_a_priority_that_is_no_number_is_requeued(receiver: Callable[..., Receiver], client: Any) -> None:
    publish(1)
    text = client.rpop("probe-a")
    for priority in (b"1e400", b"-5", b'"3"', b"null", b"10000000000000000000000", b"[]"):
        client.lpush("probe-a", text.replace(b'"priority": 0', b'"priority": ' + priority))
    one = receiver(10)
    one.receive(6)
    one.connection.close()
    assert sum(client.llen(key) for key in client.keys("probe-a*")) == 6
    assert not client.exists("unacked")


def test_an_untested_version_of_kombu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu, "VERSION", kombu.VERSION._replace(minor=99))
    with pytest.raises(RuntimeError, match="CELERY_TRANSPORT=kombu"):
        transport.register()


def test_a_message_of_an_exchange_without_bindings_is_requeued(receiver: Callable[..., Receiver], client: Any) -> None:
    publish("kept")
    record = b'[%b, "forgotten", "probe-a"]' % client.rpop("probe-a")
    client.hset("unacked", "tag", record)
    client.zadd("unacked_index", {"tag": 1})
    one = receiver(1, timeout=1)
    one.receive(1)
    assert one.bodies == ["kept"]
