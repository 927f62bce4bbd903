"""How much less a stack can do with, and who in a group gives. Sizes are reckoned by hand."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import RefusedError
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
from images.model.stack import Array, ArrayMember, Container, LogicalVolume, Luks, PhysicalVolume, VolumeGroup
from restore.fit.fitting import fit, smallest_target
from restore.fit.wishes import Wishes
from restore.planning.lessening import Lessening

EXT4 = Filesystem(kind=FilesystemKind.EXT4)
SWAP = Filesystem(kind=FilesystemKind.SWAP)
EXTENT = 4 * MIB


def held(detail: str) -> Filesystem:
    return Filesystem(kind=FilesystemKind.UNKNOWN, detail=detail)


def disk(detail: str, size: int = 1001) -> Disk:
    """One partition from 1 MiB on, with 1000 MiB by default; sizes in MiB."""
    part = Partition(
        id="part",
        number=1,
        start_lba=2048,
        sector_count=(size - 1) * 2048,
        type="0x8e",
        role=PartitionRole.PRIMARY,
        filesystem=held(detail),
    )
    table = PartitionTable(kind=TableKind.DOS, identifier="0x1", partitions=(part,))
    return Disk(id="disk0", identity=DiskIdentity(), size=size * MIB, sector_size=512, table=table)


def volume(name: str, size: int, filesystem: Filesystem | None = EXT4, kind: str = "linear") -> LogicalVolume:
    return LogicalVolume(
        id=name, name=name, uuid=name, size=size * MIB, segments=(kind,), filesystem=filesystem, active=True
    )


def text(*names: str) -> str:
    """LVM's text, as far as the volumes' names go (lvm.conf(5))."""
    volumes = "".join(f'{name} {{ id = "x" status = ["VISIBLE"] segment_count = 0 }}\n' for name in names)
    return f'vg {{ id = "u" seqno = 1 extent_size = 8192 status = [] logical_volumes {{ {volumes} }} }}'


def group(*volumes: LogicalVolume, on: tuple[str, ...] = ("part",), hidden: str = "") -> VolumeGroup:
    names = [found.name for found in volumes] + ([hidden] if hidden else [])
    members = tuple(PhysicalVolume(device=device, uuid=device, size=1000 * MIB, data_offset=MIB) for device in on)
    return VolumeGroup(
        id="vg", uuid="u", name="vg", extent_size=EXTENT, members=members, volumes=volumes, backup=text(*names)
    )


def luks(device: str, size: int, inside: Filesystem | None = None) -> Luks:
    return Luks(
        id="crypt", uuid="c", device=device, version=2, payload_offset=16 * MIB, size=size * MIB, filesystem=inside
    )


def lessening(detail: str, *containers: Container, **needs: int) -> Lessening:
    """``needs``: MiB that the content of a device needs; of others it keeps its size."""
    layout = Layout(disks=(disk(detail),), containers=containers)
    return Lessening(layout, lambda name, _: needs[name] * MIB if name in needs else f"{name} is firm", lambda _: "")


def test_a_group_needs_what_its_volumes_need_in_whole_extents() -> None:
    made = group(volume("root", 800), volume("swap", 64, SWAP))
    # 1 MiB before the first extent; 301 MiB are 76 extents; the swap keeps its 64 MiB; what was free is not needed.
    found = lessening("LVM2_member", made, root=301)
    assert found.least("part") == (1 + 304 + 64) * MIB
    assert found.firm_above() == {"swap": "swap is firm"}


def test_a_group_in_an_encrypted_container_needs_its_header_too() -> None:
    made = group(volume("root", 800), on=("crypt",))
    assert lessening("crypto_LUKS", luks("part", 984), made, root=300).least("part") == (16 + 1 + 300) * MIB


def test_an_encrypted_volume_needs_its_header_too() -> None:
    made = group(volume("root", 800, None))
    assert lessening("LVM2_member", made, luks("root", 784, EXT4), crypt=300).least("part") == (1 + 316) * MIB


@pytest.mark.parametrize(
    ("detail", "containers", "said"),
    [
        ("LVM2_member", (group(volume("thin", 8, EXT4, "thin")),), "volumes of type thin"),
        ("LVM2_member", (group(volume("wide", 8, EXT4, "striped")),), "volumes of type striped"),
        ("LVM2_member", (group(volume("root", 8), on=("part", "disk0")),), "2 physical volumes"),
        ("LVM2_member", (group(volume("root", 8), hidden="lvol0_pmspare"),), "hidden volume lvol0_pmspare"),
        ("crypto_LUKS", (luks("part", 500, EXT4),), "says how large it is"),
        (
            "linux_raid_member",
            (
                Array(
                    id="md",
                    uuid="u",
                    name="",
                    level=1,
                    metadata="1.2",
                    slots=1,
                    members=(ArrayMember(device="part", slot=0),),
                    size=900 * MIB,
                    filesystem=EXT4,
                ),
            ),
            "array, which keeps its size",
        ),
    ],
)
def test_what_keeps_its_size_says_why(detail: str, containers: tuple[Container, ...], said: str) -> None:
    found = lessening(detail, *containers, root=1, thin=1, wide=1, crypt=1, md=1).least("part")
    assert isinstance(found, str)
    assert re.search(said, found)


def test_room_enough_leaves_all_as_it_was() -> None:
    made = group(volume("root", 800), volume("home", 100))
    # 1 + 900 MiB and not an extent less.
    assert lessening("LVM2_member", made, root=8, home=8).cut(made, 901 * MIB) == {
        "root": 800 * MIB,
        "home": 100 * MIB,
    }


def test_volumes_give_in_proportion_to_what_they_can_spare() -> None:
    made = group(volume("root", 400), volume("home", 400), volume("swap", 100, SWAP))
    # 900 MiB of volumes on 601 - 1 MiB: 300 are missing; root spares 100, home 300, so that they give 1 : 3.
    found = lessening("LVM2_member", made, root=300, home=100).cut(made, 601 * MIB)
    # 75 MiB are 18.75 extents and are rounded up; the last gives the rest.
    assert found == {"root": 324 * MIB, "home": 176 * MIB, "swap": 100 * MIB}


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=6),
    st.integers(0, 1000),
    st.integers(0, EXTENT - 1),
)
def test_nobody_gets_less_than_it_needs_and_all_have_room(pairs: list[tuple[int, int]], more: int, crumbs: int) -> None:
    volumes = [volume(f"v{n}", max(pair) * 4) for n, pair in enumerate(pairs)]
    needs = {f"v{n}": min(pair) * 4 for n, pair in enumerate(pairs)}
    made = group(*volumes)
    found = lessening("LVM2_member", made, **needs)
    least = found.least("part")
    assert isinstance(least, int)
    room = least + more % (sum(max(pair) for pair in pairs) + 1) * EXTENT + crumbs
    sizes = found.cut(made, room)
    assert sum(sizes.values()) + MIB <= room
    for one in volumes:
        assert needs[one.name] * MIB <= sizes[one.id] <= one.size
        assert sizes[one.id] % EXTENT == 0
    # No room is wasted: either all have what they had, or less than an extent is left.
    assert sum(sizes.values()) == sum(one.size for one in volumes) or room - MIB - sum(sizes.values()) < EXTENT


def test_less_than_that_is_an_error() -> None:
    made = group(volume("root", 800))
    with pytest.raises(RefusedError, match="4194304 bytes more"):
        lessening("LVM2_member", made, root=300).cut(made, 300 * MIB)


def test_the_smallest_target_is_reckoned_through_the_stack() -> None:
    made = group(volume("root", 800), volume("swap", 64, SWAP))
    source = disk("LVM2_member")
    wishes = Wishes(least=lambda part: lessening("LVM2_member", made, root=301).least(part.id))
    # 1 MiB before the partition, 369 MiB in it.
    assert smallest_target(source, wishes) == 370 * MIB
    assert fit(source, 370 * MIB, 512, wishes).seats[0].partition.sector_count * 512 == 369 * MIB
    assert fit(source, 370 * MIB - 512, 512, wishes).reasons


def test_a_group_on_a_whole_disk_too() -> None:
    made = group(volume("root", 800), on=("disk0",))
    source = msgspec.structs.replace(disk("LVM2_member"), table=None, filesystem=held("LVM2_member"))
    layout = Layout(disks=(source,), containers=(made,))
    found = Lessening(layout, lambda device, _: 300 * MIB, lambda _: "")
    wishes = Wishes(least=lambda part: found.least(part.id))
    assert smallest_target(source, wishes) == 301 * MIB
    assert not fit(source, 301 * MIB, 512, wishes).reasons
    assert "too small" in fit(source, 300 * MIB, 512, wishes).reasons[0]
    assert smallest_target(source) == source.size


def test_a_header_that_says_how_large_its_container_is_keeps_it() -> None:
    made = group(volume("root", 800), on=("crypt",))
    layout = Layout(disks=(disk("crypto_LUKS"),), containers=(luks("part", 984), made))
    found = Lessening(layout, lambda device, _: 300 * MIB, lambda container: f"the header of {container.id} says it")
    assert found.least("part") == "the header of crypt says it"
