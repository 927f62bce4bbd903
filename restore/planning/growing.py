"""Growing: who in a stack takes the room that its lowest devices gain, by the rules or by itself.

Pure: a layout and rules in, names out. How much room there is, and the steps, are ``stack_steps.py``'s.
"""

from collections.abc import Mapping, Sequence

from images.model.filesystem import Filesystem
from images.model.layout import FilesystemKind, Layout
from images.model.stack import LogicalVolume, VolumeGroup
from restore.planning.abilities import GROWABLE
from restore.planning.rules import PartitionRule, Rule

#: Segment types that lvextend gives more extents of the same kind, as far as all their members have them.
_EXTENDABLE = frozenset({"linear", "striped"})

#: By id of a volume group: the name of the logical volume that a rule lets grow.
Chosen = Mapping[str, str]


def chosen_volumes(layout: Layout, rules: Sequence[PartitionRule]) -> tuple[Chosen, list[str]]:
    """The logical volumes that rules let grow, and every rule for one that cannot be followed."""
    chosen: dict[str, str] = {}
    reasons: list[str] = []
    groups = {group.name: group for group in layout.containers if isinstance(group, VolumeGroup)}
    for name in (rule.volume for rule in rules if rule.volume):
        group_name, _, volume_name = name.partition("/")
        group = groups.get(group_name)
        volume = next((found for found in group.volumes if found.name == volume_name), None) if group else None
        if group is None or volume is None:
            reasons.append(f"there is a rule for {name}, and no such logical volume is restored")
        elif not _extends(layout, volume):
            reasons.append(f"{name} cannot grow: {_why_not(layout, volume)}")
        elif group.id in chosen:
            reasons.append(f"{group_name}/{chosen[group.id]} and {name} are both to grow: one takes all the room")
        else:
            chosen[group.id] = volume.name
    return chosen, reasons


def growing_volume(layout: Layout, group: VolumeGroup, chosen: Chosen) -> LogicalVolume | None:
    """The volume of a group that takes the room: the chosen one, else the last that can; swap only when chosen."""
    found = [volume for volume in group.volumes if _extends(layout, volume)]
    if group.id in chosen:
        return next((volume for volume in found if volume.name == chosen[group.id]), None)
    unasked = [volume for volume in found if not _holds_swap(layout, volume.id, volume.filesystem)]
    return unasked[-1] if unasked else None


def growable_members(layout: Layout, chosen: Chosen) -> frozenset[str]:
    """The devices through which room gets to a filesystem that can grow."""
    return frozenset(
        member
        for container in layout.containers
        for member in container.member_ids
        if _takes_room(layout, member, chosen)
    )


def grows(filesystem: Filesystem | None) -> bool:
    """Whether it can grow."""
    return filesystem is not None and filesystem.kind in GROWABLE


def with_members(layout: Layout, rules: Sequence[PartitionRule], chosen: Chosen) -> tuple[PartitionRule, ...]:
    """The rules for partitions, with one to grow for each that a chosen volume lies on and no rule is about."""
    wanted = _below(layout, chosen)
    own = [rule for rule in rules if rule.partition]
    alone = len(layout.disks) == 1
    implied = [
        PartitionRule(partition=part.number, rule=Rule.GROW, disk=disk.id)
        for disk in layout.disks
        for part in (disk.table.partitions if disk.table else ())
        if part.id in wanted
        and not any(rule.partition == part.number and (rule.disk == disk.id or alone) for rule in own)
    ]
    return (*own, *implied)


def disks_that_grow(layout: Layout, chosen: Chosen, *, asked: bool) -> frozenset[str]:
    """Ids of the whole disks, without a table, whose new room goes up: those of a chosen volume, or all if asked."""
    able = growable_members(layout, chosen)
    wanted = able if asked else _below(layout, chosen) & able
    return frozenset(disk.id for disk in layout.disks if disk.table is None and disk.id in wanted)


def _below(layout: Layout, chosen: Chosen) -> frozenset[str]:
    """All devices that groups with a chosen volume lie on, down to partitions and disks."""
    found: set[str] = set()
    for container in reversed(layout.containers):
        if container.id in chosen or container.id in found:
            found.update(container.member_ids)
        if isinstance(container, VolumeGroup) and found & {volume.id for volume in container.volumes}:
            found.update(container.member_ids)
    return frozenset(found)


def _takes_room(layout: Layout, device: str, chosen: Chosen) -> bool:
    """Whether room that a device gains gets to a filesystem, through the container on it."""
    container = layout.container_on(device)
    if container is None:
        return False
    if isinstance(container, VolumeGroup):
        return growing_volume(layout, container, chosen) is not None
    return grows(container.filesystem) or _takes_room(layout, container.id, chosen)


def _extends(layout: Layout, volume: LogicalVolume) -> bool:
    if not set(volume.segments) <= _EXTENDABLE:
        return False
    return grows(volume.filesystem) or _takes_room(layout, volume.id, {})


def _why_not(layout: Layout, volume: LogicalVolume) -> str:
    if not set(volume.segments) <= _EXTENDABLE:
        return f"volumes of type {' and '.join(volume.segments)} are not extended"
    return "what lies on it cannot be grown by this version"


def _holds_swap(layout: Layout, device: str, filesystem: Filesystem | None) -> bool:
    """Whether a device is swap, as it is or inside an encrypted container."""
    above = layout.container_on(device)
    if above is not None and not isinstance(above, VolumeGroup):
        return _holds_swap(layout, above.id, above.filesystem)
    return filesystem is not None and filesystem.kind is FilesystemKind.SWAP
