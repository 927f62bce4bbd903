"""Conversion of the table: whether the target gets another kind of table or other sectors, and what that brings.

The table itself is converted by ``restore.table.convert``; here is decided when, and what firmware needs then.
"""

from uuid import UUID, uuid5

import msgspec

from core.units import KIB, format_size, to_sectors
from images.model.layout import Disk, FilesystemKind, Partition, PartitionRole, PartitionTable, TableKind
from images.model.machine import Firmware
from images.tables.c_gpt import BIOS_BOOT_TYPE
from restore.fit.area import Area, dos_limit, usable_area
from restore.fit.wishes import Wishes
from restore.planning.rules import Rule, TableChoice
from restore.table.convert import ENTRIES_LBA, to_gpt

#: GRUB's core image with the modules of a stack of RAID, LUKS and btrfs stays below this.
_LEAST_BOOT_AREA = 256 * KIB


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """The table that the target gets.

    Attributes:
        table: the source's, or what it was converted to; positions and sizes still as on the source.
        area: where its partitions may lie.
        changed: it is of another kind, or in sectors of another size.
        boot: a BIOS boot partition that is added in front of the first boundary.
    """

    table: PartitionTable
    area: Area
    changed: bool = False
    boot: Partition | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def converted(disk: Disk, size: int, sector_size: int, wishes: Wishes) -> Conversion:
    """The table for a target of ``size`` bytes. ``disk`` has one."""
    assert disk.table is not None
    table = disk.table
    resized = sector_size != disk.sector_size
    if table.kind is TableKind.DOS and _wants_gpt(disk, size, sector_size, wishes):
        return _as_gpt(disk, size, sector_size, wishes)
    if resized:
        table = msgspec.structs.replace(table, entries_lba=ENTRIES_LBA)
    notes: list[str] = []
    area = usable_area(disk, table.kind, size, sector_size)
    if table.kind is TableKind.DOS and size > dos_limit(sector_size):
        limit = format_size(dos_limit(sector_size))
        notes.append(
            f"What lies beyond {limit} is not used: a dos table does not reach there, a GPT would (--table gpt)."
        )
    if resized:
        notes.append(
            f"The source had sectors of {disk.sector_size} bytes, the target has {sector_size}: boot code and boot "
            "area are not restored, they count in sectors."
        )
    return Conversion(table=table, area=area, changed=resized, notes=tuple(notes))


def _wants_gpt(disk: Disk, size: int, sector_size: int, wishes: Wishes) -> bool:
    """When it is asked for, or when somebody shall grow beyond what a dos table reaches and the machine still boots."""
    if wishes.table is TableChoice.GPT:
        return True
    if size <= dos_limit(sector_size) or not wishes.grows:
        return False
    if wishes.firmware is Firmware.UEFI:
        return _has_esp(disk)
    return wishes.firmware is Firmware.BIOS and not starts_windows(disk)


def _has_esp(disk: Disk) -> bool:
    return disk.table is not None and any(part.role is PartitionRole.ESP for part in disk.table.partitions)


def starts_windows(disk: Disk) -> bool:
    """Whether BIOS would start Windows from this dos table: its loader lies in an active NTFS partition."""
    return disk.table is not None and any(
        part.active and part.filesystem is not None and part.filesystem.kind is FilesystemKind.NTFS
        for part in disk.table.partitions
    )


def _as_gpt(disk: Disk, size: int, sector_size: int, wishes: Wishes) -> Conversion:
    assert disk.table is not None
    made = to_gpt(disk.table)
    area = usable_area(disk, TableKind.GPT, size, sector_size)
    notes = [*made.notes, "The dos table becomes a GPT: disk and partitions get new identities, and boot code goes."]
    reasons = list(made.reasons)
    boot = None
    if wishes.firmware is Firmware.BIOS:
        boot = _boot_partition(disk, made.table, area)
        dropped = {rule.partition for rule in wishes.rules if rule.rule is Rule.DROP}
        notes.append(f"Partition {boot.number} is added: a BIOS boot partition, from which GRUB starts.")
        if any(part.number not in dropped and part.active for part in disk.table.partitions) and starts_windows(disk):
            notes.append("Windows does not start from a GPT by BIOS: it needs UEFI.")
        # Nothing else may begin in front of the boundary.
        area = msgspec.structs.replace(area, start=area.first)
    elif wishes.firmware is Firmware.UEFI and not _has_esp(disk):
        notes.append("There is no ESP: the target does not start by UEFI.")
    elif wishes.firmware is None:
        notes.append("The boot loader is not repaired: a system on this disk does not start before that is done.")
    return Conversion(table=made.table, area=area, changed=True, boot=boot, reasons=tuple(reasons), notes=tuple(notes))


def _boot_partition(disk: Disk, table: PartitionTable, area: Area) -> Partition:
    """A BIOS boot partition between the GPT and the first boundary, by a number that nobody has."""
    number = max((part.number for part in table.partitions), default=0) + 1
    start = to_sectors(area.start, area.sector_size)
    assert area.first - area.start >= _LEAST_BOOT_AREA
    return Partition(
        id=f"{disk.id}-part{number}",
        number=number,
        start_lba=start,
        sector_count=to_sectors(area.first, area.sector_size) - start,
        type=str(BIOS_BOOT_TYPE),
        role=PartitionRole.BIOS_BOOT,
        # From the disk's own, so that the plan can be made again.
        uuid=uuid5(UUID(table.identifier), "bios-boot"),
    )
