"""The task runtime, one module per concept. Routes and tasks need `publish`, sometimes `status`. `python -m app.worker` starts
workers and beat.

Queue a task and read its state
    publish            `enqueue`, `enqueue_many`, `status_of`, `wait_for`, `cancel` and `retry` for `async def` code
    sending            sends one message with its record, from the event loop or a thread
    bulk               sends up to a thousand messages in one step
    in_session         sends a message when a session's transaction is committed
    cancellation       `status_of`, `wait_for` and `cancel`
    typing             the types of tasks, signatures and results for mypy
    task               `AppTask`, the base class of every task
    serializer         what a message may contain
    messages           collects the message that Celery publishes, so that no thread has to send it
    after_commit       what a session sends when it is committed, and not when it is rolled back
    outbox             tasks that are committed with the data, and the relay that publishes them
    idempotency        a message is published once per key
    once               an effect and the fact that it happened, in one transaction
    eager_mode         refuses Celery's `task_always_eager`
    memory_limit       refuses to queue while Redis is nearly full
    owners             the owner of a task: the user for whom the API queued it
    job_limit          how many unfinished jobs an owner may have
    queue_depth        how many messages may wait in a queue
    flow_control       the rules that tasks declare, and which calls are queued; `flow_scripts` has their Lua
    correlation        the id and the trace of a request, in the headers of what it queues
    records            the record of each task: what it is, and what has happened to it
    record_scripts     the Lua of the records: written with the state, indexed and trimmed in the same call
    history            records by id, and newest first by state, name, queue and owner
    status             `TaskStatus`, read from the result store
    rerun              runs a task again that has failed or was revoked, with its stored message
    watch              follows tasks: their records as they change, over one Redis connection for all watchers
    revocation         cancelled tasks, stored so that restarted workers know them

Run a task
    transport          takes messages from Redis and acknowledges them, several per call; `transport_scripts` has its Lua
    prefetch           how many messages of each queue a worker takes in advance
    refusals           pauses while Redis refuses commands
    pool               the threads pool: many `async def` tasks at a time, their time limits and cancellation
    fork               shares memory between the processes of a prefork worker
    event_loop         one event loop per worker process, for `async def` tasks
    interruption       raises an exception in a coroutine where it waits
    request            `AppRequest`: one delivery of a task, in the worker's main process
    start              whether a task may run: revocation, redelivery limit, success before and STARTED in one round trip
    time_limits        hard and soft time limits that fit together
    waiting            which tasks may start now, and which wait for a rule of `flow_control`
    task_progress      `progress(done, total, "resizing")`, from a task
    payload_versions   upgrades the messages that an older release queued
    result_backend     writes states to the result store, and retries while it refuses them
    workflow_failures  fails what can no longer run after a step of a workflow failed
    logs               a log line when a task ends

When a worker or a message fails: docs/worker-failures.md
    redelivery         the redelivery limit, requeued messages, and which deliveries do not count
    visibility         `VisibilityRenewal`: no redelivery while the worker of a task is alive
    shutdown           graceful shutdown: finish what can be finished, requeue the rest
    unknown_tasks      requeues tasks that only another release knows
    poison_messages    fails and dead-letters messages that no worker can run
    dead_letters       messages whose tasks have ended for good, stored whole
    replay             queues the message of a dead letter again

Health
    liveness           `LivenessHeartbeat`, the probe file and the checks of GET /ready
    progress           whether a worker's consumer makes progress
    heartbeat          the thread that both heartbeats of a worker run on
    worker_reports     what each worker consumes and runs
    queue_states       what waits in each queue, for how long, and what of it runs
    paused_queues      queues from which workers take nothing
    permissions        what the Redis users must be allowed to do

The schedule
    beat               `HeartbeatScheduler`: heartbeat, expiry and errors of every scheduler
    schedule           the scheduler of one beat
    last_runs          when each entry last ran, in Redis
    schedule_health    entries that could not be queued
    schedule_control   the entries as beat has them, paused ones, and those that are to run now
    summer_time        entries that skip the repeated hour in autumn

    broker             the Redis clients of the broker and of the result store
    pipeline           the round trips of `async def` code to both
"""
