"""A volume group with smaller volumes on a smaller physical volume, as LVM's own text of it: pure.

Every UUID and name stays. Each volume becomes one linear segment, one behind the other in the order in which they lay:
what they hold is streamed anew, so that where it lay does not matter.
"""

from collections.abc import Mapping

import msgspec

from core.errors import RefusedError
from images.model.stack import VolumeGroup
from images.stack.lvm_text import Section, parse_text, write_text

_SECTOR = 512


def smaller_group(group: VolumeGroup, room: int, sizes: Mapping[str, int]) -> VolumeGroup:
    """A group of linear volumes on one physical volume, for less room.

    Args:
        room: bytes of the device of its physical volume.
        sizes: of its volumes by their ids, whole extents, bytes.

    Raises:
        RefusedError: the volumes do not have room, or the text does not say of them what the group does.
        DamagedError: the text is none of LVM's.
    """
    text = parse_text(group.backup)
    section = text.sections.get(group.name)
    physical = section.sections.get("physical_volumes") if section else None
    logical = section.sections.get("logical_volumes") if section else None
    if logical is None and not group.volumes:
        # An empty group has no such section (LVM2: lib/format_text/export.c, _print_lvs).
        logical = Section()
    if physical is None or logical is None or len(physical.sections) != 1:
        raise RefusedError(f"LVM's text of group {group.name} does not have one physical volume and logical volumes.")
    ((member, described),) = physical.sections.items()
    extents = (room - described.number("pe_start") * _SECTOR) // group.extent_size
    described.values |= {"dev_size": room // _SECTOR, "pe_count": extents}
    wanted = {volume.name: sizes[volume.id] // group.extent_size for volume in group.volumes}
    if set(wanted) != set(logical.sections) or sum(wanted.values()) > extents:
        raise RefusedError(
            f"Group {group.name}: {sum(wanted.values())} extents of the volumes {', '.join(wanted)} do not come to "
            f"{extents} extents and the volumes {', '.join(logical.sections)} of LVM's text."
        )
    at = 0
    for name in sorted(wanted, key=lambda name: _first_extent(logical.sections[name])):
        _lay(logical.sections[name], member, at, wanted[name])
        at += wanted[name]
    (pv,) = group.members
    return msgspec.structs.replace(
        group,
        members=(msgspec.structs.replace(pv, size=room),),
        volumes=tuple(msgspec.structs.replace(volume, size=sizes[volume.id]) for volume in group.volumes),
        backup=write_text(text),
    )


def _first_extent(volume: Section) -> int:
    """Where a volume begins on its physical volume."""
    segments = sorted(volume.sections.values(), key=lambda found: found.number("start_extent"))
    stripes = segments[0].values.get("stripes", ()) if segments else ()
    place = stripes[1] if isinstance(stripes, tuple) and len(stripes) == 2 else 0
    return place if isinstance(place, int) else 0


def _lay(volume: Section, member: str, at: int, count: int) -> None:
    """One segment from extent ``at`` on."""
    segment = Section()
    segment.values = {
        "start_extent": 0,
        "extent_count": count,
        "type": "striped",
        "stripe_count": 1,
        "stripes": (member, at),
    }
    volume.sections = {"segment1": segment}
    volume.values["segment_count"] = 1
