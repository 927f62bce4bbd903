"""Renewals: which identity becomes which. Chosen when the plan is made, so that what is confirmed is what happens."""

import secrets
import uuid
from enum import StrEnum

import msgspec

from images.model.layout import (
    Disk,
    Filesystem,
    FilesystemKind,
    Layout,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from restore.planning.abilities import EXT, FAT

#: Filesystems whose tools give them another identity.
RENEWABLE = (
    EXT
    | FAT
    | {FilesystemKind.XFS, FilesystemKind.BTRFS, FilesystemKind.SWAP, FilesystemKind.NTFS, FilesystemKind.EXFAT}
)


class Sort(StrEnum):
    """What carries the identity."""

    TABLE = "table"
    PARTITION = "partition"
    FILESYSTEM = "filesystem"
    ARRAY = "array"
    LUKS = "luks"
    LVM = "lvm"
    MACHINE = "machine"


class Renewal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One identity and the one that takes its place, as fstab and blkid spell them.

    Attributes:
        disk: id of the source disk, or of the device or container of the stack; empty for the machine's own id.
        number: of the partition; 0 for the table and the machine, and for a disk without partitions.
        kind: of the filesystem; ``unknown`` where the sort is another.
        old, new: the same number of characters. The machine's old id is empty: nobody knows it before the restore.
    """

    sort: Sort
    disk: str
    number: int
    old: str
    new: str
    kind: FilesystemKind = FilesystemKind.UNKNOWN


def renewed(disk: Disk, table: PartitionTable | None) -> tuple[PartitionTable | None, tuple[Renewal, ...]]:
    """New identities for a disk, its partitions and filesystems.

    Args:
        disk: the source. table: what goes to the target; None for a disk without partitions.

    Returns:
        the table with the new identities, those of its filesystems included, and what became what.
    """
    if table is None:
        return None, tuple(filesystem_renewals(disk.id, 0, disk.filesystem))
    identifier = _identifier(table)
    found = [Renewal(sort=Sort.TABLE, disk=disk.id, number=0, old=_bare(table), new=_bare_of(table.kind, identifier))]
    partitions: list[Partition] = []
    for part in table.partitions:
        made = part
        if table.kind is TableKind.GPT:
            made = msgspec.structs.replace(made, uuid=uuid.uuid4())
            names = str(part.uuid), str(made.uuid)
        else:
            names = (
                f"{_bare(table)}-{part.number:02x}",
                f"{_bare_of(table.kind, identifier)}-{part.number:02x}",
            )
        if part.role is not PartitionRole.EXTENDED:
            found.append(Renewal(sort=Sort.PARTITION, disk=disk.id, number=part.number, old=names[0], new=names[1]))
        for renewal in filesystem_renewals(disk.id, part.number, part.filesystem):
            found.append(renewal)
            assert part.filesystem is not None
            renamed = msgspec.structs.replace(part.filesystem, uuid=renewal.new)
            made = msgspec.structs.replace(made, filesystem=renamed)
        partitions.append(made)
    return msgspec.structs.replace(table, identifier=identifier, partitions=tuple(partitions)), tuple(found)


def machine_renewal() -> Renewal:
    """A new machine-id (machine-id(5): 32 hexadecimal digits, a random UUID of version 4)."""
    return Renewal(sort=Sort.MACHINE, disk="", number=0, old="", new=uuid.uuid4().hex)


def reasons_against(layout: Layout) -> list[str]:
    """What keeps the identities of these disks, and of what is built on them, from being renewed, a line each."""
    names = {
        part.id: f"{disk.id} partition {part.number}"
        for disk in layout.disks
        for part in (disk.table.partitions if disk.table else ())
    }
    return [
        f"{names.get(device.id, device.id)} holds {device.filesystem.detail or device.filesystem.kind}, whose identity "
        "liferaft cannot renew"
        for device in layout.devices()
        # A container that was followed is made anew; what nobody followed is bytes.
        if device.filesystem is not None and layout.container_on(device.id) is None
        if _has_identity(device.filesystem) and not _renewable(device.filesystem)
    ]


def _has_identity(filesystem: Filesystem) -> bool:
    return bool(filesystem.uuid or filesystem.detail) or filesystem.kind is not FilesystemKind.UNKNOWN


def _renewable(filesystem: Filesystem) -> bool:
    """Whether it can be renewed; a swap area or a FAT of old may have no identity to renew."""
    known = filesystem.kind in RENEWABLE
    return known and (not filesystem.uuid or len(filesystem.uuid) == len(_uuid_for(filesystem.kind)))


def filesystem_renewals(disk: str, number: int, filesystem: Filesystem | None) -> list[Renewal]:
    """The renewal of a filesystem that has an identity; none for others."""
    if filesystem is None or not filesystem.uuid or not _renewable(filesystem):
        return []
    new = _uuid_for(filesystem.kind)
    return [Renewal(sort=Sort.FILESYSTEM, disk=disk, number=number, old=filesystem.uuid, new=new, kind=filesystem.kind)]


def _uuid_for(kind: FilesystemKind) -> str:
    """As libblkid spells it: FAT and exFAT have 32 bits, NTFS 64, the others a UUID."""
    if kind in FAT or kind is FilesystemKind.EXFAT:
        digits = secrets.token_hex(4).upper()
        return f"{digits[:4]}-{digits[4:]}"
    if kind is FilesystemKind.NTFS:
        return secrets.token_hex(8).upper()
    return str(uuid.uuid4())


def _identifier(table: PartitionTable) -> str:
    """A new disk GUID, or a disk signature that is neither zero nor all ones."""
    if table.kind is TableKind.GPT:
        return str(uuid.uuid4())
    return f"0x{1 + secrets.randbelow(0xFFFFFFFE):08x}"


def _bare(table: PartitionTable) -> str:
    return _bare_of(table.kind, table.identifier)


def _bare_of(kind: TableKind, identifier: str) -> str:
    """As blkid and PARTUUID spell it: a disk signature without 0x."""
    return identifier if kind is TableKind.GPT else identifier.removeprefix("0x")
