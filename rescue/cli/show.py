"""``liferaft show``: one recovery point, its disks and volumes."""

import click

from core.documents import encode_readable
from core.units import format_size
from images.browse.tree import shown
from images.model.layout import Disk
from images.model.manifest import Manifest
from images.model.stack import Array, Container, Luks
from images.store.access import Access
from rescue.cli.terminal import access_options, json_option, repository_option
from rescue.jobs.lost import VolumeLoss, lost_in
from rescue.jobs.points import show_point, show_with_targets, volume_of


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
    if as_json:
        click.echo(encode_readable(show_point(repository, point, access)[1]), nl=False)
        return
    identifier, manifest, smallest = show_with_targets(repository, point, access)
    click.echo(f"{manifest.name}  {identifier}")
    click.echo(f"taken {manifest.created[:19].replace('T', ' ')} UTC from {manifest.origin} by {manifest.tool}")
    for disk, least in zip(manifest.layout.disks, smallest, strict=True):
        _show_disk(disk, manifest, least)
    for container in manifest.layout.containers:
        _show_container(container, manifest)


def _show_container(container: Container, manifest: Manifest) -> None:
    """An array, LUKS container or volume group, and what is kept of its devices."""
    if isinstance(container, Array):
        what = f"RAID {container.level} {container.name}".rstrip()
    elif isinstance(container, Luks):
        what = f"LUKS{container.version} {container.name}".rstrip()
    else:
        what = f"LVM volume group {container.name}"
    click.echo(f"\n{container.id}  {what}, on {', '.join(container.member_ids)}")
    for device in manifest.layout.devices():
        if device.container != container.id:
            continue
        above = manifest.layout.container_on(device.id)
        kept = next((volume for volume in manifest.volumes if volume.disk == device.id), None)
        kind = (device.filesystem.detail or device.filesystem.kind.value) if device.filesystem else ""
        label = f'"{device.filesystem.label}"' if device.filesystem and device.filesystem.label else ""
        used = f"holds {above.id}" if above else f"{format_size(kept.allocated)} kept ({kept.mode})" if kept else ""
        click.echo(f"  {device.id:<15} {kind:<9} {label:<12} {format_size(device.size):>11}  {used}".rstrip())


def _show_disk(disk: Disk, manifest: Manifest, smallest: int) -> None:
    kind = f"{disk.table.kind} {disk.table.identifier}" if disk.table else "no partition table"
    click.echo(f"\n{disk.id}  {disk.identity.model} {disk.identity.serial}".rstrip())
    click.echo(f"  {format_size(disk.size)}, sectors of {disk.sector_size} bytes, {kind}")
    click.echo(f"  smallest target: {format_size(smallest)} ({smallest} bytes)")
    if above := manifest.layout.container_on(disk.id):
        click.echo(f"  holds {above.id}")
    for partition in disk.table.partitions if disk.table else ():
        volume = volume_of(manifest, disk, partition.id)
        size = partition.extent(disk.sector_size).size
        filesystem = partition.filesystem
        kind = (filesystem.detail or filesystem.kind.value) if filesystem else partition.role.value
        label = f'"{filesystem.label}"' if filesystem and filesystem.label else ""
        above = manifest.layout.container_on(partition.id)
        kept = f"{format_size(volume.allocated)} kept ({volume.mode})" if volume else "not captured"
        used = f"holds {above.id}" if above else kept
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
