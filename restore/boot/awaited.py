"""What a restored system waits for at its start and does not get: lines of its fstab and crypttab that name something
which was not restored.

systemd waits 90 seconds for each such device (systemd.mount(5), ``x-systemd.device-timeout=``). A filesystem that then
is not there fails ``local-fs.target``, and the start ends in emergency mode, before any login; swap, an encrypted
container and what is mounted by network cost the wait alone. ``nofail`` and ``noauto`` say that nobody waits, and so
does ``x-systemd.automount`` (systemd-fstab-generator(8)).

Pure: text and layouts in, sentences out. No file is changed: the fstab is the owner's, and a filesystem that is absent
by mistake had better be missed.
"""

from collections.abc import Iterator

import msgspec

from images.crypttab import CrypttabLine, parse_crypttab
from images.fstab import FstabLine, Tag, named, parse_fstab, parse_swaps
from images.model.layout import Device, Disk, Layout, devices_made_by, devices_of_disk
from images.model.stack import Array, Container, Luks
from images.stack.nodes import stable_nodes
from restore.boot.held import partuuid
from restore.planning.abilities import MOVABLE_CONTAINERS

#: Options with which nobody waits.
_SPARED = frozenset({"nofail", "noauto", "x-systemd.automount"})
#: Devices by the identity of the disk, or by its place in the machine (udev, 60-persistent-storage.rules).
_BY_DISK = ("/dev/disk/by-id/", "/dev/disk/by-path/", "/dev/disk/by-diskseq/")

#: By what something is named, and the name, letters' case evened out where it means nothing.
Name = tuple[Tag, str]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the volumes that a system may name.

    Attributes:
        here: names of what is restored. left: of what the recovery point has beside that.
        closed: something is restored that has not been looked into; what is named may lie in it.
    """

    here: frozenset[Name] = frozenset()
    left: frozenset[Name] = frozenset()
    closed: bool = False


class Unmet(msgspec.Struct, frozen=True, kw_only=True):
    """A line that waits for what was not restored.

    Attributes:
        file: its path in the system; number: of the line.
        place: where it mounts; empty for swap and containers. does: what it does, for people.
        spec: what it names, in its own words; name: the same, evened out.
        stops: the start ends without it, and does not go on after the wait.
        left: it names a part of the recovery point that is left out; else nobody knows it.
    """

    file: str
    number: int
    place: str = ""
    does: str
    spec: str
    name: Name
    stops: bool = False
    left: bool

    @property
    def by_disk(self) -> bool:
        """It names a disk by its serial number or by its place in the machine: nothing in a layout can answer."""
        return self.spec.startswith(_BY_DISK)

    def text(self, system: str = "the restored system") -> str:
        """For people: what is the matter and what can be done, a sentence without its ends."""
        why = "this recovery point does not have" if not self.by_disk else "is called after its disk"
        why = "is not restored" if self.left else why
        then = "then stops in emergency mode, before any login" if self.stops else "then goes on without it"
        remedy = "restore that part, too, or add nofail" if self.left else "add nofail"
        remedy = "name it by its UUID, or add nofail" if self.by_disk else remedy
        return (
            f"line {self.number} of {self.file} of {system} {self.does} ({self.spec}), which {why}: a start that does "
            f"not find it waits 90 seconds and {then}; {remedy} to the options of that line"
        )


def known(whole: Layout, disks: tuple[Disk, ...], containers: tuple[Container, ...]) -> Known:
    """What a restore brings back, and what not.

    Args:
        whole: the layout of the recovery point. disks, containers: as they will be, of those that are restored.
    """
    here = msgspec.structs.replace(whole, disks=disks, containers=containers)
    names = frozenset(_names(here))
    return Known(here=names, left=frozenset(_names(whole)) - names, closed=_is_closed(here))


def unmet(fstab: str, crypttab: str, has: Known) -> tuple[Unmet, ...]:
    """The lines of a system's files that wait for what was not restored, those of fstab first.

    What has a passing name (/dev/sdb1) may be anything on another machine, and is none of them. So is the root: a
    system is looked for where that is.
    """
    containers = parse_crypttab(crypttab)
    # A recovery point may have only the outside of what the system opens by itself.
    here = {(Tag.DEVICE, line.node) for line in containers if not _is_lacking(line.spec, has)}
    left = {(Tag.DEVICE, line.node) for line in containers if _name(line.spec) in has.left}
    has = msgspec.structs.replace(has, here=has.here | here, left=has.left - here | left)
    mounts = (line for line in parse_fstab(fstab) if line.place != "/")
    found = [_of_fstab(line, has) for line in (*mounts, *parse_swaps(fstab)) if _is_awaited(line, has)]
    return (*found, *(_of_crypttab(line, has) for line in containers if _is_awaited(line, has)))


def _of_fstab(line: FstabLine, has: Known) -> Unmet:
    return Unmet(
        file="/etc/fstab",
        number=line.number,
        place=line.place,
        does=f"mounts {line.place}" if line.place else "uses swap",
        spec=line.spec,
        name=_name(line.spec),
        stops=bool(line.place) and "_netdev" not in line.options,
        left=_name(line.spec) in has.left,
    )


def _of_crypttab(line: CrypttabLine, has: Known) -> Unmet:
    return Unmet(
        file="/etc/crypttab",
        number=line.number,
        does=f"opens {line.name}",
        spec=line.spec,
        name=_name(line.spec),
        left=_name(line.spec) in has.left,
    )


def _is_awaited(line: FstabLine | CrypttabLine, has: Known) -> bool:
    return _SPARED.isdisjoint(line.options) and _is_lacking(line.spec, has)


def _is_lacking(spec: str, has: Known) -> bool:
    """Whether what a line names lasts, and was not restored."""
    name = _name(spec)
    if name in has.left:
        return True
    if name in has.here or has.closed or named(spec)[0] is None:
        return False
    # Below /dev itself, names are given out anew at each start; in its folders they mean something.
    return name[0] is not Tag.DEVICE or spec.count("/") > 2


def _name(spec: str) -> Name:
    tag, value = named(spec)
    same = tag in (Tag.UUID, Tag.PARTUUID)
    return tag or Tag.DEVICE, value.lower() if same else value


def _names(layout: Layout) -> Iterator[Name]:
    """All names that the volumes of a layout have, whatever lies on them."""
    for filesystem in (device.filesystem for device in _devices(layout) if device.filesystem is not None):
        yield from ((Tag.UUID, filesystem.uuid.lower()), (Tag.LABEL, filesystem.label))
    for table in (disk.table for disk in layout.disks if disk.table is not None):
        for part in table.partitions:
            yield from ((Tag.PARTUUID, partuuid(table, part).lower()), (Tag.PARTLABEL, part.name))
    for container in layout.containers:
        if isinstance(container, Luks):
            yield from ((Tag.UUID, container.uuid.lower()), (Tag.LABEL, container.label))
        elif isinstance(container, Array) and (name := container.name.rpartition(":")[2]).isdigit():
            yield Tag.DEVICE, f"/dev/md{name}"
    yield from ((Tag.DEVICE, node) for node in stable_nodes(layout))


def _devices(layout: Layout) -> Iterator[Device]:
    """Disks, partitions, and what containers make."""
    for disk in layout.disks:
        yield from devices_of_disk(disk)
    for container in layout.containers:
        yield from devices_made_by(container, 512)


def _is_closed(layout: Layout) -> bool:
    """Whether something of it is a container, or a member of one, that was kept as it lies."""
    followed = {member for container in layout.containers for member in container.member_ids}
    return any(
        device.filesystem is not None and device.filesystem.detail in MOVABLE_CONTAINERS and device.id not in followed
        for device in _devices(layout)
    )
