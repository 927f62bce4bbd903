"""``liferaft export``: a disk of a recovery point as an image file."""

from pathlib import Path

import click

from core.documents import encode
from core.errors import ExitCode
from core.units import format_size
from images.store.access import Access
from rescue.cli.terminal import access_options, json_option, open_sink, progress_option, repository_option, tell
from rescue.jobs.export import ImageFormat, export_disk


@click.command("export")
@click.argument("point", metavar="ID")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@repository_option
@access_options
@click.option("--disk", default="", metavar="N", help="Which disk, when there are several: disk1 or 1.")
@click.option(
    "--format",
    "image_format",
    type=click.Choice([kind.value for kind in ImageFormat]),
    help="Default: qcow2 when FILE ends in .qcow2, else raw.",
)
@json_option
@progress_option
def command(
    point: str,
    file: Path,
    repository: str,
    access: Access,
    disk: str,
    image_format: str | None,
    as_json: bool,
    progress: str,
) -> int:
    """Write a whole disk of recovery point ID as an image file, to boot it in a virtual machine or mount it.

    The disk is as it was: boot code, partition table with both its copies, partitions at their old
    places; what was not in use reads as zeros and takes no space. FILE must not exist, and gets its
    name only when it is complete. Needs no root and no other program.

    \b
    liferaft export latest machine.qcow2 --repo R
    liferaft export latest disk.raw --repo R --disk 1
    """
    default = ImageFormat.QCOW2 if file.suffix == ".qcow2" else ImageFormat.RAW
    result = export_disk(
        repository,
        point,
        file,
        disk=disk,
        image_format=ImageFormat(image_format) if image_format else default,
        sink=open_sink(progress),
        access=access,
    )
    if as_json:
        click.echo(encode(result), nl=False)
    else:
        sizes = f"a disk of {format_size(result.size)} in {format_size(result.stored)}"
        tell(progress, f"{result.path}: {result.format}, {result.disk}, {sizes}.")
    return ExitCode.WARNINGS if result.warnings else ExitCode.DONE
