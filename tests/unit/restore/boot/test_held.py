"""Whose partition a line of fstab means, among those of several disks."""

from uuid import UUID

import pytest

from images.fstab import FstabLine
from images.model.filesystem import Filesystem
from images.model.layout import (
    Disk,
    DiskIdentity,
    FilesystemKind,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from restore.boot.held import Held, held_partitions, partition_for

GUID = "b7a9d2c4-3c1e-4a5e-9d60-0123456789ab"


def _partition(number: int, label: str, *, uuid: str = "", role: PartitionRole = PartitionRole.PRIMARY) -> Partition:
    return Partition(
        id=f"part{number}",
        number=number,
        start_lba=2048 * number,
        sector_count=2048,
        type="",
        role=role,
        uuid=UUID(uuid) if uuid else None,
        name=label if uuid else "",
        filesystem=Filesystem(kind=FilesystemKind.EXT4, uuid=f"AB{number}", label=label),
    )


def _nodes(*disks: tuple[TableKind, str, tuple[Partition, ...]]) -> dict[str, Held]:
    nodes: dict[str, Held] = {}
    for number, (kind, identifier, partitions) in enumerate(disks):
        table = PartitionTable(kind=kind, identifier=identifier, partitions=partitions)
        disk = Disk(id=f"disk{number}", identity=DiskIdentity(), size=1 << 30, sector_size=512, table=table)
        nodes |= {f"/dev/{number}p{held.partition.number}": held for held in held_partitions(f"/dev/{number}", disk)}
    return nodes


NODES = _nodes(
    (
        TableKind.DOS,
        "0x0234abcd",
        (_partition(2, "boot"), _partition(3, "", role=PartitionRole.EXTENDED), _partition(17, "data")),
    ),
    (TableKind.GPT, "", (_partition(1, "Data", uuid=GUID), _partition(2, "boot", uuid=GUID[:-1] + "c"))),
)


@pytest.mark.parametrize(
    ("spec", "node"),
    [
        # Signature and number, both in hexadecimal (kernel: block/partitions/msdos.c).
        ("PARTUUID=0234abcd-02", "/dev/0p2"),
        ("PARTUUID=0234ABCD-11", "/dev/0p17"),
        ("PARTUUID=0234abcd-17", None),
        ("/dev/disk/by-partuuid/0234abcd-02", "/dev/0p2"),
        ("PARTUUID=0234abcd-03", None),
        (f"PARTUUID={GUID.upper()}", "/dev/1p1"),
        # blkid tells labels apart by the case of their letters.
        ("LABEL=data", "/dev/0p17"),
        ("LABEL=Data", "/dev/1p1"),
        ("LABEL=DATA", None),
        ("LABEL=boot", None),
        ("LABEL=", None),
        ("PARTLABEL=boot", "/dev/1p2"),
        ("PARTLABEL=data", None),
        ("UUID=ab17", "/dev/0p17"),
        # Of several with one UUID the first: members of one btrfs.
        ("UUID=AB2", "/dev/0p2"),
        ("/dev/sda2", None),
    ],
)
def test_a_line_means_exactly_one(spec: str, node: str | None) -> None:
    assert partition_for(FstabLine(spec, "/boot", "ext4"), NODES) == node


def test_each_partition_knows_its_disk() -> None:
    assert {node: getattr(held, "disk", "") for node, held in NODES.items()} == {
        "/dev/0p2": "/dev/0",
        "/dev/0p17": "/dev/0",
        "/dev/1p1": "/dev/1",
        "/dev/1p2": "/dev/1",
    }
