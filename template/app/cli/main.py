"""The command line of the project, which `[project.scripts]` in pyproject.toml installs under the project's name.

A module in `app/cli/commands/` is a command of the module's name. It has `command`, which is a function or, for a group, a
`typer.Typer`. It imports the application inside its functions, as every call of the command line imports every module: one call
must not wait for what another needs, and `audit` must run with invalid settings.
"""

import typer

from app.core.discovery import load_commands


def create_cli() -> typer.Typer:
    """Return the command line with all commands."""
    cli = typer.Typer(
        help="Operate the application. Exit codes and examples: docs/command-line.md.",
        no_args_is_help=True,
        # Its tracebacks show less than Python's own.
        pretty_exceptions_enable=False,
    )
    for name, module in load_commands().items():
        if isinstance(module.command, typer.Typer):
            cli.add_typer(module.command, name=name)
        else:
            cli.command(name)(module.command)
    return cli


def main() -> None:
    """Run the command line."""
    create_cli()()
