"""A manifest whose numbers no disk can have is refused with the part named, before anyone computes with it."""

import msgspec
import pytest

from core.errors import DamagedError
from images.model.manifest import Manifest
from images.model.soundness import check_manifest
from tests.fuzz.seeds import sample_manifest, stacked_manifest


def test_a_sound_manifest_passes() -> None:
    check_manifest(sample_manifest(), "m")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("volumes/0/disk", "disk9", "does not have"),
        ("volumes/0/offset", 4096, "does not lie where partition 1 lies"),
        ("volumes/0/size", 1 << 40, "outside the disk"),
        ("volumes/0/height", 60, "height 60"),
        ("volumes/0/allocated", 1 << 50, "allocated"),
        ("volumes/1/id", "disk0-part1", "twice"),
        ("layout/disks/0/sector_size", 0, "sectors of 0 bytes"),
        ("layout/disks/0/size", 12345, "no size of a disk"),
        ("layout/disks/0/table/entry_count", 1 << 30, "entries"),
        ("layout/disks/0/table/partitions/0/start_lba", -1, "outside the disk"),
        ("layout/disks/0/table/partitions/1/number", 1, "twice"),
        ("layout/disks/0/table/partitions/0/uuid", None, "no GUID"),
        ("layout/disks/1/table/partitions/1/role", "primary", None),
        ("layout/disks/1/table/partitions/2/role", "logical", None),
        ("layout/disks/0/table/partitions/0/role", "logical", "no extended one"),
    ],
)
def test_each_impossible_number_is_named(path: str, value: object, said: str | None) -> None:
    manifest = _changed(sample_manifest(), path, value)
    if said is None:
        check_manifest(manifest, "m")
        return
    with pytest.raises(DamagedError, match=said):
        check_manifest(manifest, "m")


def test_a_sound_stack_passes() -> None:
    check_manifest(stacked_manifest(), "m")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("version", 1, "of version 1"),
        ("layout/containers/0/members/0/device", "disk7", "does not come before it"),
        ("layout/containers/0/members/0/device", "disk0", "holds something else already"),
        ("layout/containers/0/members/0/device", "disk1-part2", "holds something else already"),
        ("layout/containers/0/members/0/device", "luks0", "does not come before it"),
        ("layout/containers/0/members/1/device", "disk0-part2", "twice"),
        ("layout/containers/0/members/1/slot", 0, "slots"),
        ("layout/containers/0/members/1/slot", 2, "slots"),
        ("layout/containers/0/members/1/data_offset", 1 << 40, "outside it"),
        ("layout/containers/0/level", 2, "level 2"),
        ("layout/containers/0/metadata", "imsm", "imsm"),
        ("layout/containers/0/uuid", "--help", "none that md has"),
        ("layout/containers/0/name", "-f", "none that md has"),
        ("layout/containers/0/layout", "a b", "layout"),
        ("layout/containers/0/size", -512, "size of -512"),
        ("layout/containers/0/id", "disk0", "twice"),
        ("layout/containers/1/device", "md9", "does not come before it"),
        ("layout/containers/1/payload_offset", 3 << 20, "outside"),
        ("layout/containers/1/name", "../../etc", "none that LUKS has"),
        ("layout/containers/1/sector_size", 7, "sectors of 7"),
        ("layout/containers/2/name", "..", "no name that LVM has"),
        ("layout/containers/2/volumes/0/name", "a/b", "no name that LVM has"),
        ("layout/containers/2/volumes/0/name", "-y", "no name that LVM has"),
        ("layout/containers/2/volumes/1/pool", "other", "its pool"),
        ("layout/containers/2/volumes/1/id", "lvm0-root", "twice"),
        ("layout/containers/2/volumes/0/id", "md0", "twice"),
        ("layout/containers/2/uuid", "x", "none that LVM has"),
        ("layout/containers/2/extent_size", 0, "extents of 0"),
        ("volumes/2/disk", "lvm0-pool", "no bytes of its own"),
        ("volumes/3/size", 4096, "are not the"),
        ("volumes/3/role", "head", "all of it or its beginning"),
        ("volumes/2/size", 1 << 40, "outside the disk"),
    ],
)
def test_each_impossible_part_of_a_stack_is_named(path: str, value: object, said: str) -> None:
    manifest = _changed(stacked_manifest(), path, value)
    with pytest.raises(DamagedError, match=said):
        check_manifest(manifest, "m")


def _changed(manifest: Manifest, path: str, value: object) -> Manifest:
    """The manifest with one field of its document changed."""
    document = msgspec.json.decode(msgspec.json.encode(manifest))
    place = document
    *way, last = path.split("/")
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value
    return msgspec.json.decode(msgspec.json.encode(document), type=Manifest)
