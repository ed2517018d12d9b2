"""Start a worker or beat: `python -m app.worker worker -Q high,default` and `python -m app.worker beat`.

These are the commands and options of `celery -A app.core.celery:celery_app`, which works too. That one imports what none of its
long-running processes use: all other commands, an interactive shell, and Flower, which adds itself to Celery's command line.
Without them a process starts with 13 MB less.
"""

import click
from celery.bin.base import CLIContext
from celery.bin.beat import beat
from celery.bin.worker import worker

from app.core.celery import celery_app


@click.group()
@click.option("-q", "--quiet", is_flag=True, help="Print no banner.")
@click.option("-C", "--no-color", envvar="NO_COLOR", is_flag=True, help="Print without colours.")
@click.pass_context
def main(context: click.Context, *, quiet: bool, no_color: bool) -> None:
    """Start a process of the task queue."""
    context.obj = CLIContext(app=celery_app, no_color=no_color, workdir=None, quiet=quiet)


main.add_command(worker)
main.add_command(beat)

if __name__ == "__main__":
    # Options can also be variables such as CELERY_WORKER_CONCURRENCY, as with Celery's own command line.
    main(prog_name="python -m app.worker", auto_envvar_prefix="CELERY")
