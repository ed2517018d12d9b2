"""Dead letters: messages whose tasks have failed for good."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from app.cli.console import ExitCode, Json, fail, print_fields, print_json, print_table

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

    async def read() -> dead_letters.LetterList:
        query = dead_letters.LetterQuery(error=error, task=task, queue=queue, limit=limit, cursor=cursor)
        return await dead_letters.list_dead_letters(query, OPERATOR)

    found = call(read())
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

    found = call(dead_letters.get_dead_letter(letter_id, OPERATOR)).model_dump(mode="json")
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
    from app.features.tasks.platform import dead_letters
    from app.features.tasks.platform.command_line import OPERATOR

    async def replay_one(letter_id: str) -> str:
        return f"replayed as {(await dead_letters.replay_dead_letter(letter_id, OPERATOR, alone)).task_id}"

    _each(letter_ids, replay_one, as_json=as_json)


@command.command()
def delete(letter_ids: Letters, *, as_json: Json = False) -> None:
    """Delete dead letters with their messages."""
    from app.features.tasks.platform import dead_letters
    from app.features.tasks.platform.command_line import OPERATOR

    async def delete_one(letter_id: str) -> str:
        await dead_letters.delete_dead_letter(letter_id, OPERATOR)
        return "deleted"

    _each(letter_ids, delete_one, as_json=as_json)


def _each(letter_ids: list[str], change: Callable[[str], Coroutine[Any, Any, str]], *, as_json: bool) -> None:
    """Change the letters in their order; stop at the first that cannot be changed."""
    from app.features.tasks.platform.command_line import call

    if len(set(letter_ids)) < len(letter_ids):
        fail("an id is given twice", ExitCode.USAGE)
    done = []
    try:
        for letter_id in letter_ids:
            done.append((letter_id, call(change(letter_id))))
    finally:
        if as_json:
            print_json([{"letter_id": letter_id, "outcome": outcome} for letter_id, outcome in done])
        else:
            print_table(["id", "outcome"], done)
