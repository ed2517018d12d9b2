"""The workers that are alive."""

from app.cli.console import Json, print_json, print_table


def command(*, as_json: Json = False) -> None:
    """List the workers that are alive, with the seconds since their last heartbeat."""
    from app.features.tasks.platform.command_line import run
    from app.worker import liveness
    from app.worker.broker import broker_client, in_thread

    def read() -> dict[str, float]:
        with broker_client() as client:
            return liveness.alive_workers(client)

    workers = run(in_thread(read))
    if as_json:
        print_json([{"worker": name, "heartbeat_age": age} for name, age in workers.items()])
    else:
        print_table(["worker", "last heartbeat"], [(name, f"{age:.0f} s ago") for name, age in workers.items()])
