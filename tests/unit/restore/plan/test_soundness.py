"""Soundness of plans: generated layouts that hold together pass, and each way of breaking one is found."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.units import MIB
from images.model.extents import Extent
from images.model.filesystem import FilesystemKind
from images.model.layout import DiskIdentity, Layout, Partition, PartitionRole, PartitionTable, TableKind
from images.model.manifest import Manifest
from images.model.stack import Array, ArrayMember, Luks, VolumeGroup
from restore.plan.plan import Plan, TargetDisk
from restore.plan.soundness import unfit, unsound
from restore.plan.steps import (
    CreateArray,
    CreateTable,
    CreateVolumeGroup,
    GrowFilesystem,
    OpenLuks,
    RestoreVolume,
    ShrinkVolume,
    Step,
    VerifyVolume,
    WipeSignatures,
    WriteHead,
)
from tests.unit.restore.stack.test_lvm_smaller import recorded

SECTOR, SIZE = 512, 64 * MIB
SECTORS = SIZE // SECTOR


def part(number: int, start: int, count: int, role: PartitionRole = PartitionRole.PRIMARY) -> Partition:
    return Partition(
        id=f"disk0-part{number}", number=number, start_lba=start, sector_count=count, type="0x83", role=role
    )


def table(*parts: Partition, kind: TableKind = TableKind.GPT) -> PartitionTable:
    gpt = kind is TableKind.GPT
    return PartitionTable(
        kind=kind,
        identifier="x",
        partitions=parts,
        first_usable_lba=34 if gpt else 0,
        last_usable_lba=SECTORS - 34 if gpt else 0,
        entry_count=128 if gpt else 0,
    )


def restore(number: int, start: int, count: int) -> RestoreVolume:
    return RestoreVolume(
        disk="disk0", volume=f"disk0-part{number}", offset=start * SECTOR, size=count * SECTOR, data=0, zero=0
    )


def proof(number: int, start: int, count: int) -> VerifyVolume:
    return VerifyVolume(disk="disk0", volume=f"disk0-part{number}", offset=start * SECTOR, size=count * SECTOR)


def plan(*steps: Step, sources: tuple[str, ...] = ("disk0",)) -> Plan:
    targets = tuple(
        TargetDisk(source=source, identity=DiskIdentity(), file="/t", size=SIZE, sector_size=SECTOR, destroys=())
        for source in sources
    )
    return Plan(recovery_point="0", name="n", created="", repository="r", targets=targets, steps=steps, notes=())


def sound(*parts: Partition) -> tuple[Step, ...]:
    return (
        WipeSignatures(disk="disk0", extents=(Extent(0, MIB), Extent(SIZE - MIB, SIZE))),
        CreateTable(disk="disk0", table=table(*parts)),
        *(restore(one.number, one.start_lba, one.sector_count) for one in parts),
        *(proof(one.number, one.start_lba, one.sector_count) for one in parts),
    )


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 3000)), max_size=12))
def test_partitions_one_behind_the_other_are_sound(shapes: list[tuple[int, int]]) -> None:
    parts, at = [], 2048
    for number, (gap, count) in enumerate(shapes, 1):
        parts.append(part(number, at + gap, count))
        at += gap + count
    assert list(unsound(plan(*sound(*parts)))) == []


@given(st.integers(34, 5000), st.integers(1, 3000), st.integers(34, 5000), st.integers(1, 3000))
def test_two_partitions_overlap_exactly_when_they_share_a_sector(a: int, many: int, b: int, few: int) -> None:
    shared = bool(set(range(a, a + many)) & set(range(b, b + few)))
    reasons = list(unsound(plan(CreateTable(disk="disk0", table=table(part(1, a, many), part(2, b, few))))))
    assert bool(reasons) is shared
    assert all("overlap" in reason for reason in reasons)


GOOD = (part(1, 2048, 4096), part(2, 8192, 4096))


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((CreateTable(disk="disk0", table=table(part(1, 33, 9))),), "sectors 33 to 41 do not lie within 34 to"),
        ((CreateTable(disk="disk0", table=table(part(1, SECTORS - 40, 8))),), "do not lie within"),
        ((CreateTable(disk="disk0", table=table(part(1, 2048, 0))),), "do not lie within"),
        ((CreateTable(disk="disk0", table=table(part(1, -5, 9))),), "do not lie within"),
        ((CreateTable(disk="disk0", table=table(part(1, 2048, 9), part(1, 4096, 9))),), "two partitions 1"),
        ((*sound(*GOOD), CreateTable(disk="disk0", table=table())), "2 partition tables"),
        ((*sound(*GOOD), restore(1, 2048, 4096)), "overlap: bytes 1048576 to 3145728"),
        ((*sound(*GOOD), restore(3, 6000, 8192)), "do not lie in one partition"),
        ((*sound(*GOOD), restore(3, 2048, SECTORS)), "reach beyond"),
        ((restore(1, 0, 2048), restore(2, 2047, 4)), "overlap: bytes 1048064 to 1048576"),
        ((restore(1, -1, 4),), "no range of sectors"),
        ((VerifyVolume(disk="disk0", volume="v", offset=0, size=SIZE + 512),), "reach beyond"),
        ((WipeSignatures(disk="disk0", extents=(Extent(0, SIZE + 1),)),), "reach beyond"),
        ((*sound(*GOOD), WriteHead(disk="disk0", volume="h", extents=(Extent(0, 2 * MIB),))), "a partition overlap"),
        (
            (*sound(*GOOD), GrowFilesystem(disk="disk0", number=9, kind=FilesystemKind.EXT4, size=1)),
            "has no partition 9",
        ),
        (
            (*sound(*GOOD), GrowFilesystem(disk="disk0", number=1, kind=FilesystemKind.EXT4, size=1 << 40)),
            "the partition has 2097152 bytes, the plan says 1099511627776",
        ),
        (sound(*GOOD)[::-1], "wipe old signatures in 2 places: this comes too late"),
        ((*sound(*GOOD)[1:], sound(*GOOD)[0]), "this comes too late, it would undo what was done before"),
        ((*sound(*GOOD), msgspec.structs.replace(restore(2, 2048, 4096), volume="disk0-part1")), "disk0-part1 twice"),
        ((*sound(*GOOD), proof(1, 8192, 4096)), "read back and compare with the recovery point: the plan has not"),
        ((proof(1, 2048, 4096), *sound(*GOOD)), "the plan has not written it there before"),
        ((CreateTable(disk="disk1", table=table(*GOOD)),), "the plan has no target for disk1"),
        ((msgspec.structs.replace(restore(1, 2048, 4096), disk="vg-root"),), "the plan has no target for vg-root"),
    ],
)
def test_what_does_not_hold_together_is_said(steps: tuple[Step, ...], reason: str) -> None:
    reasons = list(unsound(plan(*steps)))
    assert any(reason in found for found in reasons), reasons


def test_logical_partitions_lie_in_the_extended_one() -> None:
    extended = part(1, 2048, 8192, PartitionRole.EXTENDED)
    inside, outside = part(5, 4096, 64, PartitionRole.LOGICAL), part(6, 20480, 64, PartitionRole.LOGICAL)
    fine = table(extended, inside, kind=TableKind.DOS)
    assert list(unsound(plan(CreateTable(disk="disk0", table=fine)))) == []
    bad = table(extended, inside, outside, kind=TableKind.DOS)
    reasons = list(unsound(plan(CreateTable(disk="disk0", table=bad))))
    assert reasons == ["disk0, partition 6 does not lie in the extended partition"]


def test_a_plan_names_each_target_once() -> None:
    assert "the plan names no target" in unsound(plan(sources=()))
    assert "the plan names two targets for disk0" in unsound(plan(*sound(*GOOD), sources=("disk0", "disk0")))


def test_a_plan_that_would_restore_nothing_is_refused() -> None:
    assert list(unsound(plan())) == ["the plan has no steps: nothing would be restored"]
    found = list(unsound(plan(*sound(*GOOD), sources=("disk0", "disk1"))))
    assert found == ["the plan has a target for disk1, and no step for it"]


def test_no_partition_of_a_gpt_is_active() -> None:
    active = msgspec.structs.replace(GOOD[0], active=True)
    assert list(unsound(plan(*sound(active, GOOD[1])))) == ["disk0, partition 1 is active: only dos tables know that"]
    dos = table(active, GOOD[1], kind=TableKind.DOS)
    assert list(unsound(plan(CreateTable(disk="disk0", table=dos)))) == []


@pytest.mark.parametrize("sector_size", [0, -512, 520])
def test_a_target_has_sectors_that_disks_have(sector_size: int) -> None:
    made = plan(*sound(*GOOD))
    odd = msgspec.structs.replace(made, targets=(msgspec.structs.replace(made.targets[0], sector_size=sector_size),))
    assert f"disk0: no disk has sectors of {sector_size} bytes" in list(unsound(odd))


def test_every_reason_is_given_at_once() -> None:
    worse = msgspec.structs.replace(GOOD[1], start_lba=3000)
    steps = (*sound(GOOD[0], worse), WipeSignatures(disk="disk0", extents=(Extent(0, SIZE + 512),)))
    reasons = list(unsound(plan(*steps)))
    assert len(reasons) >= 3, reasons


def test_what_goes_to_a_device_of_the_stack_has_room_there() -> None:
    luks = Luks(id="luks0", uuid="u", device="disk0-part1", version=2, payload_offset=MIB, size=40 * MIB)
    opened = OpenLuks(disk="luks0", container=luks)
    fits = ShrinkVolume(
        disk="luks0", volume="luks0", number=0, offset=0, size=40 * MIB, kind=FilesystemKind.EXT4, data=0, scratch=0
    )
    grown = GrowFilesystem(disk="luks0", number=0, kind=FilesystemKind.EXT4, size=50 * MIB)
    assert list(unsound(plan(*sound(part(1, 2048, 4096)), opened, fits, grown))) == []
    larger = msgspec.structs.replace(fits, size=41 * MIB)
    (reason,) = unsound(plan(*sound(part(1, 2048, 4096)), opened, larger))
    assert f"luks0 has {40 * MIB} bytes, the plan says {41 * MIB}" in reason
    (reason,) = unsound(plan(*sound(part(1, 2048, 4096)), fits))
    assert "no target for luks0" in reason


def group_on(device: str) -> VolumeGroup:
    """The recorded group: ``home`` with 60 MiB and ``root`` with 20 MiB."""
    made = recorded()
    return msgspec.structs.replace(made, members=(msgspec.structs.replace(made.members[0], device=device),))


@pytest.mark.parametrize("device", ["disk0-part1", "luks0"])
def test_a_container_lies_on_what_the_plan_makes(device: str) -> None:
    luks = Luks(id="luks0", uuid="u", device="disk0-part1", version=2, payload_offset=MIB, size=40 * MIB)
    below = (OpenLuks(disk="luks0", container=luks),) if device == "luks0" else ()
    made = CreateVolumeGroup(disk="vg0", group=group_on(device))
    steps = sound(part(1, 2048, 4096))
    assert list(unsound(plan(*steps, *below, made))) == []
    (reason,) = unsound(plan(*steps, *below, CreateVolumeGroup(disk="vg0", group=group_on("disk0-part2"))))
    assert reason.endswith("the plan makes no disk0-part2 before it")
    # A disk with a table is no member itself; what comes later is not there yet.
    (reason,) = unsound(plan(*steps, *below, CreateVolumeGroup(disk="vg0", group=group_on("disk0"))))
    assert reason.endswith("the plan makes no disk0 before it")
    assert any(one.endswith(f"the plan makes no {device} before it") for one in unsound(plan(made, *steps, *below)))


def test_a_whole_disk_is_a_member() -> None:
    wiped = WipeSignatures(disk="disk0", extents=(Extent(0, 512),))
    assert list(unsound(plan(wiped, CreateVolumeGroup(disk="vg0", group=group_on("disk0"))))) == []


def _volume(group: VolumeGroup, **more: object) -> VolumeGroup:
    return msgspec.structs.replace(group, volumes=(msgspec.structs.replace(group.volumes[0], **more), group.volumes[1]))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda group: _volume(group, size=64 * MIB), "volume home"),
        (lambda group: _volume(group, uuid="other"), "volume home"),
        (lambda group: _volume(group, name="away"), "volume away, home"),
        (lambda group: _volume(group, segments=("striped",)), "volume home"),
        (lambda group: msgspec.structs.replace(group, volumes=group.volumes[1:]), "volume home"),
        (lambda group: msgspec.structs.replace(group, name="vgx"), "name"),
        (lambda group: msgspec.structs.replace(group, uuid="other"), "UUID"),
        (lambda group: msgspec.structs.replace(group, extent_size=MIB), "extent size"),
        (
            lambda group: msgspec.structs.replace(
                group, members=(msgspec.structs.replace(group.members[0], uuid="other"),)
            ),
            "physical volumes",
        ),
        (
            lambda group: msgspec.structs.replace(
                group, members=(msgspec.structs.replace(group.members[0], data_offset=2 * MIB),)
            ),
            "physical volumes",
        ),
        (lambda group: msgspec.structs.replace(group, backup="vg {"), "too early"),
    ],
)
def test_a_group_is_what_its_text_says(changed: Callable[[VolumeGroup], VolumeGroup], reason: str) -> None:
    wiped = WipeSignatures(disk="disk0", extents=(Extent(0, 512),))
    group = changed(group_on("disk0"))
    found = list(unsound(plan(wiped, CreateVolumeGroup(disk="vg0", group=group))))
    assert len(found) == 1, found
    assert reason in found[0]


def _array(*slots: int, level: int = 5, count: int = 3, **more: object) -> Array:
    members = tuple(ArrayMember(device=f"disk{slot}", slot=slot) for slot in slots)
    made = Array(
        id="md0", uuid="m", name="h:0", level=level, metadata="1.2", slots=count, layout="", members=members, size=MIB
    )
    return msgspec.structs.replace(made, **more)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (_array(0, 1, 2), ""),
        # A clone's.
        (_array(0, 1, 2, uuid="other"), ""),
        (_array(0, 2), ""),
        (_array(0), "leaves out more members than its redundancy replaces"),
        (_array(0, 1, 2, level=0), "was RAID 5 of 3 devices, the plan makes it 0 of 3"),
        (_array(0, 1, count=2), "was RAID 5 of 3 devices, the plan makes it 5 of 2"),
        (_array(0, 1, 2, id="md7"), "the recovery point has no array h:0"),
        (_array(1, 0, 2, members=(ArrayMember(device="disk1", slot=0),)), "of other members (disk1)"),
        (_array(members=(*_array(0, 1).members, ArrayMember(device="disk0", slot=0))), "of other members"),
    ],
)
def test_an_array_is_made_of_what_holds_its_content(made: Array, reason: str) -> None:
    layout = Layout(disks=(), containers=(_array(0, 1, 2),))
    manifest = Manifest(name="n", created="2026", origin="", layout=layout, volumes=(), machine=None, tool="t")
    edited = msgspec.structs.replace(plan(CreateArray(disk=made.id, array=made)), targets=())
    found = list(unfit(edited, manifest))
    assert len(found) == bool(reason)
    assert not reason or reason in found[0]
