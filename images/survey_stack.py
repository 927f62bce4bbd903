"""Following a source through its containers: from members on partitions to volumes on arrays, in LUKS and in LVM.

Decides what belongs together and what is kept of it; opening is the opener's, bytes are read by the readers. What
cannot be followed stays what it is, a volume captured whole, and the reason is said.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from core.errors import DamagedError
from images.filesystems.detect import Asked
from images.filesystems.used import UsedMap
from images.model.extents import Extent
from images.model.filesystem import Filesystem, MemberKind
from images.model.manifest import VolumeRole
from images.model.stack import Array, ArrayMember, Container, LogicalVolume, Luks, PhysicalVolume, VolumeGroup
from images.sources import FileSource, WindowSource
from images.stack.luks import read_header
from images.stack.lvm_label import Label, read_label
from images.stack.lvm_text import Group, parse_group
from images.stack.md import Superblock, read_superblock
from images.stack.opener import NotOpenedError, Opener
from images.stack.strangers import Strangers
from images.survey import VolumeSurvey, survey_used

#: What may be followed.
CONTAINERS = frozenset({MemberKind.LUKS, MemberKind.LVM, MemberKind.MD})
_LEVELS = frozenset({0, 1, 4, 5, 6, 10})
#: Bytes of a member before its container's first mark: md 1.2 stands at 4 KiB, LVM's label in the second sector.
_FRONT = {MemberKind.MD: 4096, MemberKind.LVM: 512}


class StackSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: containers bottom up, and every volume to capture, those of the disks among them."""

    containers: tuple[Container, ...]
    volumes: tuple[VolumeSurvey, ...]
    warnings: tuple[str, ...] = ()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A volume and the device node it is read from; empty when it has none."""

    volume: VolumeSurvey
    node: str

    @property
    def id(self) -> str:
        """Of the device."""
        return self.volume.partition or self.volume.disk


class _Member(msgspec.Struct, frozen=True):
    """A place that says it is an array's, with what it says."""

    place: Place
    says: Superblock


class Follower:
    """One walk from the places on the disks upwards.

    Args:
        places: every volume of the disks but their boot areas.
        opener: opens what is found, and closes it later than anything here is read.
        source: opens a device node for reading.
        strangers: knows the devices on other disks.
        ask: as for :func:`images.survey.survey_disk`.
    """

    def __init__(
        self,
        places: Sequence[Place],
        opener: Opener,
        source: Callable[[str], FileSource],
        strangers: Strangers,
        ask: Asked | None,
    ) -> None:
        self._places = {place.id: place for place in places}
        self._opener = opener
        self._source = source
        self._strangers = strangers
        self._ask = ask
        self._containers: list[Container] = []
        self._fronts: dict[str, int] = {}
        self._reasons: dict[str, str] = {}
        self._warnings: list[str] = []

    def follow(self) -> StackSurvey:
        """Everything that can be reached.

        Raises:
            RefusedError: an array or a group has members on disks that are not captured with it.
        """
        while self._open_luks() or self._open_groups() or self._open_arrays(degraded=False) or self._open_rest():
            pass
        taken = {member for container in self._containers for member in container.member_ids}
        filesystems = {place.id: place.volume.used.filesystem for place in self._places.values()}
        volumes = (self._volume(place, taken) for place in self._places.values())
        return StackSurvey(
            containers=tuple(_with_filesystems(found, filesystems, taken) for found in self._containers),
            volumes=tuple(volume for volume in volumes if volume is not None),
            warnings=tuple(self._warnings),
        )

    def _open(self, kind: MemberKind) -> list[Place]:
        """Members of a kind of container about which nothing is decided yet."""
        taken = {member for container in self._containers for member in container.member_ids}
        return [
            place
            for place in self._places.values()
            if place.volume.used.filesystem.detail == kind and place.id not in taken and place.id not in self._reasons
        ]

    def _leave(self, places: Sequence[Place], reason: str) -> None:
        for place in places:
            self._reasons[place.id] = reason

    def _made(self, container: Container, nodes: Mapping[str, str]) -> None:
        """A container is open: its devices, by id, are places of their own."""
        self._containers.append(container)
        for device, node in nodes.items():
            source = self._source(node)
            window = WindowSource(source, 0, source.size)
            used = survey_used(window, self._ask)
            volume = VolumeSurvey(
                id=device, disk=device, role=VolumeRole.DISK, partition="", offset=0, source=window, used=used
            )
            self._places[device] = Place(volume=volume, node=node)

    def _name(self, kind: type[Container], word: str) -> str:
        return f"{word}{sum(isinstance(container, kind) for container in self._containers)}"

    def _open_luks(self) -> bool:
        for place in self._open(MemberKind.LUKS):
            header = read_header(place.volume.source)
            if header is None or header.oddity:
                self._leave([place], header.oddity if header else "its LUKS header is damaged")
                continue
            try:
                node, mapping = self._opener.luks(header, place.node)
            except NotOpenedError as error:
                self._leave([place], error.message)
                continue
            container = Luks(
                id=self._name(Luks, "luks"),
                uuid=header.uuid,
                device=place.id,
                version=header.version,
                payload_offset=header.payload_offset,
                size=self._source(node).size,
                sector_size=header.sector_size,
                name=mapping,
                label=header.label,
            )
            self._fronts[place.id] = header.payload_offset
            self._made(container, {container.id: node})
            return True
        return False

    def _open_arrays(self, *, degraded: bool) -> bool:
        for members in self._arrays():
            newest = max(members, key=lambda member: member.says.events).says
            complete = sum(member.says.slot is not None for member in members) >= newest.slots
            places = [member.place for member in members]
            if newest.oddity or newest.level not in _LEVELS:
                self._leave(places, newest.oddity or f"liferaft does not make arrays of level {newest.level} again")
            elif complete or degraded:
                if not complete:
                    self._strangers.refuse_array(newest.uuid, [place.node for place in places])
                if self._open_array(members, newest, complete=complete):
                    return True
        return False

    def _open_array(self, members: Sequence[_Member], newest: Superblock, *, complete: bool) -> bool:
        places = [member.place for member in members]
        name = self._name(Array, "md")
        try:
            node = self._opener.array(name, newest.uuid, [place.node for place in places])
        except NotOpenedError as error:
            self._leave(places, error.message)
            return False
        if not complete:
            there = sum(member.says.slot is not None for member in members)
            self._warnings.append(f"the array {newest.name or newest.uuid} has {there} of its {newest.slots} devices")
        array = Array(
            id=name,
            uuid=newest.uuid,
            name=newest.name,
            level=newest.level,
            metadata=newest.metadata,
            slots=newest.slots,
            members=tuple(
                ArrayMember(device=member.place.id, slot=member.says.slot, data_offset=member.says.data_offset)
                for member in members
            ),
            size=self._source(node).size,
            chunk_size=newest.chunk_size,
            component_size=newest.component_size,
            layout=newest.layout,
            bitmap=newest.bitmap,
        )
        if newest.metadata == "1.2":
            self._fronts.update((place.id, _FRONT[MemberKind.MD]) for place in places)
        self._made(array, {name: node})
        return True

    def _arrays(self) -> list[list[_Member]]:
        """Members by array. Of two that claim one slot the newer is believed; the other is no member any more."""
        found: dict[str, dict[object, _Member]] = {}
        for place in self._open(MemberKind.MD):
            says = read_superblock(place.volume.source)
            if says is None or says.faulty:
                self._leave([place], "the array does without it" if says else "liferaft does not read its superblock")
                continue
            slot = place.id if says.slot is None else says.slot
            rival = found.setdefault(says.uuid, {}).get(slot)
            if rival is not None and rival.says.events >= says.events:
                self._leave([place], "another device took its place in the array")
                continue
            if rival is not None:
                self._leave([rival.place], "another device took its place in the array")
            found[says.uuid][slot] = _Member(place, says)
        return [list(members.values()) for members in found.values()]

    def _open_groups(self) -> bool:
        labels = self._labels()
        for group, text in _newest_groups(labels.values()):
            there = {uuid: found for uuid, found in labels.items() if uuid in _uuids(group)}
            if len(there) == len(group.physical) and self._open_group(group, text, there):
                return True
        return False

    def _labels(self) -> dict[str, tuple[Place, Label]]:
        """The physical volumes about which nothing is decided, by their UUIDs."""
        labels: dict[str, tuple[Place, Label]] = {}
        for place in self._open(MemberKind.LVM):
            label = read_label(place.volume.source)
            if label is None or label.uuid in labels:
                self._leave([place], "its LVM label is damaged" if label is None else "another volume has its UUID")
                continue
            labels[label.uuid] = place, label
        return labels

    def _open_group(self, group: Group, text: str, there: Mapping[str, tuple[Place, Label]]) -> bool:
        name = self._name(VolumeGroup, "lvm")
        places = [place for place, _ in there.values()]
        try:
            if group.oddity:
                raise NotOpenedError(group.oddity)
            nodes = self._opener.group(group, [place.node for place in places])
            _check_sizes(group, {volume: self._source(node).size for volume, node in nodes.items()})
        except NotOpenedError as error:
            self._leave(places, error.message)
            return False
        volumes = tuple(
            LogicalVolume(
                id=f"{name}-{volume.name}",
                name=volume.name,
                uuid=volume.uuid,
                size=volume.size,
                segments=volume.segments,
                pool=volume.pool,
                active=volume.name in nodes,
            )
            for volume in group.logical
            if volume.visible
        )
        container = VolumeGroup(
            id=name,
            uuid=group.uuid,
            name=group.name,
            extent_size=group.extent_size,
            members=tuple(
                PhysicalVolume(
                    device=there[volume.uuid][0].id,
                    uuid=volume.uuid,
                    size=volume.size,
                    data_offset=volume.data_offset,
                    metadata_areas=there[volume.uuid][1].metadata_areas,
                )
                for volume in group.physical
            ),
            volumes=volumes,
            backup=text,
        )
        self._fronts.update((place.id, _FRONT[MemberKind.LVM]) for place in places)
        self._made(container, {volume.id: nodes[volume.name] for volume in volumes if volume.active})
        return True

    def _open_rest(self) -> bool:
        """Nothing is complete any more: arrays that lack members, and groups that cannot be opened without theirs."""
        if self._open_arrays(degraded=True):
            return True
        labels = self._labels()
        for group, _ in _newest_groups(labels.values()):
            there = {uuid: place for uuid, (place, _) in labels.items() if uuid in _uuids(group)}
            lacking = _uuids(group) - set(there)
            self._strangers.refuse_group(group.name, lacking, [place.node for place in there.values()])
            self._leave(list(there.values()), f"the group {group.name} lacks {len(lacking)} physical volumes")
        self._leave([place for place, _ in self._labels().values()], "it belongs to no volume group that is there")
        return False

    def _volume(self, place: Place, taken: set[str]) -> VolumeSurvey | None:
        """What is captured of a place: all its own, with a reason it may have got; of a member only its beginning."""
        volume = place.volume
        if place.id not in taken:
            reason = self._reasons.get(place.id)
            used = msgspec.structs.replace(volume.used, reason=reason) if reason else volume.used
            return msgspec.structs.replace(volume, used=used)
        size = self._fronts.get(place.id, 0)
        front = volume.source.read_at(0, size)
        if not front.strip(b"\0"):
            return None
        used = UsedMap(
            filesystem=volume.used.filesystem, trusted=True, extents=lambda: iter((Extent(0, size),)), reason=""
        )
        return msgspec.structs.replace(volume, source=WindowSource(volume.source, 0, size), used=used)


def _newest_groups(labels: Collection[tuple[Place, Label]]) -> list[tuple[Group, str]]:
    """The groups that physical volumes speak of, each from its newest text; texts that are none are left out."""
    found: dict[str, tuple[Group, str]] = {}
    for text in {text: None for _, label in labels for text in label.texts}:
        try:
            group = parse_group(text)
        except DamagedError:
            # Its volumes belong to no group that is there, then, and are captured whole.
            continue
        if group.uuid not in found or found[group.uuid][0].sequence < group.sequence:
            found[group.uuid] = group, text
    return list(found.values())


def _with_filesystems(container: Container, found: Mapping[str, Filesystem], taken: set[str]) -> Container:
    """The container with what lies on its devices, where that is no container."""
    known = {device: filesystem for device, filesystem in found.items() if device not in taken}
    if isinstance(container, Array | Luks):
        return msgspec.structs.replace(container, filesystem=known.get(container.id))
    volumes = tuple(msgspec.structs.replace(volume, filesystem=known.get(volume.id)) for volume in container.volumes)
    return msgspec.structs.replace(container, volumes=volumes)


def _uuids(group: Group) -> frozenset[str]:
    return frozenset(volume.uuid for volume in group.physical)


def _check_sizes(group: Group, found: Mapping[str, int]) -> None:
    for volume in group.logical:
        if volume.name in found and found[volume.name] != volume.size:
            raise NotOpenedError(f"{volume.name} has {found[volume.name]} bytes, and LVM says {volume.size}")
