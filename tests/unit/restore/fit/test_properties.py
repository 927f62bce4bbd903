"""What holds for every fit, over generated disks, rules and targets."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from core.units import ALIGNMENT, MIB
from images.model.extents import Extent
from images.model.layout import Disk, FilesystemKind, Partition, PartitionRole, TableKind
from images.model.machine import Firmware
from restore.fit.fitting import Fit, fit, smallest_target
from restore.fit.wishes import Wishes
from restore.planning.rules import Growth, Rule, TableChoice
from restore.planning.seat import Means
from tests.unit.restore.fit.layouts import disks, least, rules_for, targets_for

KEEP_SIZE = (PartitionRole.ESP, PartitionRole.MSR, PartitionRole.BIOS_BOOT, PartitionRole.RECOVERY)
#: The machines these run on are busy, and a case that is refused says nothing about the others.
_TESTS = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@pytest.fixture(scope="module", autouse=True)
def abilities() -> Iterator[None]:
    """Abilities of every sort, whatever this version has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("restore.fit.tenants.GROWABLE", {FilesystemKind.EXT4, FilesystemKind.NTFS, FilesystemKind.XFS})
        patch.setattr("restore.fit.tenants.SHRINKABLE", {FilesystemKind.EXT4, FilesystemKind.NTFS})
        patch.setattr("restore.fit.tenants.REMAKEABLE", {FilesystemKind.XFS})
        relocatable = {FilesystemKind.NTFS, FilesystemKind.FAT32}
        patch.setattr("restore.fit.tenants.RELOCATABLE", relocatable)
        patch.setattr("restore.fit.fitting.RELOCATABLE", relocatable)
        yield


@st.composite
def cases(draw: st.DrawFn) -> tuple[Disk, int, Wishes]:
    disk = draw(disks())
    wishes = Wishes(
        growth=draw(st.sampled_from(list(Growth))),
        rules=draw(rules_for(disk)) if draw(st.booleans()) else (),
        least=lambda partition: least(partition, disk.sector_size),
    )
    return disk, draw(targets_for(disk)), wishes


def _fitted(disk: Disk, size: int, wishes: Wishes) -> Fit:
    fitted = fit(disk, size, disk.sector_size, wishes)
    assume(not fitted.reasons)
    return fitted


def _parts(disk: Disk, fitted: Fit) -> list[tuple[Partition, Extent]]:
    """All but the extended ones, in order of their starts."""
    assert fitted.table is not None
    parts = [part for part in fitted.table.partitions if part.role is not PartitionRole.EXTENDED]
    return sorted(((part, part.extent(disk.sector_size)) for part in parts), key=lambda pair: pair[1].start)


def _source(disk: Disk) -> dict[str, Partition]:
    assert disk.table is not None
    return {part.id: part for part in disk.table.partitions}


@_TESTS
@given(cases())
def test_nothing_overlaps_and_all_lies_in_the_usable_area(case: tuple[Disk, int, Wishes]) -> None:
    disk, size, wishes = case
    parts = _parts(disk, _fitted(disk, size, wishes))
    # UEFI 2.10, 5.3: a header in LBA 1, 16384 bytes of entries, and both again at the end.
    gpt = disk.table is not None and disk.table.kind is TableKind.GPT
    tables = 16384 + disk.sector_size if gpt else 0
    position = disk.sector_size + tables
    for _, extent in parts:
        assert extent.start >= position
        assert extent.size > 0
        position = extent.end
    assert position <= size - tables


@_TESTS
@given(cases())
def test_logical_partitions_lie_in_their_extended_one_with_room_for_boot_records(
    case: tuple[Disk, int, Wishes],
) -> None:
    disk, size, wishes = case
    fitted = _fitted(disk, size, wishes)
    assert fitted.table is not None
    extended = [part for part in fitted.table.partitions if part.role is PartitionRole.EXTENDED]
    parts = _parts(disk, fitted)
    logical = [part for part, _ in parts if part.role is PartitionRole.LOGICAL]
    assert [part.number for part in logical] == list(range(5, 5 + len(logical)))
    assert bool(extended) == bool(logical)
    for around in extended:
        outside = around.extent(disk.sector_size)
        assert outside.end <= size
        position = outside.start
        for part, extent in parts:
            if part.role is PartitionRole.LOGICAL:
                assert extent.start - position >= disk.sector_size
                assert extent.end <= outside.end
                position = extent.end
            else:
                assert extent.end <= outside.start or extent.start >= outside.end


@_TESTS
@given(cases())
def test_what_moves_starts_on_the_boundary_and_what_stays_off_it_is_said(case: tuple[Disk, int, Wishes]) -> None:
    disk, size, wishes = case
    fitted = _fitted(disk, size, wishes)
    for seat in fitted.seats:
        part, old = seat.partition, seat.source
        if part.role is PartitionRole.EXTENDED or part.extent(disk.sector_size).start % ALIGNMENT == 0:
            continue
        assert part.start_lba == old.start_lba
        assert any(note.startswith(f"Partition {old.number}: ") and "kept as it was" in note for note in fitted.notes)


@_TESTS
@given(cases())
def test_the_order_stays_and_nothing_is_lost_unless_dropped(case: tuple[Disk, int, Wishes]) -> None:
    disk, size, wishes = case
    fitted = _fitted(disk, size, wishes)
    dropped = {rule.partition for rule in wishes.rules if rule.rule is Rule.DROP}
    before = sorted(_source(disk).values(), key=lambda part: part.start_lba)
    wanted = [part.id for part in before if part.role is not PartitionRole.EXTENDED and part.number not in dropped]
    assert [part.id for part, _ in _parts(disk, fitted)] == wanted
    for part, _ in _parts(disk, fitted):
        old = _source(disk)[part.id]
        assert (part.type, part.role, part.uuid, part.name) == (old.type, old.role, old.uuid, old.name)
        assert part.filesystem == old.filesystem


@_TESTS
@given(cases())
def test_sizes_follow_roles_rules_and_needs(case: tuple[Disk, int, Wishes]) -> None:
    disk, size, wishes = case
    fitted = _fitted(disk, size, wishes)
    rules = {rule.partition: rule for rule in wishes.rules}
    for seat in fitted.seats:
        old, new = seat.source, seat.partition
        if old.role is PartitionRole.EXTENDED:
            continue
        rule = rules.get(old.number)
        assert seat.grow == (new.sector_count > old.sector_count)
        assert (seat.means in (Means.SHRINK, Means.REMAKE)) == (new.sector_count < old.sector_count)
        assert new.sector_count * disk.sector_size >= min(
            old.sector_count * disk.sector_size, least(old, disk.sector_size)
        )
        if old.role in KEEP_SIZE or (rule and rule.rule in (Rule.KEEP, Rule.MOVE) and wishes.growth is Growth.NONE):
            assert new.sector_count == old.sector_count
        if rule and rule.rule is Rule.KEEP:
            assert (new.start_lba, new.sector_count) == (old.start_lba, old.sector_count)
        if rule and rule.rule is Rule.GROW:
            assert new.sector_count >= old.sector_count
        if rule and rule.size:
            assert abs(new.sector_count * disk.sector_size - rule.size) < ALIGNMENT
        if seat.relocate:
            assert new.start_lba != old.start_lba
            assert old.filesystem is not None
            assert old.filesystem.kind in (FilesystemKind.NTFS, FilesystemKind.FAT32)
        elif old.filesystem and old.filesystem.kind is FilesystemKind.NTFS and seat.means is not Means.REMAKE:
            assert new.start_lba == old.start_lba


@st.composite
def growing(draw: st.DrawFn) -> tuple[Disk, int, Wishes]:
    """Somebody is asked to grow on a disk that is larger."""
    disk = draw(disks())
    wishes = Wishes(
        growth=draw(st.sampled_from([Growth.LAST, Growth.ALL])),
        rules=draw(rules_for(disk)) if draw(st.booleans()) else (),
        least=lambda partition: least(partition, disk.sector_size),
    )
    return disk, draw(st.integers(disk.size // MIB + 8, disk.size // MIB * 2 + 16)) * MIB, wishes


@_TESTS
@given(growing())
def test_growth_uses_the_space_at_the_end(case: tuple[Disk, int, Wishes]) -> None:
    disk, size, wishes = case
    fitted = fit(disk, size, disk.sector_size, wishes)
    if fitted.reasons:
        return
    parts = _parts(disk, fitted)
    seats = {seat.partition.id: seat for seat in fitted.seats}
    asked = {rule.partition for rule in wishes.rules if rule.rule is Rule.GROW and rule.size}
    grown = [
        index
        for index, (part, _) in enumerate(parts)
        if seats[part.id].grow and seats[part.id].source.number not in asked
    ]
    if not grown:
        return
    tail = disk.sector_size + 16384 if disk.table is not None and disk.table.kind is TableKind.GPT else 0
    end = parts[-1][1].end
    behind = [part for part, _ in parts[grown[-1] + 1 :]]
    immovable = {FilesystemKind.UNKNOWN}
    pinned = {rule.partition for rule in wishes.rules if rule.rule is Rule.KEEP}
    if any(
        (part.filesystem and part.filesystem.kind in immovable and part.role is not PartitionRole.MSR)
        or seats[part.id].source.number in pinned
        for part in behind
    ):
        return
    assert size - tail - end < ALIGNMENT


@_TESTS
@given(cases())
def test_a_fit_is_the_same_each_time(case: tuple[Disk, int, Wishes]) -> None:
    disk, size, wishes = case
    assert fit(disk, size, disk.sector_size, wishes) == fit(disk, size, disk.sector_size, wishes)


@_TESTS
@given(cases())
def test_the_smallest_target_does_and_one_sector_less_does_not(case: tuple[Disk, int, Wishes]) -> None:
    disk, _, wishes = case
    huge = disk.size * 4 + 1024 * MIB
    assume(not fit(disk, huge, disk.sector_size, wishes).reasons)
    smallest = smallest_target(disk, wishes)
    assert fit(disk, smallest, disk.sector_size, wishes).reasons == ()
    refused = fit(disk, smallest - disk.sector_size, disk.sector_size, wishes)
    assert len(refused.reasons) == 1
    assert f"the target is {disk.sector_size} bytes too small" in refused.reasons[0]
    assert f"has {smallest} bytes" in refused.reasons[0]
    missing = fit(disk, smallest - MIB, disk.sector_size, wishes).reasons
    assert any(f"the target is {MIB} bytes too small" in reason for reason in missing)


@_TESTS
@given(disks(aligned=True))
def test_the_same_size_without_wishes_changes_nothing_on_the_boundary(disk: Disk) -> None:
    assert fit(disk, disk.size, disk.sector_size).table == disk.table


@_TESTS
@given(disks(), st.sampled_from(list(TableChoice)), st.booleans())
def test_other_sectors_and_another_table_keep_everything_in_place_or_say_why(
    disk: Disk, choice: TableChoice, bios: bool
) -> None:
    new = 4096 if disk.sector_size == 512 else 512
    wishes = Wishes(
        table=choice,
        firmware=Firmware.BIOS if bios else Firmware.UEFI,
        conversion=lambda partition, old, new: Means.STREAM,
    )
    fitted = fit(disk, disk.size * 2, new, wishes)
    if fitted.reasons:
        # Only what cannot be moved can be in the way: of the sectors, of the new table, or of others on the boundary.
        assert all("cannot be moved" in reason for reason in fitted.reasons)
        return
    assert fitted.table is not None
    assert fitted.converted
    parts = [part for part in fitted.table.partitions if part.role is not PartitionRole.EXTENDED]
    gpt = fitted.table.kind is TableKind.GPT
    # UEFI 2.10, 5.3: a header in LBA 1, 16384 bytes of entries, and both again at the end.
    tables = 16384 + new if gpt else 0
    position = new + tables
    for part in sorted(parts, key=lambda part: part.start_lba):
        extent = part.extent(new)
        assert extent.start >= position
        assert part.role is not PartitionRole.LOGICAL or (not gpt and extent.start >= position + new)
        position = extent.end
    assert position <= disk.size * 2 - tables
    for seat in fitted.seats:
        if seat.source.role is not PartitionRole.EXTENDED:
            grown = seat.partition.sector_count * new - seat.source.sector_count * disk.sector_size
            assert 0 <= grown < 4096
    if gpt:
        assert fitted.table.first_usable_lba <= min(part.start_lba for part in parts)
        assert fitted.table.last_usable_lba >= max(part.end_lba for part in parts) - 1
