"""Degraded arrays: which members an array does without, and the layout in which those that are not restored are left
out of their arrays.

Pure: a layout and ids in, a layout and sentences out. That somebody wants it is said by whoever calls.
"""

import re
from collections.abc import Collection

import msgspec

from core.units import counted, format_size
from images.model.layout import Layout, devices_made_by
from images.model.stack import Array, ArrayMember, Container

#: RAID 10: near, far or offset copies, and how many (md(4), "RAID10").
_LAYOUT_10 = re.compile(r"[nfo](\d{1,3})")
#: How many devices parity replaces.
_PARITY = {4: 1, 5: 1, 6: 2}


class Degraded(msgspec.Struct, frozen=True):
    """The layout without the members that are not restored.

    Attributes:
        notes: a sentence for each array that lacks some.
        effects: the same in a few words, for each array that is another one than it was.
    """

    layout: Layout
    notes: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()


def without_members(layout: Layout, disks: Collection[str], dropped: Collection[str]) -> Degraded:
    """The layout with its arrays on what is restored alone, as far as their redundancy allows.

    Args:
        disks: that have a target. dropped: ids of partitions of these that are left out.
    """
    gone = set(dropped)
    for disk in layout.disks:
        if disk.id not in disks:
            gone |= {disk.id, *(part.id for part in (disk.table.partitions if disk.table else ()))}
    containers: list[Container] = []
    notes: list[str] = []
    effects: list[str] = []
    for container in layout.containers:
        absent = gone & set(container.member_ids)
        if len(absent) == len(container.member_ids):
            gone |= {container.id, *(device.id for device in devices_made_by(container, 512))}
        elif absent and isinstance(container, Array) and does_without(container, absent):
            kept = tuple(member for member in container.members if member.device not in absent)
            reduced = msgspec.structs.replace(container, members=kept)
            notes += _note(layout, container, reduced)
            effects.append(_effect(container, reduced))
            container = reduced
        containers.append(container)
    reduced_layout = msgspec.structs.replace(layout, containers=tuple(containers))
    return Degraded(reduced_layout, tuple(notes), tuple(effects))


def does_without(array: Array, absent: Collection[str]) -> bool:
    """Whether all that an array holds is there without these members, devices by their ids."""
    there = {member.slot for member in array.members if member.slot is not None and member.device not in absent}
    return _holds(array, there)


def offer(array: Array, absent: Collection[str]) -> str:
    """What can be done about members that are not restored: the end of a sentence that says they are not."""
    if does_without(array, absent):
        return " (--degraded makes it without)"
    return f", and RAID {array.level} of {counted(array.slots, 'device')} does not do without"


def redundant(array: Array) -> bool:
    """Whether an array loses nothing, whichever of its members fails next."""
    there = {member.slot for member in array.members if member.slot is not None}
    return all(_holds(array, there - {slot}) for slot in there)


def _holds(array: Array, there: Collection[int]) -> bool:
    """Whether the devices in these slots hold everything."""
    if array.level == 1:
        return bool(there)
    if array.level in _PARITY:
        return array.slots - len(there) <= _PARITY[array.level]
    if array.level == 10:
        return _holds_copies(array, there)
    return len(there) == array.slots


def _holds_copies(array: Array, there: Collection[int]) -> bool:
    """RAID 10: of every chunk one of its copies, which lie on devices that follow each other (md(4), "RAID10").

    Near copies of the chunks begin at multiples of their number, and go around; far ones and those of ``offset`` begin
    on every device.
    """
    found = _LAYOUT_10.fullmatch(array.layout)
    if found is None:
        return len(there) == array.slots
    copies = int(found[1])
    step = copies if array.layout.startswith("n") else 1
    # Once around for every place where the copies of a chunk can begin.
    starts = {number * step % array.slots for number in range(array.slots)}
    return all(any((start + copy) % array.slots in there for copy in range(copies)) for start in starts)


def _lost(was: Array, will: Array) -> list[ArrayMember]:
    """The members that an array lacks; none when they are spares, without which it is what it was."""
    lost = [member for member in was.members if member not in will.members]
    return lost if any(member.slot is not None for member in lost) else []


def _effect(was: Array, will: Array) -> str:
    """What comes of it, for whoever decides: ``host:0 comes back with NO redundancy``."""
    how = "without its spare" if not _lost(was, will) else "with less redundancy"
    return f"{was.name or was.id} comes back {how if redundant(will) else 'with NO redundancy'}"


def _note(layout: Layout, was: Array, will: Array) -> list[str]:
    """What people should know of an array that was made smaller by members, and how it gets them back."""
    lost = _lost(was, will)
    if not lost:
        return []
    sizes = ", ".join(f"{member.device}, {format_size(layout.device(member.device).size)}" for member in lost)
    state = "less redundancy" if redundant(will) else "NO redundancy"
    made = f"The array {was.name or was.id} is made without {counted(len(lost), 'member')} ({sizes}) and has {state}"
    if will.spares >= will.lacking:
        return [f"{made} until md, in the background, has filled {'its spare' if will.spares == 1 else 'spares'}."]
    name = was.name.rpartition(":")[2] or was.id
    return [
        f"{made} until others take their places: mdadm --manage /dev/md/{name} --add DEVICE, each at least as large."
    ]
