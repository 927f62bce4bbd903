"""Drafts: what would become of each partition and logical volume, for a person who still decides. Nothing is planned,
only placed.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from core.units import align_down
from images.model.filesystem import MemberKind
from images.model.layout import FilesystemKind, Layout, Partition, PartitionRole
from images.model.machine import Occupant
from images.model.stack import Array, Container, LogicalVolume, Luks, VolumeGroup
from restore.planning.left_out import container_name
from restore.planning.placement import Placement, Placing, room_of
from restore.planning.seat import Means, Seat
from restore.planning.stack_steps import stack_sizes
from restore.target.occupants import occupants_of_disk, occupants_of_table

#: What a member of each kind of container is called.
_MEMBERS: dict[type[Container], str] = {Array: MemberKind.MD, Luks: MemberKind.LUKS, VolumeGroup: MemberKind.LVM}
_MEANS = {
    Means.SHRINK: "made smaller",
    Means.REMAKE: "made anew, files copied",
    Means.EMPTY: "",
    Means.STREAM: "",
}


class PartitionDraft(msgspec.Struct, frozen=True, kw_only=True):
    """One partition. Bytes.

    Attributes:
        was: on the captured disk. will: on the target; None when it is left out, or nothing fits.
        fate: what becomes of it, in a few words.
        follows: it is an extended partition: it is as large as those in it need.
    """

    was: Occupant
    will: Occupant | None
    fate: str = ""
    follows: bool = False


class DiskDraft(msgspec.Struct, frozen=True, kw_only=True):
    """One disk. Bytes.

    Attributes:
        disk: its id. size: as it was captured.
        node: of the target; target_size.
        partitions: in order of their places on the captured disk; none for a disk without a table.
        becomes: what lies where on the target; nothing when it does not fit.
    """

    disk: str
    size: int
    node: str
    target_size: int
    partitions: tuple[PartitionDraft, ...]
    becomes: tuple[Occupant, ...]

    @property
    def held(self) -> tuple[Occupant, ...]:
        """What lay where on the captured disk."""
        return tuple(part.was for part in self.partitions)


class VolumeDraft(msgspec.Struct, frozen=True, kw_only=True):
    """One logical volume. Bytes.

    Attributes:
        name: ``group/volume``, as rules name it.
        kind: of what lies on it, as in Occupant.
        size: as it was captured. new_size: as it will be; 0 when it is left out, or nothing fits.
        fate: what becomes of it, in a few words.
        inside: it lies in another volume of its group, a thin pool.
    """

    name: str
    kind: str
    size: int
    new_size: int
    fate: str = ""
    inside: bool = False


class GroupDraft(msgspec.Struct, frozen=True, kw_only=True):
    """One volume group. Bytes.

    Attributes:
        on: what it lies on, for people.
        size: its room for volumes as it was captured. new_size: as it will be; 0 when it is left out, or nothing fits.
        volumes: in the order of the recovery point.
    """

    name: str
    on: str
    size: int
    new_size: int
    volumes: tuple[VolumeDraft, ...]

    @property
    def held(self) -> tuple[Occupant, ...]:
        """Its volumes as they were, one behind the other: for a map, LVM puts extents where it likes."""
        return self._drawn([volume.size for volume in self.volumes])

    @property
    def becomes(self) -> tuple[Occupant, ...]:
        """The same as they will be."""
        return self._drawn([volume.new_size for volume in self.volumes])

    def _drawn(self, sizes: Sequence[int]) -> tuple[Occupant, ...]:
        drawn: list[Occupant] = []
        end = 0
        for number, (volume, size) in enumerate(zip(self.volumes, sizes, strict=True), 1):
            if size and not volume.inside:
                drawn.append(Occupant(number=number, offset=end, size=size, kind=volume.kind))
                end += size
        return tuple(drawn)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """All disks and volume groups, every reason why it cannot be so, and what the person should know.

    Attributes:
        degradable: a few words for each array that comes back, or could, without members that are left out.
    """

    disks: tuple[DiskDraft, ...]
    groups: tuple[GroupDraft, ...] = ()
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    degradable: tuple[str, ...] = ()


def draft(placement: Placement) -> Draft:
    """The draft of a placement."""
    return Draft(
        disks=tuple(_disk(placing) for placing in placement.placings),
        groups=tuple(_groups(placement)),
        reasons=placement.reasons,
        notes=tuple(note for placing in placement.placings for note in placing.fit.notes),
        degradable=placement.degradable,
    )


def _disk(placing: Placing) -> DiskDraft:
    disk, candidate, fitted = placing.disk, placing.candidate, placing.fit
    becomes = occupants_of_table(fitted.table, candidate.sector_size) if fitted.table is not None else ()
    made = {occupant.id: occupant for occupant in becomes}
    seats = {seat.source.id: seat for seat in fitted.seats}
    sources = {part.id: part for part in (disk.table.partitions if disk.table else ())}
    return DiskDraft(
        disk=disk.id,
        size=disk.size,
        node=candidate.node,
        target_size=candidate.size,
        partitions=tuple(
            _partition(was, made.get(was.id), sources[was.id], seats.get(was.id), fits=not fitted.reasons)
            for was in occupants_of_disk(disk)
            if was.id in sources
        ),
        becomes=becomes,
    )


def _partition(
    was: Occupant, will: Occupant | None, source: Partition, seat: Seat | None, *, fits: bool
) -> PartitionDraft:
    words: list[str] = []
    if seat is None or will is None:
        words += ["left out"] if fits else []
    else:
        words += [_MEANS[seat.means]] if _MEANS[seat.means] else []
        words += ["grown"] if seat.grow else []
        words += ["moved"] if will.offset != was.offset else []
    return PartitionDraft(was=was, will=will, fate=", ".join(words), follows=source.role is PartitionRole.EXTENDED)


def _groups(placement: Placement) -> Iterator[GroupDraft]:
    """The volume groups on the disks that are restored; of those that are left out nothing remains."""
    layout = placement.layout
    sizes: Mapping[str, int] = {}
    kept = placement.manifest.layout
    if not placement.reasons:
        fits = [placing.fit for placing in placement.placings]
        sectors = [placing.candidate.sector_size for placing in placement.placings]
        sizes = stack_sizes(kept, fits, sectors, room_of(placement, kept))
    for container in layout.containers:
        if isinstance(container, VolumeGroup):
            yield _group(layout, container, sizes if container in kept.containers else {})


def _group(layout: Layout, group: VolumeGroup, sizes: Mapping[str, int]) -> GroupDraft:
    """``sizes``: of devices as they will be; empty when the group is left out, or nothing fits."""
    was = {device.id: device.size for device in layout.devices()}
    return GroupDraft(
        name=group.name,
        on=", ".join(_shown(layout, member) for member in group.member_ids),
        size=_room(group, was),
        new_size=_room(group, sizes) if sizes else 0,
        volumes=tuple(_volume(layout, group, volume, sizes.get(volume.id, 0)) for volume in group.volumes),
    )


def _volume(layout: Layout, group: VolumeGroup, volume: LogicalVolume, new_size: int) -> VolumeDraft:
    changed = new_size - volume.size if new_size else 0
    return VolumeDraft(
        name=f"{group.name}/{volume.name}",
        kind=_held(layout, volume),
        size=volume.size,
        new_size=new_size,
        fate="grown" if changed > 0 else "made smaller" if changed < 0 else "",
        inside=bool(volume.pool),
    )


def _held(layout: Layout, volume: LogicalVolume) -> str:
    """What lies on a volume, as libblkid or LVM calls it; empty when nothing is known."""
    filesystem = volume.filesystem
    above = layout.container_on(volume.id)
    if above is not None:
        return _MEMBERS[type(above)]
    if filesystem is None:
        return "" if volume.active else next(iter(volume.segments), "")
    name = "" if filesystem.kind is FilesystemKind.UNKNOWN else filesystem.kind.value
    return filesystem.detail or name


def _room(group: VolumeGroup, sizes: Mapping[str, int]) -> int:
    """Bytes of a group's extents, when its members have these sizes."""
    ends = ((sizes[member.device], member.data_offset) for member in group.members)
    return sum(align_down(max(end - start, 0), group.extent_size) for end, start in ends)


def _shown(layout: Layout, device: str) -> str:
    """A device as people know it."""
    for disk in layout.disks:
        for part in disk.table.partitions if disk.table else ():
            if part.id == device:
                return f"partition {part.number} of {disk.id}"
    container = next((found for found in layout.containers if found.id == device), None)
    return container_name(container) if container is not None else device
