"""Partition tables made again on a target: the only module that imports parted.

libparted places the partitions, sfdisk stamps what libparted cannot (disk GUID or signature,
partition GUIDs, types, attributes), and ``sfdisk --json`` is read back as an independent witness.
The kernel is told only when the stream is done, so that no stale page of an old partition is
written over new data.
"""

import itertools
import tempfile
from uuid import UUID

import msgspec
import parted

from core.documents import decode_stored
from core.errors import DeviceError, ProcessError, RefusedError
from core.process import Runner
from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind

_ATTRIBUTES = {0: "RequiredPartition", 1: "NoBlockIOProtocol", 2: "LegacyBIOSBootable"}
_QUIET = ("--no-reread", "--no-tell-kernel")
#: The type libparted gives an extended partition; Windows and others write 0x0f.
_PARTED_EXTENDED = 0x05
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


class _Entry(msgspec.Struct, frozen=True):
    node: str
    start: int
    size: int
    type: str
    uuid: str = ""
    name: str = ""
    attrs: str = ""
    bootable: bool = False


class _Table(msgspec.Struct, frozen=True):
    label: str
    id: str = ""
    partitions: tuple[_Entry, ...] = ()


class _Dump(msgspec.Struct, frozen=True):
    partitiontable: _Table


def create_table(node: str, table: PartitionTable, runner: Runner) -> None:
    """Make ``table`` on the disk or image file ``node``.

    Raises:
        RefusedError: libparted cannot make such a table there.
        DeviceError: the witness saw something else than was asked for.
    """
    _place(node, table)
    _stamp(node, table, runner)
    differences = compare(node, table, runner)
    if differences:
        raise DeviceError(
            f"The partition table on {node} is not the one the plan has: {'; '.join(differences)}.",
            hint="The disk may be failing. Nothing was restored to it.",
        )


def rehearse_table(table: PartitionTable, size: int, runner: Runner) -> None:
    """Make the table on a sparse scratch file of the target's size: what cannot be made shows before the first write.

    Only for sectors of 512 bytes; libparted gives files no others.

    Raises:
        RefusedError: the tools cannot make this table.
    """
    with tempfile.NamedTemporaryFile(prefix="liferaft-table-") as scratch:
        scratch.truncate(size)
        try:
            create_table(scratch.name, table, runner)
        except (ProcessError, DeviceError) as error:
            raise RefusedError(f"The partition table cannot be made again: {error.message}") from None


def _place(node: str, table: PartitionTable) -> None:
    device = None
    try:
        device = parted.getDevice(node)
        disk = parted.freshDisk(device, _PARTED_KIND[table.kind])
        fillers = []
        for partition in _creation_order(table):
            while _next_number(disk, partition) < partition.number:
                fillers.append(_add(disk, parted.PARTITION_NORMAL, *_filler(disk, table)))
            made = _add(disk, _parted_type(partition), partition.start_lba, partition.sector_count)
            if made.number != partition.number:
                raise RefusedError(f"libparted numbered partition {partition.number} as {made.number} on {node}.")
        for filler in fillers:
            disk.deletePartition(filler)
        disk.commitToDevice()
    except _PARTED_ERRORS as error:
        raise RefusedError(f"libparted cannot make the partition table on {node}: {error}") from None
    finally:
        # libparted remembers devices by name, with the size and sector size of whatever had that name first.
        if device is not None:
            device.removeFromCache()


def _creation_order(table: PartitionTable) -> list[Partition]:
    """By number, which puts the extended partition before its logical ones."""
    return sorted(table.partitions, key=lambda partition: partition.number)


def _next_number(disk: parted.Disk, partition: Partition) -> int:
    """The number libparted would give next; logical ones count by themselves from 5."""
    if partition.role is PartitionRole.LOGICAL:
        return partition.number
    used = {made.number for made in disk.partitions}
    return next(number for number in itertools.count(1) if number not in used)


def _filler(disk: parted.Disk, table: PartitionTable) -> tuple[int, int]:
    """One free sector for a partition that only keeps a number busy, and goes again."""
    taken = [(part.start_lba, part.end_lba) for part in table.partitions]
    taken += [(made.geometry.start, made.geometry.end + 1) for made in disk.partitions]
    for lba in range(34, 2048):
        if all(not start <= lba < end for start, end in taken):
            return lba, 1
    raise RefusedError("There is no free sector to keep the partition numbers as they were.")


def _add(disk: parted.Disk, kind: int, start: int, count: int) -> parted.Partition:
    geometry = parted.Geometry(device=disk.device, start=start, length=count)
    partition = parted.Partition(disk=disk, type=kind, geometry=geometry)
    disk.addPartition(partition=partition, constraint=parted.Constraint(exactGeom=geometry))
    return partition


def _parted_type(partition: Partition) -> int:
    kinds = {PartitionRole.EXTENDED: parted.PARTITION_EXTENDED, PartitionRole.LOGICAL: parted.PARTITION_LOGICAL}
    return int(kinds.get(partition.role, parted.PARTITION_NORMAL))


def _stamp(node: str, table: PartitionTable, runner: Runner) -> None:
    def sfdisk(*words: str) -> None:
        runner.run(["sfdisk", *_QUIET, *words], timeout=120)

    sfdisk("--disk-id", node, table.identifier)
    active = []
    for partition in table.partitions:
        number = str(partition.number)
        if partition.role is not PartitionRole.EXTENDED or int(partition.type, 16) != _PARTED_EXTENDED:
            sfdisk("--part-type", node, number, partition.type.removeprefix("0x"))
        if table.kind is TableKind.GPT:
            sfdisk("--part-uuid", node, number, str(partition.uuid))
            sfdisk("--part-label", node, number, partition.name)
            sfdisk("--part-attrs", node, number, _attributes(partition.attributes))
        elif partition.active:
            active.append(number)
    if active:
        sfdisk("--activate", node, *active)


def _attributes(bits: int) -> str:
    """GPT attribute bits in sfdisk's words."""
    return ",".join(_ATTRIBUTES.get(bit, f"GUID:{bit}") for bit in range(64) if bits >> bit & 1)


def compare(node: str, table: PartitionTable, runner: Runner) -> tuple[str, ...]:
    """What sfdisk reads on ``node`` that differs from ``table``; empty when all is as asked."""
    output = runner.run(["sfdisk", "--json", node], timeout=120).stdout
    found = decode_stored(output.encode(), _Dump, name=f"the output of sfdisk for {node}").partitiontable
    differences = []
    if found.label != table.kind.value or found.id.lower() != table.identifier.lower():
        differences.append(f"table {found.label} {found.id}, expected {table.kind} {table.identifier}")
    entries = {_number(entry.node, node): entry for entry in found.partitions}
    if set(entries) != {partition.number for partition in table.partitions}:
        return (*differences, f"partitions {sorted(entries)}, expected {[part.number for part in table.partitions]}")
    for partition in table.partitions:
        entry = entries[partition.number]
        differences += [
            f"partition {partition.number} {field} is {got}, expected {wanted}"
            for field, got, wanted in _fields(table, partition, entry)
            if got != wanted
        ]
    return tuple(differences)


def _fields(table: PartitionTable, partition: Partition, entry: _Entry) -> list[tuple[str, object, object]]:
    fields: list[tuple[str, object, object]] = [
        ("start", entry.start, partition.start_lba),
        ("size", entry.size, partition.sector_count),
    ]
    if table.kind is TableKind.DOS:
        return [
            *fields,
            ("type", int(entry.type, 16), int(partition.type, 16)),
            ("active flag", entry.bootable, partition.active),
        ]
    return [
        *fields,
        ("type", UUID(entry.type), UUID(partition.type)),
        ("GUID", UUID(entry.uuid), partition.uuid),
        ("name", entry.name, partition.name),
        ("attributes", _bits(entry.attrs), partition.attributes),
    ]


def _bits(words: str) -> int:
    """sfdisk's attribute words as bits; it writes ``GUID:60,63`` for several."""
    names = {name: bit for bit, name in _ATTRIBUTES.items()}
    value = 0
    for word in words.replace(",", " ").split():
        name = word.removeprefix("GUID:")
        value |= 1 << (names[name] if name in names else int(name))
    return value


def _number(partition_node: str, node: str) -> int:
    rest = partition_node.removeprefix(node)
    return int(rest.removeprefix("p") if rest.startswith("p") else rest)
