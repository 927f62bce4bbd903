"""Filesystems on devices of the stack, as a system's fstab names them, and the kernel modules below each.

Names are computed from the layout, not looked up: the same that udev's, LVM's and mdadm's own rules give.
"""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from images.model.filesystem import Filesystem
from images.model.layout import Layout, devices_of_disk
from images.model.stack import Array, Container, Luks, VolumeGroup

#: md's modules by level (kernel, drivers/md/Makefile).
_LEVELS = {0: "raid0", 1: "raid1", 4: "raid456", 5: "raid456", 6: "raid456", 10: "raid10"}


class StackDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device of the stack that holds a filesystem.

    Attributes:
        id: in the layout.
        names: device paths under which an fstab may name it.
        modules: kernel modules that it takes, all layers below included, by their names with ``_``.
        disks: ids of the disks below all layers, in the order of the layout.
    """

    id: str
    filesystem: Filesystem
    names: tuple[str, ...]
    modules: frozenset[str]
    disks: tuple[str, ...] = ()


class OpenedLuks(msgspec.Struct, frozen=True):
    """A LUKS container that is open. ``node``: of its mapping; ``device``: the node of what it lies on."""

    luks: Luks
    node: str
    device: str


class ListedVolume(msgspec.Struct, frozen=True):
    """A physical volume that is there. ``pvid``: its UUID as LVM's list of devices has it, without dashes."""

    pvid: str
    node: str


def physical_volumes(layout: Layout, nodes: Mapping[str, str], below: Callable[[str], str]) -> tuple[ListedVolume, ...]:
    """The physical volumes of the groups that are active.

    Args:
        nodes: device nodes by device id, of what is alive. below: the node of any device, disks and partitions too.
    """
    groups = (container for container in layout.containers if isinstance(container, VolumeGroup))
    return tuple(
        ListedVolume(member.uuid.replace("-", ""), below(member.device))
        for group in groups
        if any(volume.id in nodes for volume in group.volumes)
        for member in group.members
    )


def opened_luks(layout: Layout, nodes: Mapping[str, str], below: Callable[[str], str]) -> tuple[OpenedLuks, ...]:
    """The containers that are open.

    Args:
        nodes: device nodes by device id, of what is alive. below: the node of any device, disks and partitions too.
    """
    return tuple(
        OpenedLuks(container, nodes[container.id], below(container.device))
        for container in layout.containers
        if isinstance(container, Luks) and container.id in nodes
    )


def stack_devices(layout: Layout, nodes: Mapping[str, str]) -> dict[str, StackDevice]:
    """The devices of the stack that hold a filesystem and are alive, by their nodes.

    Args:
        nodes: device nodes by device id.
    """
    found: dict[str, StackDevice] = {}
    for container in layout.containers:
        for device, filesystem, names in _devices(container):
            if filesystem is not None and device in nodes:
                found[nodes[device]] = StackDevice(
                    id=device,
                    filesystem=filesystem,
                    names=names,
                    modules=modules_below(layout, device),
                    disks=disks_below(layout, device),
                )
    return found


def disks_below(layout: Layout, device: str) -> tuple[str, ...]:
    """Ids of the disks on which a device lies, through all layers, in the order of the layout."""
    waiting, seen = [device], set[str]()
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        for container in layout.containers:
            if here in {name for name, _, _ in _devices(container)}:
                waiting += container.member_ids
    return tuple(disk.id for disk in layout.disks if seen & {found.id for found in devices_of_disk(disk)})


def modules_below(layout: Layout, device: str) -> frozenset[str]:
    """The kernel modules of the container that makes a device, and of all below it; none for a partition."""
    container = next((made for made in layout.containers if device in {name for name, _, _ in _devices(made)}), None)
    if container is None:
        return frozenset()
    below: frozenset[str] = frozenset().union(*(modules_below(layout, member) for member in container.member_ids))
    return below | modules_of(container, device)


def modules_of(container: Container, device: str = "") -> frozenset[str]:
    """The kernel modules of one container: of one device that it makes, or of all."""
    if isinstance(container, Array):
        return frozenset({"md_mod", _LEVELS[container.level]} if container.level in _LEVELS else {"md_mod"})
    if isinstance(container, Luks):
        return frozenset({"dm_mod", "dm_crypt"})
    thin = any("thin" in volume.segments for volume in container.volumes if device in ("", volume.id))
    return frozenset({"dm_mod", "dm_thin_pool"} if thin else {"dm_mod"})


def _devices(container: Container) -> Iterator[tuple[str, Filesystem | None, tuple[str, ...]]]:
    """The devices a container makes: id, filesystem, names."""
    if isinstance(container, Array):
        name = container.name.rpartition(":")[2]
        names = (f"/dev/md/{name}", f"/dev/md{name}") if name.isdigit() else (f"/dev/md/{name}",)
        yield container.id, container.filesystem, names if name else ()
    elif isinstance(container, Luks):
        yield container.id, container.filesystem, (f"/dev/mapper/{container.name}",) if container.name else ()
    else:
        for volume in container.volumes:
            # device-mapper names double the hyphens of their parts (lvm(8), "VALID NAMES").
            mapped = "-".join(part.replace("-", "--") for part in (container.name, volume.name))
            yield volume.id, volume.filesystem, (f"/dev/mapper/{mapped}", f"/dev/{container.name}/{volume.name}")
