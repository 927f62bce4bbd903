"""A group's text with smaller volumes. The text is what vgcfgbackup of LVM 2.03.31 wrote in a lab guest, of a disk of
1.5 GiB with ``lvcreate -n home -L 40M``, ``lvcreate -n root -L 20M`` and ``lvextend -L +20M home`` behind it.
"""

from pathlib import Path

import msgspec
import pytest

from core.errors import RefusedError
from core.units import MIB
from images.model.stack import LogicalVolume, PhysicalVolume, VolumeGroup
from images.stack.lvm_text import Section, parse_group, parse_text, write_text
from restore.stack.lvm_smaller import smaller_group

TEXT = (Path(__file__).parent / "data" / "vgcfgbackup-linear.txt").read_text()
PARSED = parse_group(TEXT)


def recorded() -> VolumeGroup:
    (physical,) = PARSED.physical
    return VolumeGroup(
        id="vg0",
        uuid=PARSED.uuid,
        name=PARSED.name,
        extent_size=PARSED.extent_size,
        members=(
            PhysicalVolume(device="disk0", uuid=physical.uuid, size=physical.size, data_offset=physical.data_offset),
        ),
        volumes=tuple(
            LogicalVolume(id=f"vg0-{one.name}", name=one.name, uuid=one.uuid, size=one.size, segments=one.segments)
            for one in PARSED.logical
        ),
        backup=TEXT,
    )


def places(text: str) -> dict[str, list[tuple[int, int]]]:
    """By volume, the first extent on the physical volume and the count of each segment."""
    (section,) = parse_text(text).sections.values()
    found: dict[str, list[tuple[int, int]]] = {}
    for name, volume in section.sections["logical_volumes"].sections.items():
        assert volume.number("segment_count") == len(volume.sections)
        found[name] = [_place(segment) for segment in volume.sections.values()]
    return found


def _place(segment: Section) -> tuple[int, int]:
    stripes = segment.values["stripes"]
    assert isinstance(stripes, tuple) and isinstance(stripes[1], int)
    return stripes[1], segment.number("extent_count")


def test_the_recorded_group_is_what_the_commands_made() -> None:
    # home has 10 extents, root the 5 behind it, home 5 more.
    assert places(TEXT) == {"home": [(0, 10), (15, 5)], "root": [(10, 5)]}


def test_a_text_that_is_written_again_says_the_same() -> None:
    again = write_text(parse_text(TEXT))
    assert parse_group(again) == PARSED
    assert places(again) == places(TEXT)


def test_each_volume_is_one_piece_and_keeps_its_identity() -> None:
    group = recorded()
    made = smaller_group(group, 47 * MIB, {"vg0-home": 28 * MIB, "vg0-root": 16 * MIB})
    parsed = parse_group(made.backup)
    # 46 MiB behind the first MiB are 11 extents of 4 MiB: 7 and 4 behind each other.
    assert places(made.backup) == {"home": [(0, 7)], "root": [(7, 4)]}
    assert (parsed.name, parsed.uuid) == (PARSED.name, PARSED.uuid)
    assert [one.uuid for one in parsed.physical] == [one.uuid for one in PARSED.physical]
    assert {one.name: (one.uuid, one.size) for one in parsed.logical} == {
        one.name: (one.uuid, size * MIB) for one, size in zip(PARSED.logical, (28, 16), strict=True)
    }
    (physical,) = parsed.physical
    assert (physical.size, physical.data_offset) == (47 * MIB, MIB)
    assert "pe_count = 11" in made.backup
    assert [one.size for one in made.volumes] == [28 * MIB, 16 * MIB]
    assert made.members[0].size == 47 * MIB


def test_more_than_there_is_room_for_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"12 extents .* do not come to 11 extents"):
        smaller_group(recorded(), 47 * MIB, {"vg0-home": 32 * MIB, "vg0-root": 16 * MIB})


def test_a_group_without_volumes_has_no_section_for_them() -> None:
    # vgcfgbackup writes logical_volumes only where there are some (lib/format_text/export.c, _print_lvs).
    text = parse_text(TEXT)
    del text.sections[PARSED.name].sections["logical_volumes"]
    empty = msgspec.structs.replace(recorded(), volumes=(), backup=write_text(text))
    made = smaller_group(empty, 47 * MIB, {})
    (physical,) = parse_group(made.backup).physical
    assert (physical.size, parse_group(made.backup).logical) == (47 * MIB, ())
    assert "pe_count = 11" in made.backup
    with pytest.raises(RefusedError, match="logical volumes"):
        smaller_group(msgspec.structs.replace(recorded(), backup=write_text(text)), 47 * MIB, {})
