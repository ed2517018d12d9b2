"""Users: who is an operator."""

from typing import Annotated

import typer

from app.cli.console import ExitCode, Json, fail, print_json, print_table, printable, run

command = typer.Typer(help="Manage users.", no_args_is_help=True)


@command.command()
def operator(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The user's e-mail address.")],
    *,
    on: Annotated[bool, typer.Option("--on/--off", help="Whether the user is an operator.")],
    as_json: Json = False,
) -> None:
    """Let a user see and change the tasks of all users, or only their own."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.core.database import session_scope
    from app.features.accounts.service import set_operator

    async def change() -> bool:
        async with session_scope() as db:
            return await set_operator(db, email, is_operator=on)

    if not run(change(), SQLAlchemyError, OSError):
        fail(f"no user has the address {email}", ExitCode.NOT_FOUND)
    if as_json:
        print_json({"email": email.lower(), "is_operator": on})
    else:
        print(f"{printable(email.lower())} is {'an operator' if on else 'no operator'} now.")


@command.command()
def operators(*, as_json: Json = False) -> None:
    """List the operators."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.core.database import session_scope
    from app.features.accounts import service

    async def read() -> list[str]:
        async with session_scope() as db:
            return await service.operators(db)

    found = run(read(), SQLAlchemyError, OSError)
    if as_json:
        print_json([{"email": email} for email in found])
    else:
        print_table(["operator"], [(email,) for email in found])
