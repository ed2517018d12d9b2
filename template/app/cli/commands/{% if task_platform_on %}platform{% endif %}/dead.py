"""Dead letters: messages whose tasks have failed for good."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import DryRun, Json, print_fields, print_json, print_table

if TYPE_CHECKING:
    from app.features.tasks.platform.command_line import Route
    from app.features.tasks.platform.dead_letters import LettersChanged, Replayed

command = typer.Typer(help="List, show, replay and delete dead letters.", no_args_is_help=True)

Letter = Annotated[str, typer.Argument(metavar="ID", help="The id of a dead letter.")]
Letters = Annotated[list[str] | None, typer.Argument(metavar="ID", help="The ids of dead letters.")]
Error = Annotated[str | None, typer.Option(help="The type of the error.")]
Task = Annotated[str | None, typer.Option(help="The name of the task.")]
Queue = Annotated[str | None, typer.Option(help="The name of the queue.")]


@command.command("list")
def list_letters(
    *,
    error: Error = None,
    task: Task = None,
    queue: Queue = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Continue after a page: its next cursor.")] = None,
    as_json: Json = False,
) -> None:
    """List dead letters, the newest first, and how many there are of each error."""
    from app.features.tasks.platform import dead_letters
    from app.features.tasks.platform.command_line import OPERATOR, call

    query = {"error": error, "task": task, "queue": queue, "limit": limit, "cursor": cursor}
    found = call(dead_letters.list_dead_letters, query, OPERATOR)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_table(["number", "error", "task"], [(one.number, one.error, one.task) for one in found.groups])
    print()
    rows = [(one.dead_since, one.task, one.queue, one.reason, one.letter_id) for one in found.letters]
    print_table(["since", "task", "queue", "reason", "id"], rows)
    if found.next_cursor:
        print(f"More: --cursor {found.next_cursor}")


@command.command()
def show(letter_id: Letter, *, as_json: Json = False) -> None:
    """Show a dead letter with its message."""
    from app.features.tasks.platform import dead_letters
    from app.features.tasks.platform.command_line import OPERATOR, call

    found = call(dead_letters.get_dead_letter, letter_id, OPERATOR).model_dump(mode="json")
    if as_json:
        print_json(found)
    else:
        print_fields(found.items())


@command.command()
def replay(
    letter_ids: Letters = None,
    *,
    error: Error = None,
    task: Task = None,
    queue: Queue = None,
    dry_run: DryRun = None,
    alone: Annotated[bool, typer.Option("--alone", help="A step of a workflow too, without what follows it.")] = False,
    as_json: Json = False,
) -> None:
    """Queue messages again, as new tasks, and delete the dead letters: by their ids, or all that match a filter."""
    from app.features.tasks.platform.command_line import OPERATOR, call_each, selection
    from app.features.tasks.platform.dead_letters import replay_dead_letter, replay_dead_letters

    done = "replayed as {0.task_id}".format
    which = selection(letter_ids, dry_run, error=error, task=task, queue=queue)
    if which is None:
        call_each(letter_ids or (), replay_dead_letter, OPERATOR, alone, as_json=as_json, done=done)
    else:
        request = which | {"dry_run": dry_run is not False, "alone": alone}
        _call_until_done(replay_dead_letters, request, as_json=as_json, done=done)


@command.command()
def delete(
    letter_ids: Letters = None,
    *,
    error: Error = None,
    task: Task = None,
    queue: Queue = None,
    dry_run: DryRun = None,
    as_json: Json = False,
) -> None:
    """Delete dead letters with their messages: by their ids, or all that match a filter."""
    from app.features.tasks.platform.command_line import OPERATOR, call_each, selection
    from app.features.tasks.platform.dead_letters import delete_dead_letter, delete_dead_letters

    which = selection(letter_ids, dry_run, error=error, task=task, queue=queue)
    if which is None:
        call_each(letter_ids or (), delete_dead_letter, OPERATOR, as_json=as_json, done=lambda _: "deleted")
    else:
        request = which | {"dry_run": dry_run is not False}
        _call_until_done(delete_dead_letters, request, as_json=as_json, done=lambda _: "deleted")


def _call_until_done(
    route: "Route[LettersChanged]", request: dict[str, object], *, as_json: bool, done: "Callable[[Replayed], str]"
) -> None:
    """Call the function of a route, which changes some of what a filter selects, until all are changed or refused."""
    from app.features.tasks.platform.command_line import OPERATOR, Outcomes, call

    with Outcomes(as_json=as_json) as outcomes:
        while True:
            result = call(route, request, OPERATOR)
            for one in result.done:
                if result.dry_run:
                    outcomes.add(one.letter_id, "selected", "selected")
                else:
                    outcomes.add(one.letter_id, "done", done(one), task_id=one.task_id)
            for refused in result.refused:
                outcomes.refuse(refused.letter_id, refused.reason)
            if result.dry_run and result.remaining:
                print(f"{result.remaining} more match.", file=sys.stderr)
            if result.dry_run or not (result.remaining and result.done):
                return
