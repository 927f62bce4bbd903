"""Whether the containers of a layout make sense: ids, order, sizes, and names that may be handed to LVM's, md's and
cryptsetup's own tools.

A layout is untrusted input, and its names end in the arguments and paths of programs that run as root.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import chain

from images.model.layout import Device, Layout, PartitionRole, devices_made_by, devices_of_disk
from images.model.stack import Array, Container, Luks, VolumeGroup

_SIZE_LIMIT = 1 << 62
_SECTOR_SIZES = frozenset({512, 1024, 2048, 4096})
#: More than md (384, Linux Documentation/admin-guide/md.rst) and LVM are used with.
_COUNT_LIMIT = 4096
_BACKUP_LIMIT = 16 << 20
_LEVELS = frozenset({0, 1, 4, 5, 6, 10})
_METADATA = frozenset({"0.90", "1.0", "1.1", "1.2"})
_MD_UUID = re.compile(r"[0-9a-f]{8}(:[0-9a-f]{8}){3}")
_LUKS_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LVM_UUID = re.compile(r"[0-9A-Za-z!#]{6}(-[0-9A-Za-z!#]{4}){5}-[0-9A-Za-z!#]{6}")
#: lvm(8) "Valid names"; a device-mapper name may have more, but not a slash (dm-ioctl.h: at most 127 bytes).
_LVM_NAME = re.compile(r"(?!-)(?!\.{1,2}$)[A-Za-z0-9+_.-]{1,127}")
_MAPPING = re.compile(r"(?!-)(?!\.{1,2}$)[A-Za-z0-9#+:=@_.-]{0,127}")
_ARRAY_NAME = re.compile(r"(?!-)[^\x00-\x1f\x7f]{0,64}")
_ARRAY_LAYOUT = re.compile(r"[a-z0-9-]{0,32}")
_SEGMENT = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def stack_problems(layout: Layout) -> Iterator[str]:
    """What is wrong with the containers. The caller stops at the first: what follows may not be computable."""
    known = {device.id: device for disk in layout.disks for device in devices_of_disk(disk)}
    free = set(known) - _bearing_tables(layout)
    if len(layout.containers) > _COUNT_LIMIT:
        yield f"{len(layout.containers)} containers"
    names: set[str] = {*known}
    for container in layout.containers:
        for problem in chain(_members(container, known, free), _itself(container), _sizes(container, known)):
            yield f"{container.id}: {problem}"
        free.difference_update(container.member_ids)
        made = tuple(devices_made_by(container, max(known[member].sector_size for member in container.member_ids)))
        own = (container.id,) if isinstance(container, VolumeGroup) else ()
        for name in (*own, *(device.id for device in made)):
            if name in names:
                yield f"device {name} stands there twice"
            names.add(name)
        known.update((device.id, device) for device in made)
        free.update(device.id for device in made)
        free.difference_update(_hollow(container))


def hollow_volumes(layout: Layout) -> frozenset[str]:
    """Ids of logical volumes without bytes of their own: thin pools."""
    return frozenset(name for container in layout.containers for name in _hollow(container))


def _hollow(container: Container) -> tuple[str, ...]:
    volumes = container.volumes if isinstance(container, VolumeGroup) else ()
    return tuple(volume.id for volume in volumes if not volume.active)


def _bearing_tables(layout: Layout) -> set[str]:
    """Disks with a table and extended partitions: no container lies on them."""
    tables = [(disk, disk.table) for disk in layout.disks if disk.table]
    extended = {part.id for _, table in tables for part in table.partitions if part.role is PartitionRole.EXTENDED}
    return extended | {disk.id for disk, _ in tables}


def _members(container: Container, known: Mapping[str, Device], free: set[str]) -> Iterator[str]:
    members = container.member_ids
    if not 0 < len(members) <= _COUNT_LIMIT:
        yield f"it lies on {len(members)} devices"
    if len(set(members)) < len(members):
        yield "a device is its member twice"
    for member in members:
        if member not in known:
            yield f"it lies on {member!r}, which does not come before it"
        elif member not in free:
            yield f"it lies on {member}, which holds something else already"


def _itself(container: Container) -> Iterator[str]:
    """Names and numbers that need no other part of the layout."""
    if isinstance(container, Array):
        yield from _array(container)
    elif isinstance(container, Luks):
        if not _LUKS_UUID.fullmatch(container.uuid) or not _MAPPING.fullmatch(container.name):
            yield f"UUID {container.uuid!r} or name {container.name!r} is none that LUKS has"
        if container.version not in (1, 2) or container.sector_size not in _SECTOR_SIZES:
            yield f"version {container.version} with sectors of {container.sector_size} bytes"
    else:
        yield from _group(container)


def _array(array: Array) -> Iterator[str]:
    if not _MD_UUID.fullmatch(array.uuid) or not _ARRAY_NAME.fullmatch(array.name):
        yield f"UUID {array.uuid!r} or name {array.name!r} is none that md has"
    if array.level not in _LEVELS or array.metadata not in _METADATA or not _ARRAY_LAYOUT.fullmatch(array.layout):
        yield f"level {array.level}, metadata {array.metadata!r}, layout {array.layout!r}"
    slots = [member.slot for member in array.members if member.slot is not None]
    if (
        not 0 < array.slots <= _COUNT_LIMIT
        or len(set(slots)) < len(slots)
        or not all(0 <= slot < array.slots for slot in slots)
    ):
        yield f"members in slots {slots} of {array.slots}"
    if not 0 <= array.chunk_size < _SIZE_LIMIT or not 0 <= array.component_size < _SIZE_LIMIT:
        yield f"chunks of {array.chunk_size} bytes, components of {array.component_size}"


def _group(group: VolumeGroup) -> Iterator[str]:
    texts = [group.uuid, *(member.uuid for member in group.members), *(volume.uuid for volume in group.volumes)]
    yield from (f"UUID {text!r} is none that LVM has" for text in texts if not _LVM_UUID.fullmatch(text))
    names = [volume.name for volume in group.volumes]
    wrong = [name for name in (group.name, *names) if not _LVM_NAME.fullmatch(name)]
    yield from (f"{name!r} is no name that LVM has" for name in wrong)
    if len(set(names)) < len(names) or len(names) > _COUNT_LIMIT:
        yield f"{len(names)} logical volumes, or two of one name"
    if not 0 < group.extent_size < _SIZE_LIMIT or len(group.backup) > _BACKUP_LIMIT:
        yield f"extents of {group.extent_size} bytes, or a text of {len(group.backup)} characters"
    for volume in group.volumes:
        if not volume.segments or not all(_SEGMENT.fullmatch(segment) for segment in volume.segments):
            yield f"{volume.name}: segments {volume.segments}"
        if volume.pool and volume.pool not in names:
            yield f"{volume.name}: its pool {volume.pool!r} is not in the group"


def _sizes(container: Container, known: Mapping[str, Device]) -> Iterator[str]:
    """Whether what the members hold lies inside them, and what is made of them has a possible size."""
    if isinstance(container, Luks):
        device = known[container.device]
        if container.payload_offset < 1 or container.payload_offset + container.size > device.size:
            yield f"{container.size} bytes at {container.payload_offset} are outside the {device.size} of {device.id}"
    else:
        for member in container.members:
            if not 0 <= member.data_offset < known[member.device].size:
                yield f"its data on {member.device} begin at {member.data_offset}, outside it"
    if isinstance(container, VolumeGroup):
        sizes = [*(member.size for member in container.members), *(volume.size for volume in container.volumes)]
    else:
        sizes = [container.size]
    yield from (f"a size of {size} bytes" for size in sizes if not 0 < size < _SIZE_LIMIT or size % 512)
