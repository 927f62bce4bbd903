"""``liferaft capture``: take a recovery point."""

from pathlib import Path

import click

from core.documents import encode
from core.errors import ExitCode
from core.process import SystemRunner
from core.units import format_duration, format_size
from images.stack.keys import Keys
from images.store.access import Access
from images.store.signature import SigningKey
from rescue.cli.luks_options import luks_options
from rescue.cli.terminal import (
    hooks_option,
    json_option,
    open_sink,
    progress_option,
    repository_option,
    sign_option,
    tell,
    write_access_options,
)
from rescue.jobs.capture import capture_disks


@click.command("capture")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", type=click.Path(path_type=Path))
@repository_option
@write_access_options
@sign_option
@click.option("--name", default="", help="A name for people. Default: host and source.")
@click.option(
    "--sector-size",
    type=click.Choice(["512", "4096"]),
    help="Logical sector size of the disk an image file was made from. Default: 4096 if its GPT says so, else 512.",
)
@click.option(
    "--digest-list",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Note in FILE what is stored of these disks: the next capture with it reads less of the repository.",
)
@luks_options
@click.option(
    "--part-only",
    is_flag=True,
    help="Keep members of arrays, LUKS containers and LVM volumes as they lie, whole, instead of what is in them.",
)
@hooks_option
@json_option
@progress_option
def command(
    sources: tuple[Path, ...],
    repository: str,
    name: str,
    sector_size: str | None,
    digest_list: Path | None,
    keys: Keys,
    part_only: bool,
    hooks: Path | None,
    access: Access,
    sign: SigningKey | None,
    as_json: bool,
    progress: str,
) -> int:
    """Take a picture of whole disks and keep it in a repository.

    SOURCE is a disk (/dev/sda) or a raw image file. Only blocks in use are read; what the repository
    holds already is not stored again. The source is opened read-only and never changed. The
    repository is made when the folder is missing or empty; an encrypted one, or one with parity, is
    made by liferaft init. Arrays (md), LUKS containers and LVM volumes on disks are followed: name all
    disks of an array or volume group. Prints the id of the recovery point.

    \b
    liferaft capture /dev/sda --repo /mnt/usb/backup
    liferaft capture disk.raw --repo backup --name "before the upgrade"
    """
    sink = open_sink(progress)
    result = capture_disks(
        sources,
        repository,
        name=name,
        runner=SystemRunner(),
        sink=sink,
        hooks=hooks,
        sector_size=int(sector_size or 0),
        access=access,
        sign=sign,
        digest_list=digest_list,
        keys=keys,
        part_only=part_only,
    )
    if as_json:
        click.echo(encode(result), nl=False)
    else:
        click.echo(result.id)
        tell(
            progress,
            f"{result.name}: read {format_size(result.read)} in {format_duration(result.seconds)}, "
            f"stored {format_size(result.stored)}.",
        )
    return ExitCode.WARNINGS if result.warnings else ExitCode.DONE
