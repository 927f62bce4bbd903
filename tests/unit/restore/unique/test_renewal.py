"""New identities: of the right form, for everything that has one, and refused where there is no tool."""

import re
from uuid import UUID

import msgspec

from images.model.layout import (
    Disk,
    DiskIdentity,
    Filesystem,
    FilesystemKind,
    Layout,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from images.model.stack import Luks
from restore.unique.renewal import Sort, machine_renewal, reasons_against, renewed

#: As libblkid spells them (libblkid/src/superblocks: 8 digits with a dash, 16 digits, a UUID).
FORMS = {
    FilesystemKind.EXT4: r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    FilesystemKind.FAT32: r"[0-9A-F]{4}-[0-9A-F]{4}",
    FilesystemKind.NTFS: r"[0-9A-F]{16}",
}
OLD = {
    FilesystemKind.EXT4: "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2a001",
    FilesystemKind.FAT32: "ABCD-1234",
    FilesystemKind.NTFS: "0123456789ABCDEF",
}


def disk(table: TableKind) -> Disk:
    gpt = table is TableKind.GPT
    partitions = tuple(
        Partition(
            id=f"disk0-part{number}",
            number=number,
            start_lba=2048 * number,
            sector_count=2048,
            type="0fc63daf-8483-4772-8e79-3d69d8477de4" if gpt else "0x83",
            role=PartitionRole.PRIMARY,
            uuid=UUID(int=number) if gpt else None,
            filesystem=Filesystem(kind=kind, uuid=OLD[kind]),
        )
        for number, kind in enumerate(FORMS, 1)
    )
    identifier = "b4be5a5f-9b59-0149-b4a3-36903836cf60" if gpt else "0x1a2b3c4d"
    made = PartitionTable(kind=table, identifier=identifier, partitions=partitions)
    return Disk(id="disk0", identity=DiskIdentity(), size=1 << 30, sector_size=512, table=made)


def test_everything_of_a_gpt_disk_gets_another_identity() -> None:
    source = disk(TableKind.GPT)
    table, renewals = renewed(source, source.table)
    assert table is not None and source.table is not None
    assert UUID(table.identifier).version == 4 and table.identifier != source.table.identifier
    assert len({part.uuid for part in table.partitions} | {part.uuid for part in source.table.partitions}) == 6
    for old, new in zip(source.table.partitions, table.partitions, strict=True):
        assert old.filesystem is not None and new.filesystem is not None
        assert re.fullmatch(FORMS[new.filesystem.kind], new.filesystem.uuid)
        assert new.filesystem.uuid != old.filesystem.uuid
        assert msgspec.structs.replace(new, uuid=old.uuid, filesystem=old.filesystem) == old
    assert all(len(renewal.old) == len(renewal.new) for renewal in renewals)
    assert [renewal.sort for renewal in renewals].count(Sort.FILESYSTEM) == 3


def test_partitions_of_a_dos_disk_are_named_by_its_signature() -> None:
    source = disk(TableKind.DOS)
    table, renewals = renewed(source, source.table)
    assert table is not None
    assert re.fullmatch(r"0x[0-9a-f]{8}", table.identifier) and table.identifier not in ("0x00000000", "0xffffffff")
    first = next(renewal for renewal in renewals if renewal.sort is Sort.PARTITION)
    assert (first.old, first.new) == ("1a2b3c4d-01", f"{table.identifier[2:]}-01")


def test_two_clones_have_nothing_in_common() -> None:
    source = disk(TableKind.GPT)
    one, other = (renewed(source, source.table)[1] for _ in range(2))
    assert not {renewal.new for renewal in one} & {renewal.new for renewal in other}
    assert re.fullmatch(r"[0-9a-f]{32}", machine_renewal().new)


def test_what_no_tool_can_renew_is_a_reason_against() -> None:
    source = disk(TableKind.GPT)
    assert source.table is not None
    assert reasons_against(Layout(disks=(source,))) == []
    strange = msgspec.structs.replace(
        source.table.partitions[0], filesystem=Filesystem(kind=FilesystemKind.UNKNOWN, detail="crypto_LUKS", uuid="x")
    )
    table = msgspec.structs.replace(source.table, partitions=(strange,))
    locked = Layout(disks=(msgspec.structs.replace(source, table=table),))
    [reason] = reasons_against(locked)
    assert "disk0 partition 1 holds crypto_LUKS" in reason
    # One that was opened at capture is made with another UUID; what lies in it is asked about instead.
    inside = Filesystem(kind=FilesystemKind.UNKNOWN, detail="ufs", uuid="1")
    opened = Luks(
        id="luks0", uuid="x", device=strange.id, version=2, payload_offset=1 << 20, size=1 << 20, filesystem=inside
    )
    [reason] = reasons_against(msgspec.structs.replace(locked, containers=(opened,)))
    assert "luks0 holds ufs" in reason
