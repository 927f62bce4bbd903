"""Whether a manifest makes sense: what its own types cannot promise, checked before anyone computes with it.

A manifest is untrusted input (DESIGN §3.11). Whether the chunks it names are there is not asked here.
"""

from collections.abc import Iterable, Iterator

from core.errors import DamagedError
from images.model.layout import Device, Disk, Layout, PartitionRole, PartitionTable, TableKind
from images.model.manifest import PLAIN_VERSION, Manifest, Volume, VolumeRole
from images.model.stack_soundness import hollow_volumes, stack_problems

#: More than any disk has, and little enough that sums of sizes stay exact everywhere.
_SIZE_LIMIT = 1 << 62
_SECTOR_SIZES = frozenset({512, 1024, 2048, 4096})
_ENTRY_LIMIT = 1 << 16
_ENTRY_SIZE_LIMIT = 4096
_RECORD_LIMIT = 1 << 10
_MBR_TAIL = 72
_HEIGHT_LIMIT = 8


def check_manifest(manifest: Manifest, name: str) -> None:
    """Raise unless every number of the manifest is one that a disk can have and its parts fit together.

    Raises:
        DamagedError: naming the document, the part, and what is wrong with it.
    """
    problem = next(_problems(manifest), "")
    if problem:
        raise DamagedError(f"{name}: {problem}.")


def _problems(manifest: Manifest) -> Iterator[str]:
    layout = manifest.layout
    disks = {disk.id: disk for disk in layout.disks}
    yield from _doubles("disk", (disk.id for disk in layout.disks))
    yield from _doubles("volume", (volume.id for volume in manifest.volumes))
    for disk in layout.disks:
        yield from (f"{disk.id}: {problem}" for problem in _disk(disk))
    if layout.containers and manifest.version <= PLAIN_VERSION:
        yield f"it has containers, and is of version {manifest.version}"
    yield from stack_problems(layout)
    # From here on every container is known to lie on devices that come before it.
    devices = {device.id: device for device in layout.devices()}
    members = {member for container in layout.containers for member in container.member_ids}
    for volume in manifest.volumes:
        problems: Iterator[str]
        if volume.disk in disks:
            problems = _volume(volume, disks[volume.disk], members)
        elif volume.disk in devices and devices[volume.disk].container:
            problems = _device_volume(volume, devices[volume.disk], layout, members)
        else:
            yield f"{volume.id} lies on disk {volume.disk!r}, which the layout does not have"
            continue
        yield from (f"{volume.id}: {problem}" for problem in problems)


def _disk(disk: Disk) -> Iterator[str]:
    if disk.sector_size not in _SECTOR_SIZES:
        yield f"sectors of {disk.sector_size} bytes"
    elif not 0 < disk.size < _SIZE_LIMIT or disk.size % disk.sector_size:
        yield f"{disk.size} bytes are no size of a disk with sectors of {disk.sector_size}"
    elif disk.table is not None:
        yield from _table(disk.table, disk)


def _table(table: PartitionTable, disk: Disk) -> Iterator[str]:
    yield from _doubles("partition", (part.id for part in table.partitions))
    yield from _doubles("partition number", (str(part.number) for part in table.partitions))
    if not 0 <= table.entry_count <= _ENTRY_LIMIT:
        yield f"a table of {table.entry_count} entries"
    if not 0 < table.entry_size <= _ENTRY_SIZE_LIMIT or not 0 < table.entries_lba * disk.sector_size < disk.size:
        yield f"entries of {table.entry_size} bytes at LBA {table.entries_lba}"
    if len(table.records) > _RECORD_LIMIT or not all(0 < record.lba < disk.size for record in table.records):
        yield "boot records of logical partitions that no disk can have"
    if (table.mbr and not _is_hex(table.mbr, _MBR_TAIL)) or not all(_is_hex(it.content, 512) for it in table.records):
        yield "bytes of LBA 0 or of a boot record that are not hex, or not as many as there must be"
    has_extended = any(part.role is PartitionRole.EXTENDED for part in table.partitions)
    for part in table.partitions:
        if not 1 <= part.number <= _ENTRY_LIMIT:
            yield f"partition number {part.number}"
        if part.start_lba < 0 or part.sector_count < 1 or part.end_lba * disk.sector_size > disk.size:
            yield f"partition {part.number} has LBA {part.start_lba} to {part.end_lba - 1}, outside the disk"
        if table.kind is TableKind.GPT and part.uuid is None:
            yield f"partition {part.number} has no GUID"
        if part.role is PartitionRole.LOGICAL and not has_extended:
            yield f"partition {part.number} is logical, and there is no extended one"


def _is_hex(text: str, size: int) -> bool:
    return len(text) == 2 * size and not text.strip("0123456789abcdef")


def _volume(volume: Volume, disk: Disk, members: set[str]) -> Iterator[str]:
    yield from _numbers(volume, disk.size)
    parts = {part.id: part for part in disk.table.partitions} if disk.table else {}
    if volume.role is VolumeRole.PARTITION:
        part = parts.get(volume.partition)
        if part is None:
            yield f"it is partition {volume.partition!r}, which the layout does not have"
            return
        extent = part.extent(disk.sector_size)
        fits = volume.size <= extent.size if part.id in members else volume.size == extent.size
        if extent.start != volume.offset or not fits:
            yield f"it does not lie where partition {part.number} lies"
    elif volume.role is VolumeRole.HEAD and (disk.table is None or volume.offset):
        yield "a head belongs to the start of a disk with a table"
    elif volume.role is VolumeRole.DISK and (
        disk.table is not None or volume.offset or (volume.size != disk.size and disk.id not in members)
    ):
        yield "a volume that is a whole disk does not have its size, or the disk has a table"


def _device_volume(volume: Volume, device: Device, layout: Layout, members: set[str]) -> Iterator[str]:
    """What is wrong with a volume on an array, an opened LUKS container or a logical volume."""
    yield from _numbers(volume, device.size)
    if volume.role is not VolumeRole.DISK or volume.partition or volume.offset:
        yield f"a volume on {device.id} is all of it or its beginning"
    elif volume.size != device.size and device.id not in members:
        yield f"its {volume.size} bytes are not the {device.size} of {device.id}"
    if device.id in hollow_volumes(layout):
        yield f"{device.id} has no bytes of its own"


def _numbers(volume: Volume, size: int) -> Iterator[str]:
    if volume.offset < 0 or volume.size < 1 or volume.offset + volume.size > size:
        yield f"{volume.size} bytes at {volume.offset} are outside the disk's {size}"
    if not 0 <= volume.height <= _HEIGHT_LIMIT or not 0 <= volume.allocated <= volume.size:
        yield f"height {volume.height} or {volume.allocated} allocated bytes are out of bounds"
    ends = [0, *(extent.end for extent in volume.lost)]
    starts = [*(extent.start for extent in volume.lost), volume.size]
    if any(end > start for end, start in zip(ends, starts, strict=True)):
        yield "its lost extents overlap, are out of order or lie outside"


def _doubles(what: str, names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{what} {name} stands there twice"
        seen.add(name)
