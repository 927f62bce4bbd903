"""What a node of a restored machine holds, and how a system's fstab may name it. Nothing is mounted or probed here."""

from collections.abc import Mapping

import msgspec

from images.fstab import FstabLine, Tag
from images.model.filesystem import Filesystem
from images.model.layout import Disk, Partition, PartitionRole, PartitionTable
from restore.stack.mountable import StackDevice


class HeldPartition(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of a restored disk.

    Attributes:
        disk: the node of its disk.
        partuuid: as PARTUUID= names it.
    """

    partition: Partition
    disk: str
    partuuid: str

    @property
    def id(self) -> str:
        """In the layout."""
        return self.partition.id

    @property
    def filesystem(self) -> Filesystem | None:
        """What lies in it."""
        return self.partition.filesystem


Held = HeldPartition | StackDevice


def held_partitions(node: str, disk: Disk) -> tuple[HeldPartition, ...]:
    """The partitions of the disk at ``node`` that may hold a filesystem."""
    table = disk.table
    return tuple(
        HeldPartition(partition=partition, disk=node, partuuid=partuuid(table, partition))
        for partition in (table.partitions if table else ())
        if table is not None and partition.role is not PartitionRole.EXTENDED
    )


def partuuid(table: PartitionTable, partition: Partition) -> str:
    """On dos the disk's signature and the number (kernel: block/partitions/msdos.c, set_info)."""
    if partition.uuid is not None:
        return str(partition.uuid)
    return f"{table.identifier.removeprefix('0x').lower()}-{partition.number:02x}"


def nodes_for(line: FstabLine, nodes: Mapping[str, Held]) -> tuple[str, ...]:
    """The nodes that a line of fstab may mean: by UUID, label, partition, or a path of a device of the stack.

    Several with one label are several: which the machine took is not known. Of several with one UUID it is the first:
    members of one btrfs all have it, and stand for the same files.
    """
    found = tuple(node for node, held in nodes.items() if _answers(line, held))
    return found[:1] if line.tag is Tag.UUID else found


def partition_for(line: FstabLine, nodes: Mapping[str, Held]) -> str | None:
    """The node that a line of fstab means; None when it is none of these, or not clear which."""
    found = nodes_for(line, nodes)
    return found[0] if len(found) == 1 else None


def _answers(line: FstabLine, held: Held) -> bool:
    if isinstance(held, StackDevice) and line.spec in held.names:
        return True
    filesystem, value = held.filesystem, line.value
    if not value or line.tag is None:
        return False
    if line.tag is Tag.UUID:
        return filesystem is not None and filesystem.uuid.lower() == value.lower()
    if line.tag is Tag.LABEL:
        return filesystem is not None and filesystem.label == value
    if not isinstance(held, HeldPartition):
        return False
    if line.tag is Tag.PARTLABEL:
        return held.partition.name == value
    return line.tag is Tag.PARTUUID and held.partuuid.lower() == value.lower()
