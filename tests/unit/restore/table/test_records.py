"""Hybrid MBRs and boot records follow the plan; the head goes around the table. By arithmetic."""

import struct
from uuid import UUID

import msgspec
import pytest

from core.units import MIB
from images.model.extents import Extent
from images.model.layout import BootRecord, Disk, DiskIdentity, Partition, PartitionRole, PartitionTable, TableKind
from restore.table.head import head_extents
from restore.table.records import carry_records, is_hybrid

SIZE = 100 * MIB
SECTORS = SIZE // 512


def part(number: int, start: int, count: int, role: PartitionRole = PartitionRole.PRIMARY) -> Partition:
    kind = {PartitionRole.EXTENDED: "0x05"}.get(role, "0x83")
    return Partition(id=f"part{number}", number=number, start_lba=start, sector_count=count, type=kind, role=role)


def mbr(*entries: tuple[int, int, int, int]) -> str:
    """``(status, type, start, count)`` of each entry; the geometry says where it came from."""
    packed = b"".join(struct.pack("<B3sB3sII", status, b"abc", kind, b"def", start, count)
                      for status, kind, start, count in entries)  # fmt: skip
    return (bytes(6) + packed.ljust(64, b"\0") + b"\x55\xaa").hex()


def entries(text: str) -> list[tuple[int, int, int, int]]:
    found = [struct.unpack_from("<B3xB3xII", bytes.fromhex(text), 6 + 16 * index) for index in range(4)]
    return [entry for entry in found if entry != (0, 0, 0, 0)]


def gpt(*parts: Partition, mbr: str = "") -> PartitionTable:
    return PartitionTable(
        kind=TableKind.GPT, identifier=str(UUID(int=1)), partitions=parts, first_usable_lba=34,
        last_usable_lba=SECTORS - 34, entry_count=128, mbr=mbr,
    )  # fmt: skip


def disk(table: PartitionTable, sector_size: int = 512) -> Disk:
    return Disk(id="disk0", identity=DiskIdentity(), size=SIZE, sector_size=sector_size, table=table)


FIRST, SECOND = part(1, 2048, 4096), part(2, 8192, 4096)
HYBRID = mbr((0, 0xEE, 1, 2047), (0x80, 0x0C, 2048, 4096), (0, 0xAF, 8192, 4096))


def test_a_hybrid_mbr_stays_when_nothing_moves() -> None:
    table = gpt(FIRST, SECOND, mbr=HYBRID)
    assert carry_records(disk(table), table, SIZE, 512).table.mbr == HYBRID
    assert carry_records(disk(table), table, 2 * SIZE, 512).table.mbr == HYBRID
    assert is_hybrid(HYBRID)
    assert not is_hybrid(mbr((0, 0xEE, 1, 5)))


def test_entries_follow_their_partitions() -> None:
    source = gpt(FIRST, SECOND, mbr=HYBRID)
    moved = gpt(part(1, 4096, 4096), part(2, 8192, 9000), mbr=HYBRID)
    carried = carry_records(disk(source), moved, SIZE, 512)
    assert entries(carried.table.mbr) == [(0, 0xEE, 1, 4095), (0x80, 0x0C, 4096, 4096), (0, 0xAF, 8192, 9000)]
    assert carried.notes == ()


def test_an_entry_of_a_dropped_partition_goes_and_is_named() -> None:
    source = gpt(FIRST, SECOND, mbr=HYBRID)
    carried = carry_records(disk(source), gpt(FIRST), SIZE, 512)
    assert entries(carried.table.mbr) == [(0, 0xEE, 1, 2047), (0x80, 0x0C, 2048, 4096)]
    assert "Entry 3 of the hybrid MBR (type 0xaf, 4096 sectors from 8192) is left out" in carried.notes[0]


def test_an_entry_beyond_what_a_dos_table_can_name_goes() -> None:
    source = gpt(FIRST, SECOND, mbr=HYBRID)
    carried = carry_records(disk(source), gpt(FIRST, part(2, 1 << 32, 4096)), 1 << 42, 512)
    assert len(entries(carried.table.mbr)) == 2
    assert carried.notes


@pytest.mark.parametrize(
    ("count", "size", "wanted"),
    [
        (SECTORS - 1, 2 * SIZE, 2 * SECTORS - 1),  # UEFI 2.10, table 5-4: the size of the disk minus one
        (SECTORS - 1, SIZE // 2, SECTORS // 2 - 1),
        (SECTORS - 1, 1 << 42, 0xFFFFFFFF),
        (0xFFFFFFFF, 2 * SIZE, 0xFFFFFFFF),  # what Windows writes on every disk
        (1000, 2 * SIZE, 1000),
        (SECTORS // 2, SIZE // 4, SECTORS // 4 - 1),
    ],
)
def test_a_protective_entry_reaches_as_far_as_it_did(count: int, size: int, wanted: int) -> None:
    table = gpt(FIRST, SECOND, mbr=mbr((0, 0xEE, 1, count)))
    assert entries(carry_records(disk(table), table, size, 512).table.mbr) == [(0, 0xEE, 1, wanted)]


def test_another_kind_or_other_sectors_take_no_records_along() -> None:
    source = gpt(FIRST, mbr=HYBRID)
    carried = carry_records(disk(source), source, SIZE, 4096)
    assert carried.table.mbr == ""
    assert "hybrid MBR is not kept" in carried.notes[0]
    old = PartitionTable(kind=TableKind.DOS, identifier="0x1", partitions=(FIRST,), mbr=mbr((0x80, 0x83, 2048, 4096)))
    assert carry_records(disk(old), gpt(FIRST, mbr=old.mbr), SIZE, 512).table.mbr == ""
    assert carry_records(disk(old), old, SIZE, 512).table.mbr == old.mbr


def test_boot_records_stay_while_the_chain_does() -> None:
    extended, logical = part(2, 8192, 9000, PartitionRole.EXTENDED), part(5, 9000, 100, PartitionRole.LOGICAL)
    records = (BootRecord(lba=8192, content="00" * 512),)
    table = PartitionTable(kind=TableKind.DOS, identifier="0x1", partitions=(FIRST, extended, logical), records=records)
    primary_moved = msgspec.structs.replace(table, partitions=(part(1, 4096, 10), extended, logical))
    assert carry_records(disk(table), primary_moved, SIZE, 512).table.records == records
    logical_moved = msgspec.structs.replace(
        table, partitions=(FIRST, extended, part(5, 9001, 100, PartitionRole.LOGICAL))
    )
    assert carry_records(disk(table), logical_moved, SIZE, 512).table.records == ()


@pytest.mark.parametrize(
    ("changes", "sector_size", "wanted"),
    [
        ({}, 512, [(0, 440), (34 * 512, MIB)]),
        ({"entry_count": 4}, 512, [(0, 440), (3 * 512, MIB)]),
        ({"entry_count": 300, "entry_size": 256}, 512, [(0, 440), (1024 + 150 * 512, MIB)]),
        # sgdisk -j64: a boot loader lies in front of the entries.
        ({"entries_lba": 64}, 512, [(0, 440), (1024, 64 * 512), (96 * 512, MIB)]),
        ({}, 4096, [(0, 440), (512, 4096), (6 * 4096, MIB)]),
    ],
)
def test_the_head_leaves_out_what_the_table_is(
    changes: dict[str, int], sector_size: int, wanted: list[tuple[int, int]]
) -> None:
    table = msgspec.structs.replace(gpt(FIRST), **changes)
    assert head_extents(table, MIB, sector_size) == tuple(Extent(*span) for span in wanted)


def test_the_head_of_a_dos_disk_is_all_but_the_72_bytes_of_its_table() -> None:
    table = PartitionTable(kind=TableKind.DOS, identifier="0x1", partitions=(FIRST,))
    assert head_extents(table, MIB, 512) == (Extent(0, 440), Extent(512, MIB))
    assert head_extents(table, 512, 512) == (Extent(0, 440),)
    assert head_extents(table, MIB, 4096) == (Extent(0, 440), Extent(512, MIB))
