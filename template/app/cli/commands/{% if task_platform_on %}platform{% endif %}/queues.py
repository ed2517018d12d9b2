"""Queues: what waits in them, pause and resume."""

from typing import Annotated, Any

import typer

from app.cli.console import Json, print_json, print_table

command = typer.Typer(help="List, pause and resume queues.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of a queue.")]

_COLUMNS = ("queue", "waiting", "oldest", "running", "taken", "workers", "paused since")


@command.command("list")
def list_queues(*, as_json: Json = False) -> None:
    """List the queues: what waits and since when, what runs, and which are paused."""
    from app.features.tasks.platform import queues
    from app.features.tasks.platform.command_line import OPERATOR, call

    found = call(queues.list_queues, OPERATOR)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_table(_COLUMNS, map(_row, found.queues))


@command.command()
def pause(name: Name, *, as_json: Json = False) -> None:
    """Let workers take no more messages of a queue; what they have taken runs."""
    from app.features.tasks.platform import queues
    from app.features.tasks.platform.command_line import OPERATOR, call

    _show(call(queues.pause_queue, name, OPERATOR), as_json=as_json)


@command.command()
def resume(name: Name, *, as_json: Json = False) -> None:
    """Let workers take messages of a queue again."""
    from app.features.tasks.platform import queues
    from app.features.tasks.platform.command_line import OPERATOR, call

    _show(call(queues.resume_queue, name, OPERATOR), as_json=as_json)


def _show(queue: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(queue.model_dump(mode="json"))
    else:
        print_table(_COLUMNS, [_row(queue)])


def _row(queue: Any) -> tuple[object, ...]:
    waiting = queue.waiting + queue.waiting_for_rules
    oldest = None if queue.oldest_age is None else f"{queue.oldest_age:.0f} s"
    workers = f"{queue.workers_paused} of {queue.workers} paused" if queue.paused else queue.workers
    return queue.name, waiting, oldest, queue.running, queue.taken, workers, queue.paused_since
