"""A manifest whose numbers no disk can have is refused with the part named, before anyone computes with it."""

import msgspec
import pytest

from core.errors import DamagedError
from images.model.manifest import Manifest
from images.model.soundness import check_manifest
from tests.fuzz.seeds import sample_manifest


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
    document = msgspec.json.decode(msgspec.json.encode(sample_manifest()))
    place = document
    *way, last = path.split("/")
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value
    manifest = msgspec.json.decode(msgspec.json.encode(document), type=Manifest)
    if said is None:
        check_manifest(manifest, "m")
        return
    with pytest.raises(DamagedError, match=said):
        check_manifest(manifest, "m")
