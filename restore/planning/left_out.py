"""What is left out with partitions: the containers that lie on them alone, and all that lies on those.

Pure: a layout and ids in, ids and sentences out. What is left out with a whole disk is ``stack_steps.py``'s.
"""

from collections.abc import Collection, Sequence

import msgspec

from images.model.layout import Disk, Layout, devices_made_by
from images.model.stack import Array, Container, Luks, VolumeGroup
from restore.planning.degraded import offer
from restore.planning.rules import PartitionRule, Rule


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """What goes with partitions that are left out.

    Attributes:
        containers: ids of those that lie on them, and on disks without a target, alone.
        devices: ids of what these containers made.
        notes: a sentence for each of the containers that a partition took with it.
        reasons: containers that would be left with a part of their members; the rest is then not to be used.
    """

    containers: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


def dropped_partitions(disk: Disk, rules: Sequence[PartitionRule]) -> frozenset[str]:
    """Ids of the partitions of a disk that rules leave out.

    Args:
        rules: those that are about this disk.
    """
    numbers = {rule.partition for rule in rules if rule.rule is Rule.DROP}
    return frozenset(part.id for part in (disk.table.partitions if disk.table else ()) if part.number in numbers)


def left_out(layout: Layout, disks: Collection[str], dropped: Collection[str]) -> LeftOut:
    """What is left out of a layout.

    Args:
        disks: that have a target; what lies across these and others is not this module's to tell.
        dropped: ids of partitions of these disks.
    """
    absent = {
        name
        for disk in layout.disks
        if disk.id not in disks
        for name in (disk.id, *(part.id for part in (disk.table.partitions if disk.table else ())))
    }
    #: By device that is not there, the partitions that took it away; none where its disks have no target.
    gone: dict[str, frozenset[str]] = {name: frozenset() for name in absent}
    gone |= {name: frozenset({name}) for name in dropped}
    across = set(absent)
    containers: list[Container] = []
    notes: list[str] = []
    reasons: list[str] = []
    for container in layout.containers:
        made = {container.id, *(device.id for device in devices_made_by(container, 512))}
        members = set(container.member_ids)
        if members & across:
            across |= made
        causes = frozenset[str]().union(*(gone[member] for member in members & set(gone)))
        if members <= set(gone):
            containers.append(container)
            gone |= dict.fromkeys(made, causes)
            notes += [f"{_note(container)} is left out with {_named(causes)}{_lost(container)}."] if causes else []
        elif causes and not members & across:
            stays = _named(members - set(gone))
            other = offer(container, members & set(gone)) if isinstance(container, Array) else ""
            reasons.append(
                f"{container_name(container)} lies on {stays} too, which is restored, while {_named(causes)} is left "
                f"out: leave out all that it lies on, or nothing{other}"
            )
    return LeftOut(
        containers=frozenset(container.id for container in containers),
        devices=frozenset(
            device for container in containers for device in (one.id for one in devices_made_by(container, 512))
        ),
        notes=tuple(notes),
        reasons=tuple(reasons),
    )


def container_name(container: Container) -> str:
    """A container as people know it."""
    if isinstance(container, Array):
        return f"the array {container.name or container.id}"
    if isinstance(container, Luks):
        return f"the LUKS container {container.label or container.name or container.id}"
    return f"the volume group {container.name}"


def _note(container: Container) -> str:
    name = container_name(container)
    return name[0].upper() + name[1:]


def _named(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


def _lost(container: Container) -> str:
    """What people miss with it."""
    if not isinstance(container, VolumeGroup) or not container.volumes:
        return ": its content is not restored"
    return f": {_named([volume.name for volume in container.volumes])} of it are not restored"
