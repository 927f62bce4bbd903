"""Arrays without the members that are left out: which do without (md(4)), and what is planned then."""

from itertools import combinations

import msgspec
import pytest

from core.units import MIB
from images.model.stack import Array, ArrayMember, PhysicalVolume
from restore.planning.degraded import does_without, redundant
from restore.planning.stack_steps import containers_on
from tests.unit.restore.planning.test_left_out import disk, drop, group, left, luks, mirror, placed


def array(level: int, slots: int, layout: str = "") -> Array:
    """Its devices are called by their slots."""
    return Array(
        id="md0",
        uuid="m",
        name="host:0",
        level=level,
        metadata="1.2",
        slots=slots,
        layout=layout,
        members=tuple(ArrayMember(device=str(slot), slot=slot) for slot in range(slots)),
        size=MIB,
    )


@pytest.mark.parametrize(
    ("level", "slots", "most"), [(0, 2, 0), (1, 2, 1), (1, 3, 2), (4, 3, 1), (5, 3, 1), (5, 5, 1), (6, 4, 2), (6, 6, 2)]
)
def test_how_many_devices_a_level_does_without(level: int, slots: int, most: int) -> None:
    made = array(level, slots)
    for count in range(1, slots + 1):
        for absent in combinations(map(str, range(slots)), count):
            assert does_without(made, absent) == (count <= most)


@pytest.mark.parametrize(
    ("layout", "slots", "lost"),
    [
        # Pairs that hold the two copies of some chunk: what md(4), "RAID10", says of each layout.
        ("n2", 4, {"01", "23"}),
        ("n2", 5, {"01", "12", "23", "34", "04"}),
        ("f2", 4, {"01", "12", "23", "03"}),
        ("o2", 4, {"01", "12", "23", "03"}),
        ("n2", 2, {"01"}),
    ],
)
def test_raid_10_needs_one_copy_of_everything(layout: str, slots: int, lost: set[str]) -> None:
    made = array(10, slots, layout)
    pairs = {"".join(absent) for absent in combinations("01234"[:slots], 2)}
    assert all(does_without(made, one) for one in "01234"[:slots])
    assert {absent for absent in pairs if not does_without(made, absent)} == lost


def test_three_copies_do_without_any_two() -> None:
    made = array(10, 6, "n3")
    assert all(does_without(made, absent) for absent in combinations("012345", 2))
    assert {absent for absent in combinations("012345", 3) if not does_without(made, absent)} == {
        tuple("012"),
        tuple("345"),
    }


def test_a_layout_that_nobody_knows_does_without_nothing() -> None:
    assert not does_without(array(10, 4, ""), "0")


def test_what_was_missing_already_counts() -> None:
    made = array(6, 4)
    made = msgspec.structs.replace(made, members=made.members[1:])
    assert does_without(made, "3")
    assert not does_without(made, "23")
    assert redundant(made)
    assert not redundant(msgspec.structs.replace(made, members=made.members[1:]))


def test_a_mirror_comes_back_on_one_disk_with_all_that_lies_on_it() -> None:
    disks = (disk(0), disk(1))
    containers = (mirror("disk0-part2", "disk1-part2"), luks("md0"), group("luks0"))
    found = placed(disks, containers, targets=1, degraded=True)
    assert not found.reasons
    assert left(found) == ({"md0", "luks0", "lvm0"}, {"md0", "luks0", "lvm0-home", "lvm0-root"})
    (made, *_) = found.manifest.layout.containers
    assert made.member_ids == ("disk0-part2",)
    assert isinstance(made, Array) and (made.slots, made.lacking, made.uuid) == (2, 1, "m")
    (note,) = found.notes
    assert note == (
        "The array host:0 is made without 1 member (disk1-part2, 100.00 MiB) and has NO redundancy until others take "
        "their places: mdadm --manage /dev/md/0 --add DEVICE, each at least as large."
    )


def test_a_member_on_a_partition_that_a_rule_leaves_out() -> None:
    found = placed((disk(0), disk(1)), (mirror("disk0-part2", "disk1-part2"),), drop(2, "disk1"), degraded=True)
    assert not found.reasons
    (made,) = found.manifest.layout.containers
    assert made.member_ids == ("disk0-part2",)


def test_nothing_is_made_degraded_that_nobody_asked_for() -> None:
    disks, containers = (disk(0), disk(1)), (mirror("disk0-part2", "disk1-part2"),)
    (reason,) = placed(disks, containers, targets=1).reasons
    assert reason == (
        "the array host:0 lies on disk1 too, and no target is named for that (--degraded makes it without)"
    )
    (reason,) = placed(disks, containers, drop(2, "disk1")).reasons
    assert reason.endswith("leave out all that it lies on, or nothing (--degraded makes it without)")
    whole = placed(disks, containers, degraded=True)
    assert (whole.reasons, whole.notes) == ((), ())
    assert whole.manifest.layout.containers == containers


def test_what_has_no_redundancy_stays_refused_with_the_reason() -> None:
    disks = (disk(0), disk(1))
    striped = msgspec.structs.replace(mirror("disk0-part2", "disk1-part2"), level=0)
    (reason,) = placed(disks, (striped,), targets=1, degraded=True).reasons
    assert reason == (
        "the array host:0 lies on disk1 too, and no target is named for that, "
        "and RAID 0 of 2 devices does not do without"
    )
    (reason,) = placed(disks, (group("disk0-part2", "disk1-part2"),), targets=1, degraded=True).reasons
    assert reason == "the volume group vg lies on disk1 too, and no target is named for that"


def test_an_array_all_of_whose_members_are_left_out_is_left_out() -> None:
    disks = (disk(0), disk(1))
    found = placed(disks, (mirror("disk0-part2", "disk1-part2"), group("md0")), drop(2), targets=1, degraded=True)
    assert not found.reasons
    assert left(found) == (set(), set())
    assert not found.notes


def test_a_spare_that_is_left_out_is_nothing_to_speak_of() -> None:
    disks = (disk(0), disk(1))
    made = mirror("disk0-part1", "disk0-part2")
    made = msgspec.structs.replace(made, members=(*made.members, ArrayMember(device="disk1-part1")))
    found = placed(disks, (made,), targets=1, degraded=True)
    assert (found.reasons, found.notes) == ((), ())
    assert [one.member_ids for one in containers_on(found.manifest.layout, ["disk0"])] == [
        ("disk0-part1", "disk0-part2")
    ]


def test_a_spare_takes_the_place_of_a_member_that_is_left_out() -> None:
    disks = (disk(0), disk(1))
    made = mirror("disk0-part1", "disk1-part2")
    made = msgspec.structs.replace(made, members=(*made.members, ArrayMember(device="disk0-part2")))
    (note,) = placed(disks, (made,), targets=1, degraded=True).notes
    assert note.endswith("and has NO redundancy until md, in the background, has filled its spare.")


def test_a_member_on_what_is_itself_left_out() -> None:
    """An array on logical volumes, one of whose groups is on a disk without a target."""
    disks = (disk(0), disk(1))
    apart = msgspec.structs.replace(
        group("disk1-part2"),
        id="lvm1",
        members=(PhysicalVolume(device="disk1-part2", uuid="p", size=100 * MIB),),
        volumes=tuple(
            msgspec.structs.replace(one, id=one.id.replace("lvm0", "lvm1")) for one in group("disk1-part2").volumes
        ),
    )
    containers = (group("disk0-part2"), apart, mirror("lvm0-home", "lvm1-home"))
    found = placed(disks, containers, targets=1, degraded=True)
    assert not found.reasons
    assert left(found)[0] == {"lvm0", "md0"}


@pytest.mark.parametrize("degraded", [False, True])
def test_what_would_come_of_it_is_known_before_anybody_wants_it(degraded: bool) -> None:
    disks = (disk(0), disk(1))
    two = mirror("disk0-part2", "disk1-part2")
    three = mirror("disk0-part1", "disk0-part2", "disk1-part2")
    spare = mirror("disk0-part1", "disk0-part2")
    spare = msgspec.structs.replace(spare, members=(*spare.members, ArrayMember(device="disk1-part1")))
    striped = msgspec.structs.replace(two, level=0)

    def said(made: Array, targets: int = 1) -> tuple[str, ...]:
        return placed(disks, (made,), targets=targets, degraded=degraded).degradable

    assert said(two) == ("host:0 comes back with NO redundancy",)
    assert said(three) == ("host:0 comes back with less redundancy",)
    assert said(spare) == ("host:0 comes back without its spare",)
    assert said(striped) == said(two, targets=2) == ()
