"""Who in a stack takes new room, and what the steps of the stack make of that. Sizes are reckoned by hand."""

from collections.abc import Mapping

import msgspec
import pytest

from core.units import MIB
from images.browse.point import VolumeSource
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
from images.model.manifest import Manifest, Volume
from images.model.stack import Array, ArrayMember, LogicalVolume, Luks, PhysicalVolume, VolumeGroup
from restore.fit.fitting import Fit
from restore.plan.steps import CreateArray, CreateVolumeGroup, GrowFilesystem, Step
from restore.planning.growing import chosen_volumes, disks_that_grow, growable_members, growing_volume, with_members
from restore.planning.rules import PartitionRule, Rule
from restore.planning.stack_steps import Room, stack_reasons, stack_steps

EXT4 = Filesystem(kind=FilesystemKind.EXT4)
SWAP = Filesystem(kind=FilesystemKind.SWAP)


def bare(number: int) -> Disk:
    return Disk(id=f"disk{number}", identity=DiskIdentity(), size=100 * MIB, sector_size=512)


def array(level: int, members: int, **more: object) -> Array:
    used = {0: members, 1: 1, 5: members - 1}[level] * 98 * MIB
    made = Array(
        id="md0",
        uuid="u",
        name="host:data",
        level=level,
        metadata="1.2",
        slots=members,
        members=tuple(ArrayMember(device=f"disk{slot}", slot=slot, data_offset=MIB) for slot in range(members)),
        component_size=0 if level == 0 else 98 * MIB,
        chunk_size=0 if level == 1 else 64 << 10,
        size=used,
        filesystem=EXT4,
    )
    return msgspec.structs.replace(made, **more)


def volume(name: str, filesystem: Filesystem | None, kind: str = "linear") -> LogicalVolume:
    return LogicalVolume(id=f"lv-{name}", name=name, uuid=name, size=20 * MIB, segments=(kind,), filesystem=filesystem)


def part(number: int) -> Partition:
    return Partition(
        id=f"disk0-part{number}",
        number=number,
        start_lba=2048 * number,
        sector_count=2048,
        type="0x8e",
        role=PartitionRole.PRIMARY,
    )


#: A group over the second partition of a disk and a whole disk, with an encrypted volume in it.
GROUP = VolumeGroup(
    id="vg0",
    uuid="v",
    name="vg",
    extent_size=4 * MIB,
    members=(
        PhysicalVolume(device="disk0-part2", uuid="p", size=MIB),
        PhysicalVolume(device="disk1", uuid="q", size=100 * MIB),
    ),
    volumes=(
        volume("home", EXT4),
        volume("crypt", None),
        volume("root", EXT4),
        volume("swap", SWAP),
        volume("thin", EXT4, "thin"),
        volume("odd", Filesystem(kind=FilesystemKind.UNKNOWN)),
    ),
    backup="",
)
TABLE = PartitionTable(
    kind=TableKind.DOS,
    identifier="0x1",
    partitions=(part(1), part(2)),
    first_usable_lba=1,
    last_usable_lba=204799,
)
MIXED = Layout(
    disks=(msgspec.structs.replace(bare(0), table=TABLE), bare(1)),
    containers=(
        GROUP,
        Luks(id="luks0", uuid="u", device="lv-crypt", version=2, payload_offset=MIB, size=19 * MIB, filesystem=EXT4),
    ),
)


def rule(name: str) -> PartitionRule:
    return PartitionRule(volume=name, rule=Rule.GROW)


def manifest(layout: Layout) -> Manifest:
    return Manifest(name="n", created="2026", origin="", layout=layout, volumes=(), machine=None, tool="t")


def unopened(volume: Volume) -> VolumeSource:
    raise AssertionError(f"{volume.id} is opened, and nothing is made smaller")


def steps(layout: Layout, targets: Mapping[str, int], *, asked: bool, chosen: str = "") -> list[Step]:
    picked, reasons = chosen_volumes(layout, [rule(chosen)] if chosen else [])
    assert not reasons
    room = Room(
        targets=targets,
        growing=disks_that_grow(layout, picked, asked=asked),
        chosen=picked,
        lessening={},
        open=unopened,
    )
    fits = [Fit() for _ in layout.disks]
    made = stack_steps(manifest(layout), fits, [512] * len(fits), {}, room, verify=True)
    return [*made.making, *made.growing]


@pytest.mark.parametrize(("level", "members", "size"), [(1, 2, 149), (5, 3, 298), (0, 2, 296)])
def test_an_array_on_larger_whole_disks_grows_when_that_is_asked(level: int, members: int, size: int) -> None:
    disks = tuple(bare(number) for number in range(members))
    layout = Layout(disks=disks, containers=(array(level, members),))
    targets = {disk.id: 150 * MIB for disk in disks}
    # Each member holds 149 MiB behind its data offset; RAID 0, which knows no such size, gains what its members gain.
    made, grown = steps(layout, targets, asked=True)
    assert isinstance(made, CreateArray)
    assert made.fill
    assert grown == GrowFilesystem(disk="md0", number=0, kind=FilesystemKind.EXT4, size=size * MIB)


def test_unasked_it_keeps_its_size_but_for_raid_0_which_has_none_to_keep() -> None:
    for level, fill in ((1, False), (0, True)):
        layout = Layout(disks=(bare(0), bare(1)), containers=(array(level, 2),))
        (made,) = steps(layout, {"disk0": 150 * MIB, "disk1": 150 * MIB}, asked=False)
        assert isinstance(made, CreateArray)
        assert made.fill is fill


def test_one_larger_disk_of_a_mirror_is_no_room() -> None:
    layout = Layout(disks=(bare(0), bare(1)), containers=(array(1, 2),))
    (made,) = steps(layout, {"disk0": 150 * MIB, "disk1": 100 * MIB}, asked=True)
    assert isinstance(made, CreateArray)
    assert not made.fill


def test_the_last_volume_takes_the_room_unless_a_rule_says_which() -> None:
    for chosen, name in (("", "root"), ("vg/home", "home"), ("vg/swap", "swap"), ("vg/crypt", "crypt")):
        found = steps(MIXED, {"disk1": 150 * MIB}, asked=not chosen, chosen=chosen)
        group = next(step for step in found if isinstance(step, CreateVolumeGroup))
        (grown,) = (step for step in found if isinstance(step, GrowFilesystem))
        assert group.grow == name
        # 50 MiB are 12 extents of 4 MiB. What is encrypted has 1 MiB less.
        lies_on, was = ("luks0", 19) if name == "crypt" else (f"lv-{name}", 20)
        assert (grown.disk, grown.size) == (lies_on, (was + 48) * MIB)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["vg/none"], "no such logical volume"),
        (["other/root"], "no such logical volume"),
        (["vg/thin"], "volumes of type thin are not extended"),
        (["vg/odd"], "cannot be grown by this version"),
        (["vg/root", "vg/home"], "one takes all the room"),
    ],
)
def test_a_rule_for_a_volume_that_cannot_be_followed_is_a_reason(names: list[str], reason: str) -> None:
    _, reasons = chosen_volumes(MIXED, [rule(name) for name in names])
    assert len(reasons) == 1
    assert reason in reasons[0]


def test_what_a_chosen_volume_lies_on_grows_unless_a_rule_is_about_it() -> None:
    chosen, _ = chosen_volumes(MIXED, [rule("vg/home")])
    implied = PartitionRule(partition=2, rule=Rule.GROW, disk="disk0")
    assert with_members(MIXED, [rule("vg/home")], chosen) == (implied,)
    keep = PartitionRule(partition=2, rule=Rule.KEEP, disk="disk0")
    assert with_members(MIXED, [rule("vg/home"), keep], chosen) == (keep,)
    assert disks_that_grow(MIXED, chosen, asked=False) == {"disk1"}
    assert disks_that_grow(MIXED, {}, asked=False) == frozenset()


def test_room_ends_where_nothing_can_take_it() -> None:
    swap_only = msgspec.structs.replace(GROUP, volumes=(volume("swap", SWAP),))
    layout = msgspec.structs.replace(MIXED, containers=(swap_only,))
    assert growing_volume(layout, swap_only, {}) is None
    assert growable_members(layout, {}) == frozenset()
    assert growable_members(layout, {"vg0": "swap"}) == {"disk0-part2", "disk1"}


@pytest.mark.parametrize(("level", "metadata", "refused"), [(0, "0.90", True), (1, "0.90", False), (0, "1.2", False)])
def test_raid_0_of_the_oldest_format_is_refused_in_the_plan(level: int, metadata: str, refused: bool) -> None:
    disks = (bare(0), bare(1))
    layout = Layout(disks=disks, containers=(array(level, 2, metadata=metadata),))
    reasons = stack_reasons(layout, [disk.id for disk in disks])
    assert bool(reasons) is refused
    assert all("superblocks of format 0.90" in reason for reason in reasons)
