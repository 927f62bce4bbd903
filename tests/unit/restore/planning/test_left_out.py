"""What goes with partitions that are left out, through the placement as the planner and the wizard call it."""

from typing import cast
from uuid import UUID

import pytest

from core.units import MIB
from images.model.filesystem import Filesystem
from images.model.layout import (
    Disk,
    DiskIdentity,
    FilesystemKind,
    Layout,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from images.model.manifest import CaptureMode, Manifest, Volume, VolumeRole
from images.model.stack import Array, ArrayMember, Container, LogicalVolume, Luks, PhysicalVolume, VolumeGroup
from images.store.repository import Repository
from restore.planning.matching import Pair
from restore.planning.placement import Placement, PlanOptions, place
from restore.planning.rules import PartitionRule, Rule
from restore.target.candidates import Candidate

EXT4 = Filesystem(kind=FilesystemKind.EXT4)
HELD = Filesystem(kind=FilesystemKind.UNKNOWN, detail="LVM2_member")
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def disk(number: int) -> Disk:
    """400 MiB with two partitions of 100 MiB."""
    parts = tuple(
        Partition(
            id=f"disk{number}-part{one}",
            number=one,
            start_lba=2048 * (1 + 100 * (one - 1)),
            sector_count=100 * 2048,
            type=LINUX,
            role=PartitionRole.PRIMARY,
            uuid=UUID(int=10 * number + one),
            filesystem=HELD,
        )
        for one in (1, 2)
    )
    table = PartitionTable(
        kind=TableKind.GPT,
        identifier=str(UUID(int=100 + number)),
        partitions=parts,
        first_usable_lba=34,
        last_usable_lba=400 * 2048 - 34,
        entry_count=128,
    )
    return Disk(id=f"disk{number}", identity=DiskIdentity(), size=400 * MIB, sector_size=512, table=table)


def group(*members: str) -> VolumeGroup:
    names = ("home", "root")
    return VolumeGroup(
        id="lvm0",
        uuid="u",
        name="vg",
        extent_size=4 * MIB,
        members=tuple(PhysicalVolume(device=one, uuid=one, size=100 * MIB, data_offset=MIB) for one in members),
        volumes=tuple(
            LogicalVolume(id=f"lvm0-{one}", name=one, uuid=one, size=40 * MIB, segments=("linear",)) for one in names
        ),
        backup="",
    )


def luks(device: str) -> Luks:
    return Luks(id="luks0", uuid="c", device=device, version=2, payload_offset=16 * MIB, size=24 * MIB, filesystem=EXT4)


def mirror(*members: str) -> Array:
    return Array(
        id="md0",
        uuid="m",
        name="host:0",
        level=1,
        metadata="1.0",
        slots=2,
        members=tuple(ArrayMember(device=one, slot=slot) for slot, one in enumerate(members)),
        size=99 * MIB,
        component_size=99 * MIB,
        filesystem=EXT4,
    )


def stored(device: str) -> Volume:
    return Volume(
        id=device,
        disk=device,
        role=VolumeRole.DISK,
        offset=0,
        size=MIB,
        root="00",
        height=1,
        allocated=MIB,
        mode=CaptureMode.USED,
    )


class _Point:
    """A repository of which nothing is asked but the manifest: here nothing has to become smaller."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def manifest(self, point: str) -> Manifest:
        return self._manifest


def placed(
    disks: tuple[Disk, ...],
    containers: tuple[Container, ...],
    *rules: PartitionRule,
    targets: int = 2,
    degraded: bool = False,
) -> Placement:
    layout = Layout(disks=disks, containers=containers)
    below = {found.id for found in disks} | {
        part.id for found in disks if found.table for part in found.table.partitions
    }
    volumes = tuple(stored(device.id) for device in layout.devices() if device.id not in below)
    manifest = Manifest(name="n", created="2026", origin="", layout=layout, volumes=volumes, machine=None, tool="t")
    pairs = [
        Pair(
            disk=found.id,
            candidate=Candidate(
                node=f"/dev/{found.id}",
                file="",
                identity=DiskIdentity(serial=f"new-{found.id}"),
                size=found.size,
                sector_size=512,
                contents=(),
                obstacles=(),
            ),
        )
        for found in disks[:targets]
    ]
    return place(cast("Repository", _Point(manifest)), "00", pairs, PlanOptions(rules=rules, degraded=degraded))


def drop(number: int, on: str = "disk0") -> PartitionRule:
    return PartitionRule(partition=number, rule=Rule.DROP, disk=on)


def left(found: Placement) -> tuple[set[str], set[str]]:
    """Containers and volumes that are restored."""
    layout = found.manifest.layout
    return {one.id for one in layout.containers}, {volume.id for volume in found.manifest.volumes}


def test_a_group_goes_with_its_partition_and_takes_what_lies_on_it() -> None:
    containers = (group("disk0-part2"), luks("lvm0-home"))
    found = placed((disk(0),), containers, drop(2))
    assert not found.reasons
    assert left(found) == (set(), set())
    notes = " ".join(found.placings[0].fit.notes)
    assert "volume group vg is left out with disk0-part2: home, root of it are not restored." in notes
    assert "The LUKS container luks0 is left out with disk0-part2: its content is not restored." in notes


def test_what_lies_elsewhere_stays() -> None:
    containers = (group("disk0-part2"), mirror("disk0-part1", "disk1-part1"))
    found = placed((disk(0), disk(1)), containers, drop(2))
    assert not found.reasons
    assert left(found) == ({"md0"}, {"md0"})


@pytest.mark.parametrize(
    ("container", "name"),
    [
        (mirror("disk0-part2", "disk1-part2"), "the array host:0"),
        (group("disk0-part2", "disk1-part2"), "the volume group vg"),
    ],
)
def test_a_part_of_the_members_is_a_reason_and_all_of_them_none(container: Container, name: str) -> None:
    (reason,) = placed((disk(0), disk(1)), (container,), drop(2)).reasons
    assert reason.startswith(f"{name} lies on disk1-part2 too, which is restored, while disk0-part2 is left out")
    whole = placed((disk(0), disk(1)), (container,), drop(2), drop(2, "disk1"))
    assert not whole.reasons
    assert left(whole) == (set(), set())


def test_on_a_disk_without_a_target_and_on_a_partition_left_out_it_is_gone_too() -> None:
    disks = (disk(0), disk(1))
    (reason,) = placed(disks, (mirror("disk0-part2", "disk1-part2"),), targets=1).reasons
    assert "lies on disk1 too, and no target is named for that" in reason
    found = placed(disks, (mirror("disk0-part2", "disk1-part2"), group("md0")), drop(2), targets=1)
    assert not found.reasons
    assert left(found) == (set(), set())


def test_members_that_are_containers_themselves_are_followed() -> None:
    disks = (disk(0), disk(1))
    crypt = luks("disk0-part2")
    (reason,) = placed(disks, (crypt, group("luks0", "disk1-part1")), drop(2)).reasons
    assert reason.startswith("the volume group vg lies on disk1-part1 too, which is restored, while disk0-part2 is")
    # The same with the encrypted one on a disk without a target: nothing was dropped.
    apart = luks("disk1-part2")
    (reason,) = placed(disks, (apart, group("luks0", "disk0-part1")), targets=1).reasons
    assert reason == "the volume group vg lies on disk1 too, and no target is named for that"
    # Dropped, absent and kept at once.
    (reason,) = placed(disks, (crypt, group("luks0", "disk1-part1", "disk0-part1")), drop(2), targets=1).reasons
    assert reason == "the volume group vg lies on disk1 too, and no target is named for that"


def test_a_rule_for_a_volume_of_a_group_that_is_left_out_is_a_reason() -> None:
    made = group("disk0-part2")
    root = LogicalVolume(id="lvm0-root", name="root", uuid="root", size=40 * MIB, segments=("linear",), filesystem=EXT4)
    grown = VolumeGroup(
        id=made.id,
        uuid=made.uuid,
        name=made.name,
        extent_size=made.extent_size,
        members=made.members,
        volumes=(root,),
        backup="",
    )
    rule = PartitionRule(volume="vg/root", rule=Rule.GROW)
    (reason,) = placed((disk(0),), (grown,), drop(2), rule).reasons
    assert reason == "there is a rule for vg/root, and its group is left out"
