"""Partition tables made again on a target: the only module that imports parted.

libparted makes the table and places the partitions where its rules allow; then the exact bytes of the plan's table are
put over what it made. It numbers and stamps by its own rules, knows 128 entries of 128 bytes, no hybrid MBR, no place
of a boot record but its own, and files only with sectors of 512 bytes: what it declines, the bytes make alone. What
it clears around the table is put back. Read back are every byte and, by an independent witness, every field.

The kernel is told only when the stream is done, so that no stale page of an old partition is
written over new data.
"""

import stat
import tempfile
from pathlib import Path

import parted

from core.errors import DeviceError, ProcessError, RefusedError
from core.process import Runner
from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind
from images.sources import BlockSource, open_source
from images.tables.gpt_bytes import array_sectors
from images.tables.piece import TablePiece
from images.tables.table_bytes import table_pieces
from restore.table.between import write_between
from restore.table.witness import differences
from restore.target.target import Target

#: libparted's exceptions have no common root.
_PARTED_ERRORS = (
    parted.PartedException,
    parted.PartitionException,
    parted.DiskException,
    parted.DiskLabelException,
    parted.DeviceException,
    parted.GeometryException,
    parted.ConstraintException,
    parted.CreateException,
    parted.IOException,
)
_PARTED_KIND = {TableKind.GPT: "gpt", TableKind.DOS: "msdos"}
#: libparted clears 9 KiB at each end before it writes a table (libparted/disk.c, ped_disk_clobber).
_PARTED_CLEARS = 65536
_PARTED_ENTRIES, _PARTED_ENTRY_SIZE, _PARTED_ENTRIES_LBA = 128, 128, 2


def create_table(target: Target, table: PartitionTable, sector_size: int, runner: Runner) -> None:
    """Make ``table`` on an open target.

    Raises:
        RefusedError: there cannot be such a table there. Nothing was written.
        DeviceError: writing failed, or what is there now is not what was asked for.
    """
    pieces = table_pieces(table, target.size, sector_size)
    ends: tuple[TablePiece, ...] = ()
    if _is_for_libparted(target, table, sector_size):
        ends = _ends(target)
        _make(target.node, table)
    for piece in (*ends, *pieces):
        write_between(target, piece.offset, piece.data, sector_size)
    target.flush()
    found = compare(target.node, table, runner, sector_size=sector_size)
    if found:
        raise DeviceError(
            f"The partition table on {target.node} is not the one the plan has: {'; '.join(found)}.",
            hint="The disk may be failing. Nothing was restored to it.",
        )


def rehearse_table(table: PartitionTable, size: int, runner: Runner, *, sector_size: int = 512) -> None:
    """Make the table on a sparse scratch file of the target's size: what cannot be made shows before the first write.

    Where no file can be so large, its bytes alone are made: they are checked against the disk all the same.

    Raises:
        RefusedError: this table cannot be made, or the tools do not see what is in it.
    """
    with tempfile.NamedTemporaryFile(prefix="liferaft-table-") as scratch:
        try:
            scratch.truncate(size)
        except OSError:
            table_pieces(table, size, sector_size)
            return
        try:
            create_table(Target(scratch.name, scratch.fileno(), size, sector_size), table, sector_size, runner)
        except (ProcessError, DeviceError) as error:
            raise RefusedError(f"The partition table cannot be made again: {error.message}") from None


def compare(node: str, table: PartitionTable, runner: Runner, *, sector_size: int = 0) -> tuple[str, ...]:
    """What on the disk or image file ``node`` differs from ``table``; empty when all is as asked.

    Args:
        sector_size: of an image file; a device says its own, and 0 means 512.

    Raises:
        RefusedError: there cannot be such a table there. DeviceError: it cannot be read.
    """
    with open_source(Path(node), sector_size=sector_size) as source:
        wrong = _wrong_bytes(source, table)
        own = source.is_device or source.sector_size == 512
        return (*wrong, *differences(node, table, source.sector_size, runner, own_sector_size=own))


def _wrong_bytes(source: BlockSource, table: PartitionTable) -> tuple[str, ...]:
    """The first byte of each piece of the table that is another one."""
    wrong = []
    for piece in table_pieces(table, source.size, source.sector_size):
        found = source.read_at(piece.offset, len(piece.data))
        if found != piece.data:
            at = next(at for at, (one, other) in enumerate(zip(found, piece.data, strict=True)) if one != other)
            wrong.append(f"byte {piece.offset + at} is {found[at]:#04x}, expected {piece.data[at]:#04x}")
    return tuple(wrong)


def _ends(target: Target) -> tuple[TablePiece, ...]:
    """What lies at both ends of the target, where libparted leaves boot code and zeros that nobody asked for."""
    size = min(_PARTED_CLEARS, target.size)
    return tuple(TablePiece(at, bytes(target.read_at(at, size))) for at in sorted({0, target.size - size}))


def _is_for_libparted(target: Target, table: PartitionTable, sector_size: int) -> bool:
    """Whether libparted makes such tables, and all that it writes lies where the exact bytes go."""
    if sector_size != 512 and not stat.S_ISBLK(Path(target.node).stat().st_mode):
        return False
    if table.kind is TableKind.DOS:
        return sum(part.role is PartitionRole.EXTENDED for part in table.partitions) <= 1
    usual = (_PARTED_ENTRIES, _PARTED_ENTRY_SIZE, _PARTED_ENTRIES_LBA)
    return (table.entry_count, table.entry_size, table.entries_lba) == usual and all(
        part.start_lba >= _PARTED_ENTRIES_LBA + array_sectors(table, sector_size) for part in table.partitions
    )


def _make(node: str, table: PartitionTable) -> None:
    """The table by libparted: label and places. Logical partitions are left to the bytes, as it has a chain of its own.

    Raises:
        DeviceError: libparted could not write.
    """
    device = None
    try:
        device = parted.getDevice(node)
        disk = parted.freshDisk(device, _PARTED_KIND[table.kind])
        for partition in sorted(table.partitions, key=lambda partition: partition.number):
            if partition.role is not PartitionRole.LOGICAL:
                _add(disk, partition)
    except _PARTED_ERRORS:
        # Nothing is written before the commit, and the bytes make what libparted's rules do not allow.
        return
    else:
        _commit(disk, node)
    finally:
        # libparted remembers devices by name, with the size and sector size of whatever had that name first.
        if device is not None:
            device.removeFromCache()


def _add(disk: parted.Disk, partition: Partition) -> None:
    kind = parted.PARTITION_EXTENDED if partition.role is PartitionRole.EXTENDED else parted.PARTITION_NORMAL
    geometry = parted.Geometry(device=disk.device, start=partition.start_lba, length=partition.sector_count)
    made = parted.Partition(disk=disk, type=kind, geometry=geometry)
    disk.addPartition(partition=made, constraint=parted.Constraint(exactGeom=geometry))


def _commit(disk: parted.Disk, node: str) -> None:
    try:
        disk.commitToDevice()
    except _PARTED_ERRORS as error:
        raise DeviceError(f"libparted cannot write the partition table on {node}: {error}") from None
