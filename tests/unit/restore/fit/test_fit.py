import msgspec
import pytest

from core.units import GIB, MIB
from images.model.layout import (
    Disk,
    DiskIdentity,
    Filesystem,
    FilesystemKind,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from restore.fit.fitting import fit, smallest_target
from restore.fit.wishes import Wishes
from restore.planning.rules import Growth

EXT4, SWAP, FAT = FilesystemKind.EXT4, FilesystemKind.SWAP, FilesystemKind.FAT32


def _disk(
    size: int, *parts: tuple[int, int, FilesystemKind | None], kind: TableKind = TableKind.GPT, sector: int = 512
) -> Disk:
    """Partitions as (start, size) in bytes."""
    made = tuple(
        Partition(
            id=f"disk0-part{number}",
            number=number,
            start_lba=start // sector,
            sector_count=length // sector,
            type="0x83",
            role=PartitionRole.PRIMARY,
            filesystem=Filesystem(kind=filesystem) if filesystem else None,
        )
        for number, (start, length, filesystem) in enumerate(parts, 1)
    )
    table = PartitionTable(kind=kind, identifier="x", partitions=made, entry_count=128)
    return Disk(id="disk0", identity=DiskIdentity(), size=size, sector_size=sector, table=table)


def _extents(disk: Disk, table: PartitionTable | None) -> list[tuple[int, int]]:
    assert table is not None
    return [
        (part.extent(disk.sector_size).start // MIB, part.extent(disk.sector_size).end // MIB)
        for part in table.partitions
    ]


def test_same_size_keeps_every_partition() -> None:
    disk = _disk(GIB, (MIB, 100 * MIB, FAT), (101 * MIB, 500 * MIB, EXT4))
    assert fit(disk, GIB, 512).table == disk.table


def test_grow_moves_what_lies_behind() -> None:
    disk = _disk(GIB, (MIB, 100 * MIB, FAT), (101 * MIB, 500 * MIB, EXT4), (601 * MIB, 200 * MIB, SWAP))
    fitted = fit(disk, 2 * GIB, 512, Wishes(growth=Growth.LAST))
    assert [seat.partition.number for seat in fitted.seats if seat.grow] == [2]
    assert _extents(disk, fitted.table) == [(1, 101), (101, 1847), (1847, 2047)]


def test_grow_on_dos_uses_the_last_mebibyte() -> None:
    disk = _disk(GIB, (MIB, 500 * MIB, EXT4), kind=TableKind.DOS)
    assert _extents(disk, fit(disk, 2 * GIB, 512, Wishes(growth=Growth.LAST)).table) == [(1, 2048)]


def test_grow_behind_what_cannot_move_is_refused() -> None:
    disk = _disk(GIB, (MIB, 500 * MIB, EXT4), (501 * MIB, 100 * MIB, FilesystemKind.UNKNOWN))
    assert "partition 2 lies behind" in fit(disk, 2 * GIB, 512, Wishes(growth=Growth.LAST)).reasons[0]


def test_too_small_says_by_how_many_bytes_and_what_would_do() -> None:
    disk = _disk(GIB, (MIB, 500 * MIB, EXT4))
    least = smallest_target(disk)
    # 501 MiB, then the backup table: 32 sectors of entries and a header.
    assert least == 501 * MIB + 33 * 512
    assert fit(disk, least, 512).reasons == ()
    reason = fit(disk, least - 512, 512).reasons[0]
    assert "512 bytes too small" in reason
    assert str(least) in reason


def test_what_is_good_to_have_is_given_up_last() -> None:
    disk = _disk(GIB, (MIB, 500 * MIB, EXT4), (501 * MIB, 100 * MIB, SWAP))
    wishes = Wishes(least=lambda part: 400 * MIB, bare=lambda part: 300 * MIB)
    end = 33 * 512
    # The smallest disk that would do is that of the bare needs; above the other one nothing is given up.
    assert smallest_target(disk, wishes) == 401 * MIB + end
    comfortable = fit(disk, 501 * MIB + end, 512, wishes)
    assert (comfortable.reasons, comfortable.roomy) == ((), 0)
    assert _extents(disk, comfortable.table) == [(1, 401), (401, 501)]
    assert "The smallest disk that would do has 420495872 bytes" in comfortable.notes[-1]
    scarce = fit(disk, 451 * MIB + end, 512, wishes)
    assert (scarce.reasons, scarce.roomy) == ((), 501 * MIB + end)
    assert _extents(disk, scarce.table) == [(1, 351), (351, 451)]
    (reason, *_) = fit(disk, 400 * MIB + end, 512, wishes).reasons
    assert f"the smallest that would do has {401 * MIB + end} bytes" in reason


def test_a_disk_without_a_table_gives_up_what_is_good_to_have_too() -> None:
    group = Filesystem(kind=FilesystemKind.UNKNOWN, detail="LVM2_member")
    disk = Disk(id="disk0", identity=DiskIdentity(), size=GIB, sector_size=512, filesystem=group)
    wishes = Wishes(least=lambda part: 400 * MIB, bare=lambda part: 300 * MIB)
    found = [fit(disk, size * MIB, 512, wishes) for size in (400, 399, 300, 299)]
    assert [bool(one.reasons) for one in found] == [False, False, False, True]
    assert [one.roomy for one in found] == [0, 400 * MIB, 400 * MIB, 0]


def test_another_sector_size_is_refused_with_the_reason() -> None:
    assert "sectors of 4096" in fit(_disk(GIB, (MIB, MIB, EXT4)), GIB, 4096).reasons[0]


@pytest.mark.parametrize("sector", [512, 4096])
def test_sector_size_is_a_variable(sector: int) -> None:
    disk = _disk(GIB, (MIB, 500 * MIB, EXT4), sector=sector)
    assert _extents(disk, fit(disk, 2 * GIB, sector, Wishes(growth=Growth.LAST)).table) == [(1, 2047)]


def test_a_start_of_the_63_sector_time_is_aligned() -> None:
    disk = _disk(GIB, (63 * 512, 100 * MIB, EXT4), (63 * 512 + 100 * MIB, 100 * MIB, SWAP), kind=TableKind.DOS)
    fitted = fit(disk, GIB, 512)
    assert _extents(disk, fitted.table) == [(1, 101), (101, 201)]
    assert "moved to a 1 MiB boundary" in fitted.notes[0]


def test_a_start_that_matters_to_its_content_is_kept_and_said_so() -> None:
    disk = _disk(GIB, (63 * 512, 100 * MIB, FilesystemKind.UNKNOWN), kind=TableKind.DOS)
    fitted = fit(disk, GIB, 512)
    assert fitted.table == disk.table
    assert "kept as it was" in fitted.notes[0]


def test_growing_nothing_is_refused() -> None:
    disk = _disk(GIB, (MIB, 100 * MIB, FAT))
    reason = fit(disk, 2 * GIB, 512, Wishes(growth=Growth.LAST)).reasons[0]
    assert "no partition has a filesystem that this version can grow" in reason


def test_a_logical_partition_grows_with_its_extended() -> None:
    disk = _disk(
        GIB, (MIB, 100 * MIB, EXT4), (101 * MIB, 300 * MIB, None), (102 * MIB, 200 * MIB, EXT4), kind=TableKind.DOS
    )
    assert disk.table is not None
    first, extended, logical = disk.table.partitions
    parts = (
        first,
        msgspec.structs.replace(extended, role=PartitionRole.EXTENDED),
        msgspec.structs.replace(logical, number=5, role=PartitionRole.LOGICAL),
    )
    disk = msgspec.structs.replace(disk, table=msgspec.structs.replace(disk.table, partitions=parts))
    fitted = fit(disk, 2 * GIB, 512, Wishes(growth=Growth.LAST))
    assert [seat.partition.number for seat in fitted.seats if seat.grow] == [5]
    assert _extents(disk, fitted.table) == [(1, 101), (101, 2048), (102, 2048)]


def test_an_empty_extended_partition_behind_the_grown_one_moves_to_the_end() -> None:
    disk = _disk(GIB, (MIB, 300 * MIB, EXT4), (301 * MIB, 100 * MIB, None), kind=TableKind.DOS)
    assert disk.table is not None
    first, extended = disk.table.partitions
    parts = (first, msgspec.structs.replace(extended, role=PartitionRole.EXTENDED))
    disk = msgspec.structs.replace(disk, table=msgspec.structs.replace(disk.table, partitions=parts))
    assert _extents(disk, fit(disk, 2 * GIB, 512, Wishes(growth=Growth.LAST)).table) == [(1, 1948), (1948, 2048)]
