"""Occupants of a disk, for maps and in words: of an image file that is read here, and of a disk as a layout has it."""

import msgspec

from core.errors import DamagedError, DeviceError
from core.units import format_size, to_bytes
from images.model.layout import Disk, Filesystem, FilesystemKind, Partition, PartitionRole, PartitionTable
from images.model.machine import Occupant
from images.signatures import Signature, probe
from images.sources import FileSource
from images.tables.detect import read_table


def occupants_of(source: FileSource) -> tuple[Occupant, ...]:
    """What an image file holds, in order of offset; nothing for what cannot be read (what it *holds* says so)."""
    try:
        table = read_table(source)
    except (DamagedError, DeviceError):
        return ()
    if table is None:
        found = probe(source.descriptor, 0, source.size)
        return (_seen(Occupant(number=0, offset=0, size=source.size), found),) if found else ()
    return tuple(_probed(source, occupant) for occupant in occupants_of_table(table, source.sector_size))


def contents_of(source: FileSource) -> tuple[str, ...]:
    """What an image file holds now, a line each, as the probe says it of a disk."""
    try:
        table = read_table(source)
    except DamagedError as error:
        return (f"a damaged partition table ({error.message})",)
    if table is None:
        found = probe(source.descriptor, 0, source.size)
        return (f"{found.name} {found.label}".rstrip(),) if found else ()
    sizes = [format_size(partition.extent(source.sector_size).size) for partition in table.partitions]
    return tuple(
        f"partition {partition.number} {partition.role} {size} {partition.name}".rstrip()
        for partition, size in zip(table.partitions, sizes, strict=True)
    )


def occupants_of_disk(disk: Disk) -> tuple[Occupant, ...]:
    """A captured disk, in order of offset."""
    if disk.table is not None:
        return occupants_of_table(disk.table, disk.sector_size)
    if disk.filesystem is None:
        return ()
    whole = Occupant(number=0, offset=0, size=disk.size)
    return (_filled(whole, disk.filesystem),)


def occupants_of_table(table: PartitionTable, sector_size: int) -> tuple[Occupant, ...]:
    """The partitions of a table, in order of offset; an extended one comes before those in it."""
    ordered = sorted(table.partitions, key=lambda part: (part.start_lba, -part.sector_count))
    return tuple(_occupant(part, sector_size) for part in ordered)


def _occupant(part: Partition, sector_size: int) -> Occupant:
    found = Occupant(
        number=part.number,
        offset=to_bytes(part.start_lba, sector_size),
        size=to_bytes(part.sector_count, sector_size),
        kind="" if part.role in (PartitionRole.PRIMARY, PartitionRole.LOGICAL) else part.role.value,
        label=part.name,
        id=part.id,
        boots=part.active or part.role in (PartitionRole.ESP, PartitionRole.BIOS_BOOT),
    )
    return _filled(found, part.filesystem) if part.filesystem else found


def _filled(place: Occupant, filesystem: Filesystem) -> Occupant:
    name = "" if filesystem.kind is FilesystemKind.UNKNOWN else filesystem.kind.value
    return msgspec.structs.replace(
        place, kind=filesystem.detail or name or place.kind, label=filesystem.label or place.label
    )


def _probed(source: FileSource, place: Occupant) -> Occupant:
    # A table may say that a partition reaches behind the end of the file.
    inside = place.size > 0 and place.offset + place.size <= source.size
    return _seen(place, probe(source.descriptor, place.offset, place.size)) if inside else place


def _seen(place: Occupant, found: Signature | None) -> Occupant:
    if found is None or found.ambiguous:
        return place
    return msgspec.structs.replace(place, kind=found.name or place.kind, label=found.label or place.label)
