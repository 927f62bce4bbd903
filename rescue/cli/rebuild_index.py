"""``liferaft rebuild-index``: indexes anew from the packs alone."""

import click

from core.documents import encode
from core.errors import ExitCode
from core.units import counted
from images.store.access import Access
from rescue.cli.terminal import json_option, open_sink, progress_option, repository_option, write_access_options
from rescue.jobs.prune import rebuild_repository


@click.command("rebuild-index")
@repository_option
@write_access_options
@click.option("--data", is_flag=True, help="Read and hash every record; else the checksums of their headers count.")
@json_option
@progress_option
def command(repository: str, access: Access, data: bool, as_json: bool, progress: str) -> int:
    """Make the indexes anew by looking through all packs.

    For a repository whose indexes are lost or damaged; liferaft check --repair does the same for those
    that need it. Packs are not changed: of a damaged or truncated one the sound records are entered.
    Exit code 4 when something in a pack was passed over.

    \b
    liferaft rebuild-index --repo /mnt/usb/backup
    """
    result = rebuild_repository(repository, prove=data, sink=open_sink(progress), access=access)
    if as_json:
        click.echo(encode(result), nl=False)
    else:
        click.echo(
            f"{counted(result.records, 'record')} of {counted(result.packs, 'pack')} entered into "
            f"{counted(result.indexes, 'index', 'indexes')}; {counted(result.removed, 'old one')} removed."
        )
    return ExitCode.WARNINGS if result.warnings else ExitCode.DONE
