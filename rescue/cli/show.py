"""``liferaft show``: one recovery point, its disks and volumes."""

import click

from core.documents import encode_readable
from core.units import format_size
from images.browse.tree import shown
from images.model.layout import Disk
from images.model.manifest import Manifest
from images.store.access import Access
from rescue.cli.terminal import access_options, json_option, repository_option
from rescue.jobs.lost import VolumeLoss, lost_in
from rescue.jobs.points import show_point, volume_of
from restore.fit.fitting import smallest_target


@click.command("show")
@click.argument("point", metavar="ID")
@repository_option
@access_options
@click.option("--lost", is_flag=True, help="What could not be read when it was captured: sectors, and the files there.")
@json_option
def command(point: str, repository: str, access: Access, lost: bool, as_json: bool) -> None:
    """Show what recovery point ID holds: disks, partitions, filesystems, and the smallest disk it fits on.

    ID is the beginning of an id, a name, or "latest".
    """
    if lost:
        _show_losses(lost_in(repository, point, access), as_json)
        return
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
    for volume in manifest.volumes:
        if volume.disk == disk.id and volume.lost:
            lost = format_size(sum(extent.size for extent in volume.lost))
            click.echo(f"  {volume.id}: {lost} could not be read when it was captured; --lost names the files")


def _show_losses(found: tuple[VolumeLoss, ...], as_json: bool) -> None:
    if as_json:
        click.echo(encode_readable(found), nl=False)
        return
    if not found:
        click.echo("Nothing: every sector that counts was read.")
    for loss in found:
        click.echo(f"{loss.volume}: {format_size(loss.size)} could not be read and are zeros here")
        for run in loss.sectors:
            click.echo(f"  LBA {run.first_lba} to {run.first_lba + run.sector_count - 1}")
        for holder in loss.files:
            parts = ", ".join(f"{extent.start} to {extent.end - 1}" for extent in holder.ranges)
            click.echo(f"  {shown(holder.path)}  {f'bytes {parts}' if parts else 'compressed: any part may be hit'}")
        if not loss.files:
            click.echo("  no file was found there: free space, or the filesystem's own")
        for note in loss.notes:
            click.echo(f"  note: {note}")
