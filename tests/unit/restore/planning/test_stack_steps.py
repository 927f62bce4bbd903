"""The steps of a stack on a smaller disk. The group is the recorded one; sizes are reckoned by hand."""

from typing import cast
from uuid import UUID

import msgspec
import pytest

from core.units import MIB
from images.browse.point import VolumeSource
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
from images.model.stack import Container, Luks, VolumeGroup
from images.stack.lvm_text import parse_group
from restore.fit.fitting import Fit, fit, smallest_target
from restore.fit.wishes import Wishes
from restore.plan.steps import CreateVolumeGroup, OpenLuks, RemakeVolume, RestoreVolume, Step, VerifyVolume
from restore.planning.lessening import Lessening
from restore.planning.seating import Content
from restore.planning.stack_steps import Room, StackSteps, stack_reasons, stack_steps
from tests.unit.restore.stack.test_lvm_smaller import recorded

XFS = Filesystem(kind=FilesystemKind.XFS)
SWAP = Filesystem(kind=FilesystemKind.SWAP)


def group(device: str) -> VolumeGroup:
    """``home``, 60 MiB of XFS, and ``root``, 20 MiB, which is swap here, on a device."""
    made = recorded()
    home, root = made.volumes
    return msgspec.structs.replace(
        made,
        members=(msgspec.structs.replace(made.members[0], device=device),),
        volumes=(
            msgspec.structs.replace(home, filesystem=XFS),
            msgspec.structs.replace(root, filesystem=SWAP),
        ),
    )


def stored(device: str, size: int) -> Volume:
    return Volume(
        id=device,
        disk=device,
        role=VolumeRole.DISK,
        offset=0,
        size=size,
        root="00",
        height=1,
        allocated=10 * MIB,
        mode=CaptureMode.USED,
    )


def unopened(volume: Volume) -> VolumeSource:
    raise AssertionError(f"{volume.id} is opened, and XFS is made anew")


def steps(containers: tuple[Container, ...], target: int) -> list[Step]:
    made = planned(containers, target)
    assert not made.growing
    return list(made.making)


def planned(containers: tuple[Container, ...], target: int) -> StackSteps:
    disk = Disk(id="disk0", identity=DiskIdentity(), size=1536 * MIB, sector_size=512)
    layout = Layout(disks=(disk,), containers=containers)
    volumes = (stored("vg0-home", 60 * MIB), stored("vg0-root", 20 * MIB))
    manifest = Manifest(name="n", created="2026", origin="", layout=layout, volumes=volumes, machine=None, tool="t")
    needs = {"vg0-home": 13 * MIB}
    room = Room(
        targets={"disk0": target},
        growing=frozenset(),
        chosen={},
        lessening={
            "disk0": Lessening(layout, lambda device, _: needs.get(device, "it keeps its size"), lambda luks: "")
        },
        open=unopened,
    )
    surveyed = {volume.id: Content(data=10 * MIB, zero=0, stored=5 * MIB) for volume in volumes}
    return stack_steps(manifest, [Fit()], [512], surveyed, room, verify=True)


def told(group: VolumeGroup) -> dict[str, int]:
    return {volume.name: volume.size // MIB for volume in parse_group(group.backup).logical}


def test_the_group_becomes_smaller_and_then_what_lies_on_it() -> None:
    made = steps((group("disk0"),), 50 * MIB)
    # 49 MiB behind the first MiB are 12 extents of 4 MiB; the swap keeps 5 of them.
    assert isinstance(made[0], CreateVolumeGroup) and not made[0].grow
    assert told(made[0].group) == {"home": 28, "root": 20}
    assert [volume.size // MIB for volume in made[0].group.volumes] == [28, 20]
    (remade,) = [step for step in made if isinstance(step, RemakeVolume)]
    assert (remade.disk, remade.number, remade.offset, remade.size) == ("vg0-home", 0, 0, 28 * MIB)
    assert (remade.kind, remade.stored) == (FilesystemKind.XFS, 5 * MIB)
    # What is made anew is proven by its own step.
    assert [step.volume for step in made if isinstance(step, RestoreVolume)] == ["vg0-root"]
    assert [step.volume for step in made if isinstance(step, VerifyVolume)] == ["vg0-root"]


def test_what_was_free_in_the_group_goes_first() -> None:
    made = steps((group("disk0"),), 81 * MIB)
    assert isinstance(made[0], CreateVolumeGroup)
    assert told(made[0].group) == {"home": 60, "root": 20}
    assert [step.volume for step in made if isinstance(step, RestoreVolume)] == ["vg0-home", "vg0-root"]


def test_the_encrypted_container_below_becomes_smaller_first() -> None:
    luks = Luks(id="luks0", uuid="c", device="disk0", version=2, payload_offset=16 * MIB, size=1520 * MIB)
    made = steps((luks, group("luks0")), 66 * MIB)
    # 16 MiB are the header's: 50 are left.
    assert isinstance(made[0], OpenLuks) and made[0].container.size == 50 * MIB
    assert isinstance(made[1], CreateVolumeGroup)
    assert told(made[1].group) == {"home": 28, "root": 20}


def encrypted(disk_size: int, odd: int) -> Disk:
    """A GPT disk with one LUKS partition whose count of sectors leaves ``odd`` when it is divided by 8."""
    sectors = disk_size // 512
    count = (sectors - 33 - 2048) // 8 * 8 - 8 + odd
    part = Partition(
        id="part",
        number=1,
        start_lba=2048,
        sector_count=count,
        type="0fc63daf-8483-4772-8e79-3d69d8477de4",
        role=PartitionRole.PRIMARY,
        uuid=UUID(int=1),
        filesystem=Filesystem(kind=FilesystemKind.UNKNOWN, detail="crypto_LUKS"),
    )
    table = PartitionTable(
        kind=TableKind.GPT,
        identifier=str(UUID(int=2)),
        partitions=(part,),
        first_usable_lba=34,
        last_usable_lba=sectors - 34,
    )
    return Disk(id="disk0", identity=DiskIdentity(), size=disk_size, sector_size=512, table=table)


def fitted_steps(
    layout: Layout, target: int, volumes: tuple[Volume, ...], needs: dict[str, int]
) -> tuple[int, list[Step]]:
    """Bytes of the one partition on a target (0: the smallest that would do), and the steps of the stack on it."""
    (disk,) = layout.disks
    lessening = Lessening(layout, lambda device, _: needs.get(device, "it keeps its size"), lambda luks: "")
    wishes = Wishes(least=lambda part: lessening.least(part.id, part.filesystem))
    found = fit(disk, target or smallest_target(disk, wishes), 512, wishes)
    assert not found.reasons
    manifest = Manifest(name="n", created="2026", origin="", layout=layout, volumes=volumes, machine=None, tool="t")
    room = Room(targets={}, growing=frozenset(), chosen={}, lessening={disk.id: lessening}, open=unopened)
    surveyed = {volume.id: Content(data=MIB, zero=0, stored=MIB) for volume in volumes}
    made = stack_steps(manifest, [found], [512], surveyed, room, verify=True)
    return found.seats[0].partition.sector_count * 512, list(made.making)


@pytest.mark.parametrize("odd", range(8))
def test_a_container_in_a_partition_of_any_length_is_what_its_header_leaves(odd: int) -> None:
    disk = encrypted(256 * MIB, odd)
    size = cast("PartitionTable", disk.table).partitions[0].sector_count * 512
    luks = Luks(id="luks0", uuid="c", device="part", version=2, payload_offset=16 * MIB, size=size - 16 * MIB)
    layout = Layout(disks=(disk,), containers=(luks, group("luks0")))
    volumes = (stored("vg0-home", 60 * MIB), stored("vg0-root", 20 * MIB))
    # Behind 16 MiB of header and 1 of LVM's, 13 MiB of XFS are 4 extents, the swap keeps its 5: 53 MiB.
    room, made = fitted_steps(layout, 0, volumes, {"vg0-home": 13 * MIB})
    assert room == 53 * MIB
    assert isinstance(made[0], OpenLuks) and made[0].container.size == 37 * MIB
    assert isinstance(made[1], CreateVolumeGroup)
    assert told(made[1].group) == {"home": 16, "root": 20}


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("odd", range(8))
def test_what_is_made_anew_in_a_container_has_all_that_its_header_leaves(odd: int, sector_size: int) -> None:
    disk = encrypted(1024 * MIB, odd)
    size = cast("PartitionTable", disk.table).partitions[0].sector_count * 512
    luks = Luks(
        id="luks0",
        uuid="c",
        device="part",
        version=2,
        payload_offset=16 * MIB,
        size=(size - 16 * MIB) // sector_size * sector_size,
        sector_size=sector_size,
        filesystem=XFS,
    )
    layout = Layout(disks=(disk,), containers=(luks,))
    for target in (600 * MIB, 600 * MIB + 512):
        room, made = fitted_steps(layout, target, (stored("luks0", luks.size),), {"luks0": 300 * MIB})
        remade = next(step for step in made if isinstance(step, RemakeVolume))
        # dm-crypt counts in its own sectors: what is less than one of them at the end is nobody's.
        assert remade.size == (room - 16 * MIB) // sector_size * sector_size
        assert isinstance(made[0], OpenLuks) and made[0].container.size == remade.size


@pytest.mark.parametrize(
    ("copies", "target", "told"),
    [
        (0, 1536, False),
        (1, 1536, False),
        # 383 extents of 4 MiB behind the first MiB end 3 MiB before the disk does.
        (2, 1536, False),
        # 12 extents are laid out anew in 50 MiB: 1 MiB is left. In 49 none is.
        (2, 50, False),
        (2, 49, True),
    ],
)
def test_a_copy_of_the_metadata_for_which_there_is_no_room_is_said(copies: int, target: int, told: bool) -> None:
    made = group("disk0")
    made = msgspec.structs.replace(made, members=(msgspec.structs.replace(made.members[0], metadata_areas=copies),))
    notes = planned((made,), target * MIB).notes
    assert any("one copy of LVM's metadata is made on disk0, where there were two" in note for note in notes) is told


@pytest.mark.parametrize(
    ("sector_size", "target", "refused"),
    [
        (4096, 200 * MIB, False),
        (4096, 200 * MIB + 512, True),
        (4096, 900 * MIB + 7 * 512, True),
        (4096, 900 * MIB + 8 * 512, False),
        (512, 200 * MIB + 512, False),
    ],
)
def test_a_container_of_larger_sectors_goes_to_a_disk_of_whole_ones_alone(
    sector_size: int, target: int, refused: bool
) -> None:
    """dm-crypt takes no device that ends within a sector of the encryption, be it larger or smaller than before."""
    disk = Disk(id="disk0", identity=DiskIdentity(), size=260 * MIB, sector_size=512)
    luks = Luks(
        id="luks0",
        uuid="c",
        device="disk0",
        version=2,
        payload_offset=16 * MIB,
        size=244 * MIB,
        sector_size=sector_size,
    )
    layout = Layout(disks=(disk,), containers=(luks,))
    reasons = stack_reasons(layout, ["disk0"], bare={"disk0": target})
    assert [f"has sectors of {sector_size} bytes" in reason for reason in reasons] == [True] * refused
    # Left out, it stands in nobody's way.
    assert not stack_reasons(layout, ["disk0"], ["luks0"], {"disk0": target})
