"""Filesystems that lose the room for one more kernel, on partitions and in a stack, each disk by itself.

On real filesystems, through to the report: tests/flow/test_boot_room.py.
"""

from typing import cast
from uuid import UUID

import pytest

from core.units import MIB
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
from images.model.manifest import Manifest
from images.model.stack import LogicalVolume, PhysicalVolume, VolumeGroup
from images.store.repository import Repository
from restore.plan.steps import RemakeVolume, ShrinkVolume, Step, VerifyVolume
from restore.planning.contents import Contents
from restore.planning.kernels import Kernels
from restore.planning.matching import Pair
from restore.planning.placement import Placement, PlanOptions, place, room_of
from restore.planning.scarce import after_words, marked
from restore.planning.stack_steps import stack_sizes
from restore.target.candidates import Candidate

EXT4 = Filesystem(kind=FilesystemKind.EXT4)
MEMBER = Filesystem(kind=FilesystemKind.UNKNOWN, detail="LVM2_member")
EXTENT, SIZE = 4 * MIB, 1000 * MIB
#: What the contents need alone, in MiB, and one more kernel with its initramfs.
NEEDS = {"disk0-part1": 700, "root": 600, "home": 100}
KERNEL = 80
#: LVM's text, as far as it is read (lvm.conf(5); tests/unit/restore/stack/data has a whole one).
SEGMENT = """segment_count = 1 segment1 {{ start_extent = 0 extent_count = {0} type = "striped" stripe_count = 1
stripes = [ "pv0", {1} ] }}"""
TEXT = f"""vg {{ id = "u" seqno = 1 extent_size = 8192 status = []
physical_volumes {{ pv0 {{ id = "p" status = [] dev_size = 2048000 pe_start = 2048 pe_count = 249 }} }}
logical_volumes {{
root {{ id = "x" status = ["VISIBLE"] {SEGMENT.format(200, 0)} }}
home {{ id = "x" status = ["VISIBLE"] {SEGMENT.format(49, 200)} }}
}} }}"""


def _disk(number: int, held: Filesystem) -> Disk:
    """One partition of ``SIZE``."""
    part = Partition(
        id=f"disk{number}-part1",
        number=1,
        start_lba=2048,
        sector_count=SIZE // 512,
        type="0fc63daf-8483-4772-8e79-3d69d8477de4",
        role=PartitionRole.PRIMARY,
        uuid=UUID(int=number + 1),
        filesystem=held,
    )
    table = PartitionTable(
        kind=TableKind.GPT,
        identifier=str(UUID(int=100 + number)),
        partitions=(part,),
        first_usable_lba=34,
        last_usable_lba=(SIZE + 2 * MIB) // 512 - 34,
        entry_count=128,
    )
    return Disk(id=f"disk{number}", identity=DiskIdentity(), size=SIZE + 2 * MIB, sector_size=512, table=table)


def _group() -> VolumeGroup:
    def volume(name: str, size: int) -> LogicalVolume:
        return LogicalVolume(
            id=name, name=name, uuid=name, size=size * MIB, segments=("linear",), filesystem=EXT4, active=True
        )

    return VolumeGroup(
        id="lvm0",
        uuid="u",
        name="vg",
        extent_size=EXTENT,
        members=(PhysicalVolume(device="disk1-part1", uuid="p", size=SIZE, data_offset=MIB),),
        volumes=(volume("root", 800), volume("home", 196)),
        backup=TEXT,
    )


@pytest.fixture(autouse=True)
def contents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of what would be read from the volumes; the partition and the root have kernels."""

    def needs(self: Contents, device: str, filesystem: Filesystem | None) -> int | str:
        return NEEDS[device] * MIB

    def kernels(self: Contents, device: str, filesystem: Filesystem | None) -> Kernels:
        return Kernels(KERNEL * MIB) if device in ("disk0-part1", "root") else Kernels()

    monkeypatch.setattr(Contents, "_least_alone", needs)
    monkeypatch.setattr(Contents, "_kernels_on", kernels)


class _Point:
    """A repository of which nothing is asked but the manifest."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def manifest(self, point: str) -> Manifest:
        return self._manifest


def _placed(*targets: int) -> Placement:
    """The ext4 disk and the one with the group, on targets that have so many MiB for their partition."""
    layout = Layout(disks=(_disk(0, EXT4), _disk(1, MEMBER)), containers=(_group(),))
    manifest = Manifest(name="n", created="2026", origin="", layout=layout, volumes=(), machine=None, tool="t")
    pairs = [
        Pair(
            disk=f"disk{number}",
            candidate=Candidate(
                node=f"/dev/disk{number}",
                file="",
                identity=DiskIdentity(serial=f"new{number}"),
                size=(size + 2) * MIB,
                sector_size=512,
                contents=(),
                obstacles=(),
            ),
        )
        for number, size in enumerate(targets)
    ]
    return place(cast("Repository", _Point(manifest)), "00", pairs, PlanOptions())


def _notes(placement: Placement) -> list[list[str]]:
    found = [[note for note in one.fit.notes if "one more kernel" in note] for one in placement.placings]
    return [[note.partition(" has no room")[0] for note in notes] for notes in found]


@pytest.mark.parametrize(
    ("targets", "scarce"),
    [
        # As it was; with the room; the partition without, then the root in the group.
        ((1000, 1000), set()),
        ((780, 785), set()),
        ((779, 1000), {"disk0-part1"}),
        ((700, 1000), {"disk0-part1"}),
        ((1000, 780), {"root"}),
        ((1000, 701), {"root"}),
        ((700, 701), {"disk0-part1", "root"}),
    ],
)
def test_what_is_scarce_is_said_for_each_disk(targets: tuple[int, int], scarce: set[str]) -> None:
    placement = _placed(*targets)
    assert placement.reasons == ()
    assert placement.scarce == dict.fromkeys(scarce, KERNEL * MIB)
    assert _notes(placement) == [
        ["Partition 1"] * ("disk0-part1" in scarce),
        ["The logical volume vg/root"] * ("root" in scarce),
    ]


@pytest.mark.parametrize("targets", [(699, 1000), (1000, 700)])
def test_what_the_files_need_is_given_up_never(targets: tuple[int, int]) -> None:
    (reason, *_) = _placed(*targets).reasons
    assert "too small" in reason


def test_a_disk_that_has_the_room_keeps_it_when_another_has_not() -> None:
    """The group is cut by its own disk's needs: its root keeps the room though the other disk gave its up."""
    placement = _placed(700, 785)
    layout, placings = placement.manifest.layout, placement.placings
    fits = [one.fit for one in placings]
    sizes = stack_sizes(layout, fits, [512, 512], room_of(placement, layout))
    assert sizes["root"] >= (600 + KERNEL) * MIB
    assert set(placement.scarce) == {"disk0-part1"}


def test_the_step_and_the_report_say_it() -> None:
    shrink = ShrinkVolume(
        disk="root", volume="v", number=0, offset=0, size=MIB, kind=FilesystemKind.EXT4, data=1, scratch=1
    )
    remake = RemakeVolume(disk="disk0", volume="w", number=1, kind=FilesystemKind.XFS, offset=MIB, size=MIB, data=1)
    verify = VerifyVolume(disk="root", volume="v", offset=0, size=MIB)
    steps: list[Step] = [shrink, remake, verify]
    devices = {"v": "root", "w": "disk0-part1"}
    found = [marked(step, {"root": 8 * MIB}, devices) for step in steps]
    assert [getattr(step, "kernel_room", None) for step in found] == [8 * MIB, 0, None]
    (line,) = after_words("root", 8 * MIB)
    assert line.startswith("root: no room for one more kernel with its initramfs (8.00 MiB)")
    assert after_words("root", 0) == ()
