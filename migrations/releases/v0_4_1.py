"""0.4.1: faults of 0.4.0, and one limit for request bodies."""

from __future__ import annotations

from engine.release import Release
from releases.conditions import with_accounts, with_celery, with_pack, with_schedule

RELEASE = Release(
    "0.4.1",
    changes=(
        "make test runs the fast tests, in two processes with servers of their own; make test-all runs all of them. A test "
        'of yours that must run alone: @pytest.mark.processes, or make test ARGS="-n 0".',
        "A request body over the limit is answered 413 in one form, also without Content-Length.",
        with_celery(
            "A result that Redis refuses is stored again for CELERY_RESULT_RETRY seconds (120); then the task goes back to its "
            "queue and runs again."
        ),
        with_celery(
            "Arguments nested deeper than 100 levels, larger than CELERY_MESSAGE_MAX_BYTES (4 MiB) or with the keys __type__ "
            "and __value__ are refused where a task is queued (InvalidArguments, 422)."
        ),
        with_celery(
            "A task that a worker does not know goes back to its queue for CELERY_UNKNOWN_TASK_WAIT seconds (300) before it "
            "fails. Deploy workers before API and beat."
        ),
        with_celery("A revoked task is not run by workers that start later either, for 30 days."),
        with_celery(
            "A time_limit given alone is enforced, with a soft limit at nine tenths of it; limits that contradict each "
            "other raise."
        ),
        "A Redis URL stops a process at its start where it would be misread: a broker's with options other than ssl_*, any "
        "with unknown options or ssl_* without rediss://; the number of the database is the path, /1.",
        with_celery("A worker whose Redis user may not use channels or scripts says so and exits."),
        with_schedule("GET /ready asks for schedule_entries too: entries that could not be queued."),
        with_accounts(
            "A login, registration or change of password that waits too long to be hashed is answered 503 with Retry-After."
        ),
        with_pack(
            "images",
            "Images above 50 megapixels (JPEG), 16 (PNG, progressive JPEG) or 8.5 (WebP) are refused: they need more memory "
            "than a worker's limit.",
        ),
    ),
    steps=(
        "app/core/body_limit.py is gone: where you used BodyLimit or larger_bodies, give the router or route max_body_size.",
        with_celery("Set peak_memory (bytes) on tasks of yours that take more than 150 MiB: a test adds them up."),
    ),
)
