"""``liferaft show``: one recovery point, its disks and volumes."""

import click

from core.documents import encode_readable
from core.units import format_size
from images.model.layout import Disk
from images.model.manifest import Manifest
from images.store.access import Access
from rescue.cli.terminal import access_options, json_option, repository_option
from rescue.jobs.points import show_point, volume_of
from restore.fit import smallest_target


@click.command("show")
@click.argument("point", metavar="ID")
@repository_option
@access_options
@json_option
def command(point: str, repository: str, access: Access, as_json: bool) -> None:
    """Show what recovery point ID holds: disks, partitions, filesystems, and the smallest disk it fits on.

    ID is the beginning of an id, a name, or "latest".
    """
    identifier, manifest = show_point(repository, point, access)
    if as_json:
        click.echo(encode_readable(manifest), nl=False)
        return
    click.echo(f"{manifest.name}  {identifier}")
    click.echo(f"taken {manifest.created[:19].replace('T', ' ')} UTC from {manifest.origin} by {manifest.tool}")
    for disk in manifest.layout.disks:
        _show_disk(disk, manifest)


def _show_disk(disk: Disk, manifest: Manifest) -> None:
    kind = f"{disk.table.kind} {disk.table.identifier}" if disk.table else "no partition table"
    click.echo(f"\n{disk.id}  {disk.identity.model} {disk.identity.serial}".rstrip())
    click.echo(f"  {format_size(disk.size)}, sectors of {disk.sector_size} bytes, {kind}")
    click.echo(f"  smallest target: {format_size(smallest_target(disk))} ({smallest_target(disk)} bytes)")
    for partition in disk.table.partitions if disk.table else ():
        volume = volume_of(manifest, disk, partition.id)
        size = partition.extent(disk.sector_size).size
        filesystem = partition.filesystem
        kind = (filesystem.detail or filesystem.kind.value) if filesystem else partition.role.value
        label = f'"{filesystem.label}"' if filesystem and filesystem.label else ""
        used = f"{format_size(volume.allocated)} kept ({volume.mode})" if volume else "not captured"
        click.echo(f"  {partition.number:3}  {kind:<9} {label:<12} {format_size(size):>11}  {used}")
