"""Dead letters: messages whose tasks have failed for good."""

from typing import Annotated

import typer

from app.cli.console import Json, print_fields, print_json, print_table

command = typer.Typer(help="List, show, replay and delete dead letters.", no_args_is_help=True)

Letter = Annotated[str, typer.Argument(metavar="ID", help="The id of a dead letter.")]
Letters = Annotated[list[str], typer.Argument(metavar="ID", help="The ids of dead letters.")]


@command.command("list")
def list_letters(
    *,
    error: Annotated[str | None, typer.Option(help="The type of the error.")] = None,
    task: Annotated[str | None, typer.Option(help="The name of the task.")] = None,
    queue: Annotated[str | None, typer.Option()] = None,
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
    letter_ids: Letters,
    *,
    alone: Annotated[bool, typer.Option("--alone", help="A step of a workflow too, without what follows it.")] = False,
    as_json: Json = False,
) -> None:
    """Queue the messages again, as new tasks, and delete the dead letters."""
    from app.features.tasks.platform.command_line import OPERATOR, call_each
    from app.features.tasks.platform.dead_letters import Replayed, replay_dead_letter

    def done(answer: Replayed) -> str:
        return f"replayed as {answer.task_id}"

    call_each(letter_ids, replay_dead_letter, OPERATOR, alone, as_json=as_json, done=done)


@command.command()
def delete(letter_ids: Letters, *, as_json: Json = False) -> None:
    """Delete dead letters with their messages."""
    from app.features.tasks.platform.command_line import OPERATOR, call_each
    from app.features.tasks.platform.dead_letters import delete_dead_letter

    call_each(letter_ids, delete_dead_letter, OPERATOR, as_json=as_json, done=lambda _: "deleted")
