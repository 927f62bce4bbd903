"""The witness: what util-linux reads in a partition table that was made, field by field.

sfdisk where the sectors are those of the device or 512 bytes; fdisk, which can be told the sector size of an image
file, where they are not. Neither shares code with what wrote the table.
"""

from uuid import UUID

import msgspec

from core.documents import decode_stored
from core.errors import DeviceError
from core.process import Runner
from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind

_ATTRIBUTES = {0: "RequiredPartition", 1: "NoBlockIOProtocol", 2: "LegacyBIOSBootable"}
#: The attribute bits that libfdisk has words for; it shows no others.
_SHOWN_ATTRIBUTES = sum(1 << bit for bit in (*_ATTRIBUTES, *range(48, 64)))
_GPT_COLUMNS = "Device,Start,Sectors,Type-UUID,UUID"
_DOS_COLUMNS = "Device,Boot,Start,Sectors,Id"


class _Entry(msgspec.Struct, frozen=True):
    """A partition as a tool shows it. ``name``, ``attrs``: None where it does not show them."""

    node: str
    start: int
    size: int
    type: str
    uuid: str = ""
    name: str | None = ""
    attrs: str | None = ""
    bootable: bool = False


class _Table(msgspec.Struct, frozen=True):
    label: str
    id: str = ""
    firstlba: int = 0
    lastlba: int = 0
    partitions: tuple[_Entry, ...] = ()


class _Dump(msgspec.Struct, frozen=True):
    partitiontable: _Table


def differences(
    node: str, table: PartitionTable, sector_size: int, runner: Runner, *, own_sector_size: bool
) -> tuple[str, ...]:
    """What the witness reads on ``node`` that differs from ``table``.

    Args:
        own_sector_size: the tools find the sector size by themselves.
    """
    if sum(part.role is PartitionRole.EXTENDED for part in table.partitions) > 1:
        # libfdisk follows one chain only; the kernel and we follow each.
        return ()
    found = _sfdisk(node, runner) if own_sector_size else _fdisk(node, table, sector_size, runner)
    wrong = []
    if found.label != table.kind.value or found.id.lower() != table.identifier.lower():
        wrong.append(f"table {found.label} {found.id}, expected {table.kind} {table.identifier}")
    usable = (table.first_usable_lba, table.last_usable_lba)
    if own_sector_size and table.kind is TableKind.GPT and (found.firstlba, found.lastlba) != usable:
        wrong.append(f"usable LBAs {found.firstlba} to {found.lastlba}, expected {usable[0]} to {usable[1]}")
    entries = {_number(entry.node, node): entry for entry in found.partitions}
    if set(entries) != {partition.number for partition in table.partitions}:
        return (*wrong, f"partitions {sorted(entries)}, expected {[part.number for part in table.partitions]}")
    for partition in table.partitions:
        wrong += [
            f"partition {partition.number} {field} is {got}, expected {wanted}"
            for field, got, wanted in _fields(table, partition, entries[partition.number])
            if got != wanted
        ]
    return tuple(wrong)


def _sfdisk(node: str, runner: Runner) -> _Table:
    output = runner.run(["sfdisk", "--json", node], timeout=120).stdout
    return decode_stored(output.encode(), _Dump, name=f"the output of sfdisk for {node}").partitiontable


def _fdisk(node: str, table: PartitionTable, sector_size: int, runner: Runner) -> _Table:
    """The same facts, without names and attributes, from fdisk's list of an image file."""
    columns = _GPT_COLUMNS if table.kind is TableKind.GPT else _DOS_COLUMNS
    argv = ["fdisk", "--color=never", "--sector-size", str(sector_size), "--output", columns, "--list", node]
    label = identifier = ""
    entries = []
    for line in runner.run(argv, timeout=120).stdout.splitlines():
        words = line.split()
        if line.startswith("Disklabel type:"):
            label = words[-1]
        elif line.startswith("Disk identifier:"):
            identifier = words[-1]
        elif line.startswith(node) and len(words) >= 4:
            entries.append(_listed(line[len(node) :].split(), node, table.kind))
    return _Table(label=label, id=identifier, partitions=tuple(entries))


def _listed(words: list[str], node: str, kind: TableKind) -> _Entry:
    number, *rest = words
    active = rest[0] == "*"
    try:
        start, size, code, *unique = rest[active:]
        uuid = unique[0] if kind is TableKind.GPT else ""
        return _Entry(node + number, int(start), int(size), code, uuid=uuid, bootable=active, name=None, attrs=None)
    except (ValueError, IndexError):
        raise DeviceError(
            f"fdisk lists a partition of {node} in words that cannot be read: {' '.join(words)}"
        ) from None


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
    fields += [("type", UUID(entry.type), UUID(partition.type)), ("GUID", UUID(entry.uuid), partition.uuid)]
    if entry.name is not None and not partition.name_utf16:
        fields.append(("name", entry.name, partition.name))
    if entry.attrs is not None:
        fields.append(("attributes", _bits(entry.attrs), partition.attributes & _SHOWN_ATTRIBUTES))
    return fields


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
