"""How many copies of LVM's metadata a physical volume gets when it is made again: as it had, where there is room.

The first lies before the extents, a second one behind them (lvm2: lib/format_text/format-text.c). Pure: what pvcreate
is asked for; none of it is said of a volume that had one, as pvcreate makes it unasked.
"""

from images.model.stack import PhysicalVolume, VolumeGroup
from images.stack.lvm_text import parse_text

#: Bytes that pvcreate takes for a copy unless it is told otherwise, and to whose end it aligns.
_COPY = 1 << 20
_SECTOR = 512


def copies(group: VolumeGroup, member: PhysicalVolume, room: int) -> int:
    """The number of copies on one of a group's physical volumes, 0 to 2.

    Args:
        room: bytes of the device that it is made on.

    Raises:
        DamagedError: LVM's text of the group is none.
    """
    if member.metadata_areas < 2:
        return member.metadata_areas
    return 2 if room - _end(group, member) >= _COPY else 1


def _end(group: VolumeGroup, member: PhysicalVolume) -> int:
    """Where the extents end, bytes. A volume that the text does not have is full: there is no room behind it."""
    section = parse_text(group.backup).sections.get(group.name)
    physical = section.sections.get("physical_volumes") if section else None
    for found in physical.sections.values() if physical else ():
        if found.text("id") == member.uuid:
            return found.number("pe_start") * _SECTOR + found.number("pe_count") * group.extent_size
    return member.size
