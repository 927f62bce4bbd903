"""``liferaft unlock``: remove locks that were left behind."""

import click

from core.errors import ExitCode
from rescue.cli.terminal import repository_option
from rescue.jobs.prune import unlock_repository


@click.command("unlock")
@repository_option
@click.option("--all", "everything", is_flag=True, help="Also those that look alive. Only when you are sure.")
def command(repository: str, everything: bool) -> int:
    """Remove the locks of processes that are gone.

    Usually nobody needs this: whoever is hindered by a dead lock removes it. A process whose lock is
    removed while it works stops before it deletes anything or writes a recovery point.

    \b
    liferaft unlock --repo /mnt/usb/backup
    """
    removed, left = unlock_repository(repository, everything=everything)
    for lock in removed:
        click.echo(f"Removed: {lock.text}.")
    for lock in left:
        click.echo(f"Left, because its owner may be at work: {lock.text}.")
    if not removed and not left:
        click.echo("There are no locks.")
    return ExitCode.WARNINGS if left else ExitCode.DONE
