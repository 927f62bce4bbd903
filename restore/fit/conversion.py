"""Conversion of the table: whether the target gets another kind of table or other sectors, and what that brings.

The tables themselves are converted by ``restore.table_convert``; here is decided when.
"""

import msgspec

from core.units import KIB
from images.model.layout import Disk, Partition, PartitionTable
from restore.fit.area import Area, usable_area
from restore.fit.wishes import Wishes

#: GRUB's core image with its modules is 30 to 200 KiB (GRUB manual, "BIOS installation").
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
    area = usable_area(disk, disk.table.kind, size, sector_size)
    return Conversion(table=disk.table, area=area, changed=sector_size != disk.sector_size)
