"""The survey: what is on a disk, and which volumes a capture takes from it.

Reads tables and filesystems; stores nothing.
"""

from collections.abc import Iterator

import msgspec

from core.errors import DamagedError, RefusedError
from core.units import MIB, format_size
from images.filesystems.detect import Asked, read_used
from images.filesystems.used import UsedMap, whole
from images.model.extents import Extent
from images.model.layout import (
    BARE_ROLES,
    Disk,
    DiskIdentity,
    Filesystem,
    FilesystemKind,
    Partition,
    PartitionRole,
    PartitionTable,
)
from images.model.manifest import VolumeRole
from images.sources import BlockSource, FileSource, UnreadableSectorsError, WindowSource
from images.tables.detect import read_table

#: The head keeps what lies before the first partition, at most this much (docs/image-format.md §7).
HEAD_LIMIT = 16 * MIB
_UNREADABLE = "the sectors that say what it holds cannot be read"


class VolumeSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """A volume to capture: where it is, what holds its bytes, and which of them count.

    ``disk``: id of the disk, or of the device of a container, that it lies on.
    """

    id: str
    disk: str
    role: VolumeRole
    partition: str
    offset: int
    source: WindowSource
    used: UsedMap


class DiskSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """A disk and its volumes, in the order of their offsets."""

    disk: Disk
    volumes: tuple[VolumeSurvey, ...]


def image_sector_size(source: BlockSource) -> int:
    """The logical sector size a raw image was made with: 4096 when its GPT header lies there, else 512."""
    if source.size >= 8192 and source.read_at(512, 8) != b"EFI PART" and source.read_at(4096, 8) == b"EFI PART":
        return 4096
    return 512


def survey_disk(source: FileSource, disk_id: str, identity: DiskIdentity, ask: Asked | None = None) -> DiskSurvey:
    """Look at a whole disk.

    Args:
        ask: who may know the used blocks of filesystems that liferaft does not read; see :func:`read_used`.

    Raises:
        RefusedError: it holds neither a partition table nor anything liferaft recognises.
        DamagedError: its table cannot be believed.
    """
    if source.size % source.sector_size:
        raise RefusedError(
            f"{source.path} is not a disk: its {source.size} bytes are not whole sectors of {source.sector_size}.",
            hint="Name a block device or a raw image of a whole disk.",
        )
    table = read_table(source)
    if table is None:
        return _survey_bare(source, disk_id, identity, ask)
    table = _with_ids(table, disk_id)
    volumes = [_head(source, disk_id, table), *_partitions(source, disk_id, table, ask)]
    filesystems = {volume.partition: volume.used.filesystem for volume in volumes if volume.partition}
    partitions = tuple(
        msgspec.structs.replace(partition, filesystem=filesystems.get(partition.id)) for partition in table.partitions
    )
    disk = _disk(source, disk_id, identity, table=msgspec.structs.replace(table, partitions=partitions))
    return DiskSurvey(disk=disk, volumes=tuple(volumes))


def _disk(
    source: FileSource,
    disk_id: str,
    identity: DiskIdentity,
    *,
    table: PartitionTable | None = None,
    filesystem: Filesystem | None = None,
) -> Disk:
    return Disk(
        id=disk_id,
        identity=identity,
        size=source.size,
        sector_size=source.sector_size,
        physical_sector_size=source.physical_sector_size,
        path="" if source.is_device else str(source.path.resolve()),
        table=table,
        filesystem=filesystem,
    )


def _survey_bare(source: FileSource, disk_id: str, identity: DiskIdentity, ask: Asked | None) -> DiskSurvey:
    """A disk without a table: one filesystem, or nothing that can be captured with sense."""
    window = WindowSource(source, 0, source.size)
    used = survey_used(window, ask)
    filesystem = used.filesystem
    if filesystem.kind is FilesystemKind.UNKNOWN and not filesystem.detail:
        raise RefusedError(
            f"{source.path} is not a disk: its {format_size(source.size)} hold neither a partition table "
            "nor a filesystem liferaft knows.",
            hint="liferaft probe lists the disks of this machine.",
        )
    disk = _disk(source, disk_id, identity, filesystem=filesystem)
    volume = VolumeSurvey(
        id=f"{disk_id}-whole",
        disk=disk_id,
        role=VolumeRole.DISK,
        partition="",
        offset=0,
        source=window,
        used=used,
    )
    return DiskSurvey(disk=disk, volumes=(volume,))


def _with_ids(table: PartitionTable, disk_id: str) -> PartitionTable:
    partitions = tuple(
        msgspec.structs.replace(partition, id=f"{disk_id}-part{partition.number}") for partition in table.partitions
    )
    return msgspec.structs.replace(table, partitions=partitions)


def _head(source: FileSource, disk_id: str, table: PartitionTable) -> VolumeSurvey:
    starts = [partition.extent(source.sector_size).start for partition in table.partitions]
    size = min([HEAD_LIMIT, source.size, *starts])
    boot_area = Filesystem(kind=FilesystemKind.UNKNOWN, detail="boot area")
    return VolumeSurvey(
        id=f"{disk_id}-head",
        disk=disk_id,
        role=VolumeRole.HEAD,
        partition="",
        offset=0,
        source=WindowSource(source, 0, size),
        used=whole(boot_area, size, "boot code and the gap behind it are kept as they are"),
    )


def _partitions(source: FileSource, disk_id: str, table: PartitionTable, ask: Asked | None) -> Iterator[VolumeSurvey]:
    for partition in sorted(table.partitions, key=lambda partition: partition.start_lba):
        if partition.role is PartitionRole.EXTENDED:
            continue
        extent = _inside(source, partition)
        window = WindowSource(source, extent.start, extent.size)
        yield VolumeSurvey(
            id=partition.id,
            disk=disk_id,
            role=VolumeRole.PARTITION,
            partition=partition.id,
            offset=extent.start,
            source=window,
            used=_used_of(partition, window, ask),
        )


def _used_of(partition: Partition, window: WindowSource, ask: Asked | None) -> UsedMap:
    used = survey_used(window, ask)
    if partition.role in BARE_ROLES and used.filesystem == Filesystem(kind=FilesystemKind.UNKNOWN):
        return msgspec.structs.replace(used, expected=used.reason != _UNREADABLE)
    return used


def _inside(source: FileSource, partition: Partition) -> Extent:
    extent = partition.extent(source.sector_size)
    if extent.end > source.size:
        raise DamagedError(
            f"{source.path}: partition {partition.number} ends at byte {extent.end}, the disk at {source.size}. "
            "The disk or image is truncated."
        )
    return extent


def survey_used(window: WindowSource, ask: Asked | None) -> UsedMap:
    """What to keep of a volume; all of it when the sectors that would tell cannot be read."""
    try:
        return read_used(window, ask)
    except UnreadableSectorsError:
        unknown = Filesystem(kind=FilesystemKind.UNKNOWN)
        return whole(unknown, window.size, _UNREADABLE)
