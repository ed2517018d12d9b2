"""A model of task records, against which hypothesis plays publishers, workers, cancellations and retries, step by step.

test_records_model.py copies this into a generated project and runs it there, on the Redis of the project's tests. What takes
several calls (a retry, a cancellation) is played call by call, so that others come between.
"""

import os
from typing import Any

from celery import states
from celery.app.task import Context
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.core.celery import celery_app
from app.core.config.celery import celery_settings
from app.worker import history, owners, records, revocation
from app.worker.broker import result_key, results_client
from app.worker.history import Filter, TaskRecord

IDS = [f"task-{number}" for number in range(9)]
NAMES, QUEUES, OWNERS = ("model.a", "model.b"), ("default", "long"), (None, "user-1", "user-2")
KEPT = 6
"""Fewer than there are ids, so that the oldest records are dropped."""

ids, kinds, errors = st.sampled_from(IDS), st.integers(0, 5), st.text(max_size=300)


def described(task_id: str, kind: int) -> dict[str, Any]:
    """Return the headers of a message: several tasks may have one id after another."""
    headers: dict[str, Any] = {"id": task_id, "task": NAMES[kind % 2], "argsrepr": "()", "kwargsrepr": "{}"}
    owner = OWNERS[kind % 3]
    return {**headers, **({owners.HEADER: owner} if owner else {})}


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.before = celery_settings.records_max
        celery_settings.records_max = KEPT
        self.redis = results_client()
        self.redis.flushdb()
        self.kinds = dict.fromkeys(IDS, 0)
        self.ended: dict[str, TaskRecord] = {}
        """What the record of each task was when it ended."""
        self.cancelling: list[str] = []
        self.retrying: list[str] = []

    def teardown(self) -> None:
        celery_settings.records_max = self.before

    # --- publishers ---

    @rule(task_id=ids, kind=kinds, ignores=st.booleans())
    def publish(self, task_id: str, kind: int, ignores: bool) -> None:
        """Publish a task, perhaps under an id that is in use."""
        if not self.redis.exists(result_key(task_id)):
            self.ended.pop(task_id, None)
            self.kinds[task_id] = kind
        headers = {**described(task_id, kind), "ignore_result": ignores}
        records._record_published(headers=headers, routing_key=QUEUES[kind % 2])

    @rule(task_id=ids)
    def step_of_a_workflow(self, task_id: str) -> None:
        records.record_pending([task_id])

    @rule(task_id=ids)
    def refused(self, task_id: str) -> None:
        """Redis refuses the message after the record."""
        before = history.read(task_id)
        for command in records.forget([task_id]):
            self.redis.execute_command(*command)
        if before and before.state not in {"PENDING", "UNTRACKED"}:
            assert history.read(task_id) == before

    # --- workers ---

    def store(self, task_id: str, state: str, value: Any, retries: int = 0, **options: Any) -> None:
        kind = self.kinds[task_id]
        delivery = {"routing_key": QUEUES[kind % 2], "redelivered": bool(retries % 2)}
        request = Context(**described(task_id, kind), hostname="w", retries=retries, delivery_info=delivery)
        celery_app.backend.store_result(task_id, value, state, request=request, **options)

    @rule(task_id=ids, retries=st.integers(0, 3))
    def start(self, task_id: str, retries: int) -> None:
        self.store(task_id, states.STARTED, {}, retries)

    @rule(task_id=ids, progress=st.one_of(st.none(), st.integers(), errors))
    def progress(self, task_id: str, progress: Any) -> None:
        celery_app.backend.store_result(task_id, progress, "PROGRESS")

    @rule(task_id=ids, state=st.sampled_from(sorted(states.READY_STATES)), text=errors)
    def end(self, task_id: str, state: str, text: str) -> None:
        self.store(task_id, state, 1 if state == states.SUCCESS else ValueError(text))

    @rule(task_id=ids, text=errors, seconds=st.integers(0, 600))
    def begin_retry(self, task_id: str, text: str, seconds: int) -> None:
        self.store(task_id, states.RETRY, ValueError(text), next_retry=seconds)
        self.retrying.append(task_id)

    @rule(ignores=st.booleans())
    def finish_retry(self, ignores: bool) -> None:
        if self.retrying:
            task_id = self.retrying.pop(0)
            kind = self.kinds[task_id]
            headers = {**described(task_id, kind), "ignore_result": ignores, "retries": 1}
            if self.redis.exists(result_key(task_id)):
                records._record_published(headers=headers, routing_key=QUEUES[kind % 2])

    # --- cancellations ---

    @rule(task_id=ids)
    def begin_cancellation(self, task_id: str) -> None:
        revocation.store([task_id])
        if celery_app.backend.get_state(task_id) in {states.PENDING, states.RETRY}:
            self.cancelling.append(task_id)

    @rule()
    def finish_cancellation(self) -> None:
        if self.cancelling:
            celery_app.backend.mark_as_revoked(self.cancelling.pop(0), "cancelled")

    # --- time ---

    @rule(task_id=ids)
    def result_expires(self, task_id: str) -> None:
        self.redis.delete(result_key(task_id), owners.owner_key(task_id))

    @rule(task_id=ids)
    def record_expires(self, task_id: str) -> None:
        self.redis.delete(records.record_key(task_id))
        self.ended.pop(task_id, None)

    @rule()
    def redis_forgets_the_scripts(self) -> None:
        self.redis.execute_command("SCRIPT FLUSH")

    # --- what holds after each step ---

    @invariant()
    def a_final_state_never_changes(self) -> None:
        for task_id in IDS:
            record = history.read(task_id)
            if record is None:
                # Dropped, as there are newer ones.
                self.ended.pop(task_id, None)
            elif task_id in self.ended:
                assert record == self.ended[task_id]
            elif record.state in states.READY_STATES:
                assert record.finished is not None
                self.ended[task_id] = record

    @invariant()
    def a_final_result_and_its_record_have_one_state(self) -> None:
        for task_id in IDS:
            record, state = history.read(task_id), celery_app.backend.get_state(task_id)
            if record and state in states.READY_STATES and record.state != state:
                # The result of a task that another has followed under its id: see `publish`.
                assert record.state in states.READY_STATES

    @invariant()
    def each_record_is_found_once_by_each_filter(self) -> None:
        known = [record for task_id in IDS if (record := history.read(task_id))]
        assert len(known) <= KEPT
        known.sort(key=lambda record: (record.queued, record.task_id), reverse=True)
        filters: list[dict[str, Any]] = [{}, *({"state": state} for state in history.STATES)]
        filters += [{"name": name} for name in NAMES] + [{"queue": queue} for queue in QUEUES]
        filters += [{"owner": owner} for owner in OWNERS if owner]
        filters += [{"state": "PENDING", "name": NAMES[0], "queue": QUEUES[0], "owner": "user-1"}]
        for which in filters:
            expected = [one.task_id for one in known if all(getattr(one, key) == which[key] for key in which)]
            found: list[str] = []
            cursor = None
            while True:
                page = history.page(Filter(**which), cursor, limit=2)
                found += [record.task_id for record in page.records]
                cursor = page.next
                if cursor is None:
                    break
            assert found == expected, which

    @invariant()
    def a_task_is_in_the_index_of_one_state(self) -> None:
        for task_id in IDS:
            record = history.read(task_id)
            key = result_key("/records/state/").decode()
            indexes = [state for state in history.STATES if self.redis.zscore(key + state, task_id) is not None]
            if record:
                assert record.state == "SUCCESS" or record.state in indexes

    @invariant()
    def everything_expires(self) -> None:
        for key in self.redis.scan_iter("*/record*"):
            assert 0 < self.redis.ttl(key) <= celery_settings.records_expire, key


TestRecords = Model.TestCase
TestRecords.settings = settings(
    max_examples=int(os.environ.get("FORGE_MODEL_EXAMPLES", "100")),
    stateful_step_count=40,
    deadline=None,
    phases=(Phase.generate, *((Phase.shrink,) if "FORGE_MODEL_SHRINK" in os.environ else ())),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
