"""The workers that are alive."""

from app.cli.console import Json, print_json, print_table


def command(*, as_json: Json = False) -> None:
    """List the workers that are alive: their queues, and what they run."""
    from app.features.tasks.platform import queues
    from app.features.tasks.platform.command_line import OPERATOR, call

    found = call(queues.list_workers, OPERATOR)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    rows = []
    for worker in found.workers:
        pool = f"{worker.pool}, {worker.concurrency}" if worker.pool else None
        rows.append(
            (worker.name, worker.heartbeat_at, pool, ", ".join(worker.queues or ()), worker.running, worker.taken)
        )
    print_table(["worker", "heartbeat", "pool", "queues", "running", "taken"], rows)
