"""A model of tasks that wait for a slot, against which hypothesis plays workers, their deaths and the passing of time.

test_transport_model.py copies this into a generated project and runs it there, on the Redis of the project's tests.
"""

import json
import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.worker import flow_scripts, transport_scripts
from app.worker.broker import lua_script
from app.worker.flow_control import client

TIMEOUT, RESERVED = 60, 60
LIMIT, STARTS, PER = 1, 2, 10
QUEUE = "default"
UNACKED, INDEX = "unacked", "unacked_index"
CONCURRENCY, THROTTLE = "flow:c:model:{}", "flow:t:model:0"
CLOCK = "local function now() return tonumber(redis.call('GET', 'model:clock')) end\n"


def with_clock(text: str) -> Any:
    """Return a script that reads the model's clock."""
    assert transport_scripts._CLOCK in text
    return lua_script(text.replace(transport_scripts._CLOCK, CLOCK))


START, END, WAKE, RESTORE, RENEW = map(
    with_clock,
    (flow_scripts.START, flow_scripts.END, flow_scripts.WAKE, transport_scripts.RESTORE, transport_scripts.RENEW),
)
which = st.integers(0, 9)


class Waiting(RuleBasedStateMachine):
    """Tasks with a limit of their key, a throttle, or both."""

    def __init__(self) -> None:
        super().__init__()
        self.redis: Any = client()
        self.redis.flushdb()
        self.clock = 1_000.0
        self.redis.set("model:clock", self.clock)
        self.tasks: dict[str, tuple[bool, bool, int]] = {}
        self.held: dict[str, str] = {}
        """By tag, the tasks that workers have taken."""
        self.running: set[str] = set()
        self.dead: dict[str, float] = {}
        """By tag, when its worker was last seen."""
        self.starts: list[float] = []
        self.finished: set[str] = set()
        self.number = 0

    # --- what happens ---

    @rule(kinds=st.sampled_from(["c", "t", "ct"]), key=st.sampled_from([0, 0, 0, 1]), times=st.integers(1, 3))
    def publish(self, kinds: str, key: int, times: int) -> None:
        for _ in range(times):
            self.number += 1
            task_id = f"task-{self.number}"
            self.tasks[task_id] = ("c" in kinds, "t" in kinds, key)
            self.redis.lpush(QUEUE, json.dumps({"id": task_id}))

    @rule(number=which)
    def deliver(self, number: int) -> None:
        """Take all messages, and start those that were taken."""
        while self.redis.llen(QUEUE):
            self.take()
        while [tag for tag in self.held if tag not in self.running and tag not in self.dead]:
            self.start(number)

    @rule()
    def take(self) -> None:
        message = self.redis.rpop(QUEUE)
        if message is not None:
            self.number += 1
            tag = f"tag-{self.number}"
            self.redis.hset(UNACKED, tag, b"[" + message + f', "", "{QUEUE}"]'.encode())
            self.redis.zadd(INDEX, {tag: self.clock})
            self.held[tag] = message.decode().split('"')[3]

    @rule(number=which)
    def start(self, number: int) -> None:
        tags = [tag for tag in self.held if tag not in self.running and tag not in self.dead]
        if not tags:
            return
        tag = tags[number % len(tags)]
        task_id = self.held[tag]
        args = [TIMEOUT, RESERVED, task_id, tag, "", "", "", "", "", "", "", *self._rules(task_id)]
        (outcome,) = START(self.redis, [INDEX, UNACKED], args)
        if outcome == b"started":
            self.running.add(tag)
            if self.tasks[task_id][1]:
                self.starts.append(self.clock)
        else:
            assert outcome == b"waiting"
            del self.held[tag]

    @rule(number=which)
    def end(self, number: int) -> None:
        tags = sorted(self.running - self.dead.keys())
        if tags:
            tag = tags[number % len(tags)]
            task_id = self.held.pop(tag)
            END(self.redis, [INDEX], [TIMEOUT, RESERVED, task_id, tag, "", *self._rules(task_id)[::3]])
            self.redis.hdel(UNACKED, tag)
            self.redis.zrem(INDEX, tag)
            self.running.discard(tag)
            self.finished.add(task_id)

    @rule(number=which)
    def die(self, number: int) -> None:
        alive = [tag for tag in self.held if tag not in self.dead]
        if alive:
            self.dead[alive[number % len(alive)]] = self.clock

    @rule(number=which)
    def requeue(self, number: int) -> None:
        """A process dies and its worker requeues the message, or a worker stops."""
        alive = [tag for tag in self.held if tag not in self.dead]
        if alive:
            self._restore(alive[number % len(alive)], "")

    @rule()
    def restore_overdue(self) -> None:
        for tag in list(self.dead):
            if self.dead[tag] <= self.clock - TIMEOUT:
                self._restore(tag, TIMEOUT)

    @rule(seconds=st.sampled_from([0.5, 1.5, 1.5, 4, 11, 61]))
    def tick(self, seconds: float) -> None:
        """Let time pass; live workers send their heartbeats."""
        self.clock += seconds
        self.redis.set("model:clock", self.clock)
        alive = [tag for tag in self.held if tag not in self.dead]
        if alive:
            RENEW(self.redis, [INDEX], alive)

    @rule(seconds=st.sampled_from([0, 1.5]))
    def wake(self, seconds: float) -> None:
        self.tick(seconds)
        WAKE(self.redis, [INDEX], [TIMEOUT, RESERVED, 100])

    # --- what holds ---

    @invariant()
    def every_task_is_in_one_place(self) -> None:
        places = self.redis.lrange(QUEUE, 0, -1) + self.redis.hvals(UNACKED)
        for name in self.redis.keys("flow:*:waiting"):
            places += self.redis.lrange(name, 0, -1)
        found = sorted(place.split(b'"id": "')[1].split(b'"')[0].decode() for place in places)
        assert found == sorted(self.tasks.keys() - self.finished)

    @invariant()
    def no_more_than_the_limit_run(self) -> None:
        for key in range(2):
            alive = [
                tag
                for tag in self.running
                if self.tasks[self.held[tag]][0] and self.tasks[self.held[tag]][2] == key
                if self.dead.get(tag, self.clock) > self.clock - TIMEOUT
            ]
            assert len(alive) <= LIMIT

    @invariant()
    def no_more_than_the_limit_start(self) -> None:
        assert all(last - first >= PER for first, last in zip(self.starts, self.starts[STARTS:], strict=False))

    @invariant()
    def what_waits_is_looked_at(self) -> None:
        lists = {name.removesuffix(b":waiting") for name in self.redis.keys("flow:*:waiting")} - {b"flow"}
        assert set(self.redis.zrange("flow:waiting", 0, -1)) == lists
        number = sum(self.redis.llen(name + b":waiting") for name in lists)
        assert sum(map(int, self.redis.hvals("flow:depths"))) == number

    def teardown(self) -> None:
        """Nothing waits for ever: with workers that live, all tasks end."""
        rounds = 0
        while self.finished != self.tasks.keys():
            rounds += 1
            assert rounds < len(self.tasks) + 20, "not drained"
            self.tick(11)
            self.restore_overdue()
            self.wake(0)
            while self.redis.llen(QUEUE):
                self.take()
            while [tag for tag in self.held if tag not in self.running and tag not in self.dead]:
                self.start(0)
            while self.running - self.dead.keys():
                self.end(0)
        self.every_task_is_in_one_place()

    # --- helpers ---

    def _rules(self, task_id: str) -> list[Any]:
        has_slots, is_throttled, key = self.tasks[task_id]
        slots = [CONCURRENCY.format(key), LIMIT, 0] if has_slots else []
        return [*slots, *([THROTTLE, STARTS, PER] if is_throttled else [])]

    def _restore(self, tag: str, overdue: int | str) -> None:
        record = self.redis.hget(UNACKED, tag)
        text = record[1 : record.rindex(b', "", ')]
        assert RESTORE(self.redis, [UNACKED, INDEX, QUEUE], [tag, text, "RPUSH", overdue]) == 1
        del self.held[tag]
        self.running.discard(tag)
        self.dead.pop(tag, None)


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(
    max_examples=int(os.environ.get("FORGE_MODEL_EXAMPLES", "300")),
    stateful_step_count=40,
    deadline=None,
    database=None,
    # Shrinking would take minutes.
    phases=(Phase.generate, *((Phase.shrink,) if "FORGE_MODEL_SHRINK" in os.environ else ())),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
