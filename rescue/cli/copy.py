"""``liferaft copy``: recovery points from one repository into another."""

import click

from core.documents import encode
from core.errors import ExitCode
from core.units import counted, format_size
from images.store.access import Access
from images.store.signature import SigningKey
from rescue.cli.terminal import (
    access_options,
    destination_access_options,
    json_option,
    open_sink,
    progress_option,
    repository_option,
    sign_option,
)
from rescue.jobs.copy import copy_repository


@click.command("copy")
@click.argument("points", nargs=-1, metavar="[ID...]")
@repository_option
@access_options
@click.option("--to", "target", required=True, metavar="REPO", help="The repository to copy into; made when missing.")
@destination_access_options
@sign_option
@click.option("--all", "everything", is_flag=True, help="Copy every recovery point.")
@click.option("--decrypt", is_flag=True, help="Allow copying from an encrypted repository into a plain one.")
@json_option
@progress_option
def command(
    points: tuple[str, ...],
    repository: str,
    target: str,
    access: Access,
    destination_access: Access,
    sign: SigningKey | None,
    everything: bool,
    decrypt: bool,
    as_json: bool,
    progress: str,
) -> int:
    """Copy recovery points into another repository.

    Between plain repositories only what is missing there travels, and a recovery point keeps its id
    and its signature. Where one side is encrypted, everything is read, gets new ids, and a new
    signature only with --sign-key. Copying again is harmless, and goes on where it stopped.
    The source may be a web server; the target may not.

    \b
    liferaft copy --all --repo /srv/backup --to /mnt/usb/backup
    liferaft copy latest --repo http://server/backup --to ./backup
    """
    result = copy_repository(
        repository,
        target,
        points,
        everything=everything,
        decrypt=decrypt,
        sink=open_sink(progress),
        access=access,
        target_access=destination_access,
        sign=sign,
    )
    if as_json:
        click.echo(encode(result), nl=False)
    else:
        for point in result.points:
            state = "was there already" if point.already else point.problem or "copied"
            renamed = f" as {point.id[:12]}" if point.id and point.id != point.source else ""
            click.echo(f"{point.source[:12]}{renamed}  {point.name}: {state}")
        click.echo(f"{counted(result.records, 'record')} stored ({format_size(result.stored)}).")
    return ExitCode.DAMAGED if any(point.problem for point in result.points) else ExitCode.DONE
