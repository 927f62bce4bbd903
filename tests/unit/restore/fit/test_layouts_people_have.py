"""Disks as installers make them: what becomes of them on other disks. Positions worked out by hand, in MiB."""

from uuid import UUID

import msgspec
import pytest

from core.units import GIB, MIB, TIB
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
from images.model.machine import Firmware
from restore.fit.fitting import Fit, fit, smallest_target
from restore.fit.wishes import Wishes
from restore.planning.rules import Growth, TableChoice, parse_rule
from restore.planning.seat import Means

EXT4, SWAP, FAT, NTFS, XFS = (
    FilesystemKind.EXT4,
    FilesystemKind.SWAP,
    FilesystemKind.FAT32,
    FilesystemKind.NTFS,
    FilesystemKind.XFS,
)
OPAQUE = FilesystemKind.UNKNOWN
ROLE = PartitionRole


@pytest.fixture(autouse=True)
def abilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore.fit.tenants.SHRINKABLE", {EXT4, NTFS})
    monkeypatch.setattr("restore.fit.tenants.REMAKEABLE", {XFS})


def part(
    number: int,
    start: int,
    size: int,
    kind: FilesystemKind | None,
    role: PartitionRole = ROLE.PRIMARY,
    type: str = "0x83",
    *,
    active: bool = False,
    unit: int = MIB,
) -> Partition:
    """``start`` and ``size`` in units, of sectors of 512 bytes."""
    return Partition(
        id=f"disk0-part{number}",
        number=number,
        start_lba=start * unit // 512,
        sector_count=size * unit // 512,
        type=type,
        role=role,
        active=active,
        filesystem=Filesystem(kind=kind) if kind else None,
    )


def disk(size: int, *parts: Partition, kind: TableKind = TableKind.GPT) -> Disk:
    gpt = kind is TableKind.GPT
    table = PartitionTable(
        kind=kind,
        identifier="5c8b9d7e-0000-4000-8000-000000000001" if gpt else "0x1234abcd",
        partitions=tuple(sorted(parts, key=lambda part: part.number)),
        first_usable_lba=34 if gpt else 0,
        last_usable_lba=size // 512 - 34 if gpt else 0,
        entry_count=128 if gpt else 0,
    )
    return Disk(id="disk0", identity=DiskIdentity(), size=size, sector_size=512, table=table)


def at(fitted: Fit, sector_size: int = 512) -> dict[int, tuple[float, float]]:
    """Number to start and end in MiB."""
    assert fitted.reasons == ()
    assert fitted.table is not None
    return {
        part.number: (part.start_lba * sector_size / MIB, part.end_lba * sector_size / MIB)
        for part in fitted.table.partitions
    }


def seats(fitted: Fit, what: str) -> list[int]:
    return [seat.source.number for seat in fitted.seats if getattr(seat, what)]


def half(partition: Partition) -> int:
    return partition.sector_count * 512 // 2


WINDOWS = disk(
    100 * GIB,
    part(1, 1, 100, FAT, ROLE.ESP),
    part(2, 101, 16, OPAQUE, ROLE.MSR),
    part(3, 117, 101_000, NTFS),
    part(4, 101_117, 600, NTFS, ROLE.RECOVERY),
)


def test_windows_grows_and_its_recovery_partition_moves_to_the_new_end() -> None:
    fitted = fit(WINDOWS, 200 * GIB, 512, Wishes(growth=Growth.LAST))
    # 204800 MiB; the last MiB holds the backup GPT, and 600 MiB before it the recovery partition.
    assert at(fitted) == {1: (1, 101), 2: (101, 117), 3: (117, 204_199), 4: (204_199, 204_799)}
    assert seats(fitted, "grow") == [3]
    assert seats(fitted, "relocate") == [4]


def test_windows_to_a_smaller_disk_shrinks_only_its_data() -> None:
    fitted = fit(WINDOWS, 60 * GIB, 512, Wishes(least=half))
    assert at(fitted) == {1: (1, 101), 2: (101, 117), 3: (117, 60_839), 4: (60_839, 61_439)}
    assert [seat.means for seat in fitted.seats] == [Means.STREAM, Means.STREAM, Means.SHRINK, Means.STREAM]
    assert seats(fitted, "grow") == []
    # 117 + 50500 + 600 MiB, and 33 sectors of backup.
    smallest = 51_217 * MIB + 33 * 512
    assert smallest_target(WINDOWS, Wishes(least=half)) == smallest
    assert any(f"The smallest disk that would do has {smallest} bytes" in note for note in fitted.notes)


def test_why_nothing_shrinks_is_said() -> None:
    refused = fit(WINDOWS, 60 * GIB, 512, Wishes(least=lambda part: "it is hibernated"))
    assert refused.reasons[1:] == ("partition 3 cannot be made smaller: it is hibernated",)
    # 101717 MiB, and 33 sectors of backup.
    assert f"the smallest that would do has {101_717 * MIB + 33 * 512} bytes" in refused.reasons[0]
    ruled = fit(WINDOWS, 100 * GIB, 512, Wishes(rules=(parse_rule("3=shrink"),), least=lambda part: "it is hibernated"))
    assert ruled.reasons == ("partition 3 cannot be made smaller: it is hibernated",)


def test_nobody_is_asked_how_small_he_can_be_where_nothing_shrinks() -> None:
    def refuse(partition: Partition) -> int:
        raise AssertionError(f"partition {partition.number} was asked")

    for size in (100 * GIB, 200 * GIB):
        for growth in Growth:
            assert fit(WINDOWS, size, 512, Wishes(growth=growth, least=refuse)).reasons == ()


def test_a_disk_without_a_table_stays_as_it_is() -> None:
    bare = Disk(
        id="disk0",
        identity=DiskIdentity(),
        size=GIB,
        sector_size=512,
        filesystem=Filesystem(kind=EXT4, block_size=4096),
    )
    assert fit(bare, GIB, 512) == Fit()
    assert "does not grow" in fit(bare, 2 * GIB, 512, Wishes(growth=Growth.LAST)).notes[0]
    assert f"the target is {512} bytes too small" in fit(bare, GIB - 512, 512).reasons[0]
    streams = Wishes(conversion=lambda part, old, new: Means.STREAM)
    assert fit(bare, GIB, 4096, streams).reasons == ()
    remade = Wishes(conversion=lambda part, old, new: Means.REMAKE)
    assert fit(bare, GIB, 4096, remade).reasons
    assert fit(bare, GIB, 512, Wishes(rules=(parse_rule("1=grow"),), table=TableChoice.GPT)).reasons == (
        "there are rules for partitions, and the disk has no partition table",
        "the disk has no partition table that could become a GPT",
    )


def test_what_is_free_is_used_before_anything_shrinks() -> None:
    source = disk(10 * GIB, part(1, 1, 1000, EXT4), part(2, 5001, 1000, EXT4))
    fitted = fit(source, 2002 * MIB, 512, Wishes(least=half))
    assert at(fitted) == {1: (1, 1001), 2: (1001, 2001)}
    assert all(seat.means is Means.STREAM for seat in fitted.seats)


def test_data_shrinks_by_its_free_space() -> None:
    source = disk(4 * GIB, part(1, 1, 1000, EXT4), part(2, 1001, 3000, EXT4), part(3, 4001, 50, SWAP))
    needs = {1: 500 * MIB, 2: 1500 * MIB}
    fitted = fit(source, 3252 * MIB, 512, Wishes(least=lambda part: needs.get(part.number, "it is swap")))
    # 800 MiB too many; 500 and 1500 MiB are free: 200 and 600. Swap keeps its size.
    assert at(fitted) == {1: (1, 801), 2: (801, 3201), 3: (3201, 3251)}


def test_what_has_to_be_made_anew_is_touched_last() -> None:
    source = disk(4 * GIB, part(1, 1, 1000, XFS), part(2, 1001, 1000, EXT4))
    fitted = fit(source, 1602 * MIB, 512, Wishes(least=half))
    assert at(fitted) == {1: (1, 1001), 2: (1001, 1601)}
    fitted = fit(source, 1202 * MIB, 512, Wishes(least=half))
    assert at(fitted) == {1: (1, 701), 2: (701, 1201)}
    assert [seat.means for seat in fitted.seats] == [Means.REMAKE, Means.SHRINK]


def test_a_boot_partition_keeps_its_size_as_long_as_there_is_another_way() -> None:
    """Debian's installer with LVM, and a /srv of XFS: all give in turn, /boot what is left and no more than it has."""
    source = disk(5 * GIB, part(1, 1, 500, EXT4), part(2, 501, 3000, EXT4), part(3, 3501, 1000, XFS))
    needs = {1: 300 * MIB, 2: 1000 * MIB, 3: 600 * MIB}
    wishes = Wishes(least=lambda part: needs[part.number], boots=lambda part: part.number == 1)
    assert at(fit(source, 3002 * MIB, 512, wishes)) == {1: (1, 501), 2: (501, 2001), 3: (2001, 3001)}
    assert at(fit(source, 2302 * MIB, 512, wishes)) == {1: (1, 501), 2: (501, 1501), 3: (1501, 2301)}
    assert at(fit(source, 2002 * MIB, 512, wishes)) == {1: (1, 401), 2: (401, 1401), 3: (1401, 2001)}
    assert smallest_target(source, wishes) == (1 + 300 + 1000 + 600) * MIB + 33 * 512
    assert "the smallest that would do" in fit(source, 1901 * MIB, 512, wishes).reasons[0]
    # Nobody looks where nothing has to be made smaller.
    refuse = Wishes(least=lambda part: pytest.fail("asked"), boots=lambda part: pytest.fail("asked"))
    assert fit(source, 5 * GIB, 512, refuse).reasons == ()


def test_rules_share_the_space_by_size() -> None:
    source = disk(10 * GIB, part(1, 1, 1000, EXT4), part(2, 1001, 3000, EXT4), part(3, 4001, 99, SWAP))
    rules = (parse_rule("1=grow"), parse_rule("2=grow"))
    fitted = fit(source, 8101 * MIB, 512, Wishes(rules=rules))
    # 1 + 1000 + 3000 + 99 + 1 for the backup: 4000 MiB are left, a quarter and three quarters.
    assert at(fitted) == {1: (1, 2001), 2: (2001, 8001), 3: (8001, 8100)}
    assert seats(fitted, "grow") == [1, 2]
    assert fit(source, 8101 * MIB, 512, Wishes(growth=Growth.ALL)).table == fitted.table


def test_rules_with_sizes_and_what_is_dropped_makes_room_for_who_grows() -> None:
    source = disk(10 * GIB, part(1, 1, 1000, EXT4), part(2, 1001, 2000, EXT4), part(3, 3001, 3000, EXT4))
    rules = tuple(map(parse_rule, ("1=shrink:600M", "2=drop", "3=grow")))
    fitted = fit(source, 6002 * MIB, 512, Wishes(rules=rules, least=half))
    assert at(fitted) == {1: (1, 601), 3: (601, 6001)}
    assert "Partition 2 is left out: its content is not restored." in fitted.notes


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("9=grow", "no partition of that number"),
        ("1=grow", r"partition 1 \(esp\) keeps its size: the rule grow is not for it"),
        ("3=shrink:20G", r"needs 52953088000 bytes \(49.32 GiB\), 31478251520 more"),
        ("3=grow:1G", "cannot grow to 1073741824 bytes"),
        ("2=shrink", r"partition 2 \(msr\) keeps its size"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused_with_the_reason(rule: str, said: str) -> None:
    refused = fit(WINDOWS, 100 * GIB, 512, Wishes(rules=(parse_rule(rule),), least=half))
    assert len(refused.reasons) == 1
    with pytest.raises(ValueError, match=said):
        raise ValueError(refused.reasons[0])


def test_a_partition_that_must_stay_is_said_to_be_in_the_way() -> None:
    source = disk(10 * GIB, part(1, 1, 1000, EXT4), part(2, 1001, 100, OPAQUE))
    refused = fit(source, 20 * GIB, 512, Wishes(rules=(parse_rule("1=grow"),)))
    assert refused.reasons == (
        "partition 1 cannot grow: partition 2 lies behind and cannot be moved: its content may depend on its place",
    )
    assert "partition 2 cannot be moved" in fit(source, 20 * GIB, 512, Wishes(rules=(parse_rule("2=move"),))).reasons[0]


XP = disk(
    10 * GIB,
    part(1, 63, 4_000_000, NTFS, type="0x07", active=True, unit=512),
    part(2, 4_000_063, 8_000_000, None, ROLE.EXTENDED, type="0x0f", unit=512),
    part(5, 4_000_126, 3_000_000, NTFS, ROLE.LOGICAL, type="0x07", unit=512),
    part(6, 7_000_189, 2_000_000, EXT4, ROLE.LOGICAL, unit=512),
    kind=TableKind.DOS,
)


def test_a_disk_of_the_63_sector_time_is_aligned_with_its_logical_partitions() -> None:
    fitted = fit(XP, 10 * GIB, 512)
    assert fitted.table is not None
    starts = {part.number: part.start_lba for part in fitted.table.partitions}
    # The first ends at LBA 4002048, below 1955 MiB (4003840); a MiB for each boot record.
    assert starts == {1: 2048, 2: 1955 * 2048, 5: 1956 * 2048, 6: 3422 * 2048}
    assert {part.number: part.sector_count for part in fitted.table.partitions if part.number != 2} == {
        1: 4_000_000,
        5: 3_000_000,
        6: 2_000_000,
    }
    assert seats(fitted, "relocate") == [1, 5]
    assert any("1, 5 and 6: the start is moved to a 1 MiB boundary" in note for note in fitted.notes)
    assert any("Windows finds its partitions by their place" in note for note in fitted.notes)


def test_a_full_disk_of_the_63_sector_time_keeps_its_places_where_there_is_no_room() -> None:
    source = disk(GIB, part(1, 63, 2_097_089, EXT4, unit=512), kind=TableKind.DOS)
    fitted = fit(source, GIB, 512)
    assert fitted.table == source.table
    assert "the target has no room to move it" in fitted.notes[0]


def test_logical_partitions_are_counted_anew_when_one_goes() -> None:
    fitted = fit(XP, 10 * GIB, 512, Wishes(rules=(parse_rule("5=drop"),)))
    assert {seat.source.number: seat.partition.number for seat in fitted.seats} == {1: 1, 2: 2, 6: 5}
    assert any("Partition 6 becomes number 5" in note for note in fitted.notes)
    emptied = fit(XP, 10 * GIB, 512, Wishes(rules=(parse_rule("5=drop"), parse_rule("6=drop"))))
    assert [seat.source.number for seat in emptied.seats] == [1]


LINUX_DOS = disk(
    3 * TIB // 2,
    part(1, 1, 500, EXT4, active=True),
    part(2, 501, 2000, None, ROLE.EXTENDED, type="0x05"),
    part(5, 502, 1999, SWAP, ROLE.LOGICAL, type="0x82"),
    kind=TableKind.DOS,
)


def test_dos_becomes_gpt_when_asked_with_a_bios_boot_partition_for_bios() -> None:
    fitted = fit(LINUX_DOS, 3 * TIB // 2, 512, Wishes(table=TableChoice.GPT, firmware=Firmware.BIOS))
    assert at(fitted) == {1: (1, 501), 5: (502, 2501), 6: (34 * 512 / MIB, 1)}
    assert fitted.converted
    assert fitted.table is not None
    made = {part.number: part for part in fitted.table.partitions}
    # The type GUIDs of the GRUB manual ("BIOS installation") and of the Discoverable Partitions Specification.
    assert UUID(made[6].type) == UUID("21686148-6449-6e6f-744e-656564454649")
    assert UUID(made[5].type) == UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f")
    assert fitted.table.first_usable_lba == 34
    assert [seat.source.number for seat in fitted.seats] == [1, 5]


def test_dos_becomes_gpt_when_somebody_grows_beyond_2_tib_and_the_machine_still_boots() -> None:
    grow = Wishes(growth=Growth.LAST, rules=(parse_rule("5=drop"),), firmware=Firmware.BIOS)
    fitted = fit(LINUX_DOS, 4 * TIB, 512, grow)
    assert fitted.table is not None
    assert fitted.table.kind is TableKind.GPT
    assert at(fitted)[1] == (1, 4 * TIB / MIB - 1)
    unrepaired = fit(LINUX_DOS, 4 * TIB, 512, msgspec.structs.replace(grow, firmware=None))
    assert unrepaired.table is not None
    assert unrepaired.table.kind is TableKind.DOS
    assert at(unrepaired)[1] == (1, 2 * TIB / MIB)
    assert any("What lies beyond 2.00 TiB is not used" in note for note in unrepaired.notes)


def test_uefi_without_an_esp_is_said() -> None:
    fitted = fit(LINUX_DOS, 3 * TIB // 2, 512, Wishes(table=TableChoice.GPT, firmware=Firmware.UEFI))
    assert "There is no ESP: the target does not start by UEFI." in fitted.notes


def test_sectors_of_another_size_keep_bytes_and_follow_what_the_contents_say() -> None:
    answers: dict[int, Means | str] = {1: Means.REMAKE, 3: Means.STREAM, 4: Means.STREAM}
    wishes = Wishes(conversion=lambda part, old, new: answers[part.number])
    fitted = fit(WINDOWS, 100 * GIB, 4096, wishes)
    assert at(fitted, 4096) == {1: (1, 101), 2: (101, 117), 3: (117, 101_117), 4: (101_117, 101_717)}
    assert [seat.means for seat in fitted.seats] == [Means.REMAKE, Means.EMPTY, Means.STREAM, Means.STREAM]
    # Boot sectors count in sectors: NTFS is corrected even where it stays.
    assert seats(fitted, "relocate") == [3, 4]
    assert fitted.converted
    refused = fit(WINDOWS, 100 * GIB, 4096, Wishes(conversion=lambda part, old, new: "its clusters are too small"))
    assert refused.reasons == tuple(f"partition {number}: its clusters are too small" for number in (1, 3, 4))


def test_odd_sizes_fit_whole_sectors_of_4096() -> None:
    source = disk(10 * GIB, part(1, 2048, 2049, EXT4, unit=512), part(2, 63 + 4096, 1000, EXT4, unit=512))
    fitted = fit(source, 10 * GIB, 4096, Wishes(conversion=lambda part, old, new: Means.STREAM))
    assert fitted.table is not None
    # 2049 sectors of 512 bytes need 257 of 4096.
    assert [(part.start_lba, part.sector_count) for part in fitted.table.partitions] == [(256, 257), (768, 125)]


def test_a_document_whose_partitions_overlap_is_refused() -> None:
    first, second = part(1, 1, 100, EXT4), part(2, 50, 100, EXT4)
    assert fit(disk(GIB, first, second), GIB, 512).reasons == ("partitions 1 and 2 overlap in the recovery point",)
    lost = part(5, 200, 100, EXT4, ROLE.LOGICAL)
    around = part(2, 300, 100, None, ROLE.EXTENDED, type="0x05")
    refused = fit(disk(GIB, first, around, lost, kind=TableKind.DOS), GIB, 512).reasons
    assert refused == ("partition 5 lies in no extended partition of the recovery point",)
