"""The stack: what lies between partitions and filesystems (md RAID, LUKS, LVM), as facts of the layout.

A *device* is anything with bytes of its own: a disk, a partition, an array, an opened LUKS container, a logical
volume. Containers are listed bottom up: what one is made of comes before it. Ids are stable inside one document.
Only containers that were followed stand here: what was not is a filesystem ``unknown``, captured whole.
"""

import msgspec

from images.model.filesystem import Filesystem


class _Container(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="container"):
    """``id``: of the container; ``uuid``: as its own tools spell it."""

    id: str
    uuid: str

    @property
    def member_ids(self) -> tuple[str, ...]:
        """Ids of the devices it lies on."""
        raise NotImplementedError


class ArrayMember(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One device of an array. ``device``: its id; ``slot``: its place, None for a spare; ``data_offset`` in bytes."""

    device: str
    slot: int | None = None
    data_offset: int = 0


class Array(_Container, frozen=True, kw_only=True, omit_defaults=True, tag="md"):
    """An md RAID array, itself a device with the same id.

    Attributes:
        name: as mdadm says it, with the home host (``host:0``), empty for none.
        level: 0, 1, 4, 5, 6 or 10. metadata: ``0.90``, ``1.0``, ``1.1`` or ``1.2``.
        slots: devices it was made of, missing ones counted.
        chunk_size, size: bytes; chunk_size is 0 for RAID 1.
        component_size: bytes of each member that the array uses; 0 for RAID 0, which uses all.
        layout: as mdadm takes it (``left-symmetric``, ``n2``), empty for none.
        bitmap: it has an internal write-intent bitmap.
        filesystem: what lies on it, when no other container does.
    """

    name: str
    level: int
    metadata: str
    slots: int
    members: tuple[ArrayMember, ...]
    size: int
    chunk_size: int = 0
    component_size: int = 0
    layout: str = ""
    bitmap: bool = False
    filesystem: Filesystem | None = None

    @property
    def member_ids(self) -> tuple[str, ...]:
        return tuple(member.device for member in self.members)

    @property
    def lacking(self) -> int:
        """Places that no device has; what a spare may take later is one."""
        return self.slots - sum(member.slot is not None for member in self.members)

    @property
    def spares(self) -> int:
        """Members without a place; md fills what is lacking from them by itself."""
        return sum(member.slot is None for member in self.members)


class Luks(_Container, frozen=True, kw_only=True, omit_defaults=True, tag="luks"):
    """A LUKS container that was open at capture; the opened one is a device with its id.

    Its header and all key slots, up to ``payload_offset``, are a volume of ``device``.

    Attributes:
        device: id of what it lies on. version: 1 or 2.
        name: the mapping's name at capture, as crypttab has it; empty when liferaft opened it itself.
        payload_offset: bytes from the start of ``device`` to the encrypted data.
        sector_size: of the encryption, bytes.
        size: bytes of the opened device.
        filesystem: what lies in it, when no other container does.
    """

    device: str
    version: int
    payload_offset: int
    size: int
    sector_size: int = 512
    name: str = ""
    label: str = ""
    filesystem: Filesystem | None = None

    @property
    def member_ids(self) -> tuple[str, ...]:
        return (self.device,)


class PhysicalVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A physical volume of a group.

    Attributes:
        device: its id. data_offset: bytes before the first extent.
        metadata_areas: copies of LVM's metadata that it had room for; pvcreate makes one unless it is told otherwise.
    """

    device: str
    uuid: str
    size: int
    data_offset: int = 0
    metadata_areas: int = 1


class LogicalVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A logical volume that people see, itself a device.

    Attributes:
        segments: LVM's segment types, sorted (``linear``, ``striped``, ``thin``, ``thin-pool`` …).
        size: bytes. pool: name of its thin pool.
        active: its bytes were captured; False for a thin pool, which has none of its own.
        filesystem: what lies on it, when no other container does.
    """

    id: str
    name: str
    uuid: str
    size: int
    segments: tuple[str, ...]
    pool: str = ""
    active: bool = True
    filesystem: Filesystem | None = None


class VolumeGroup(_Container, frozen=True, kw_only=True, omit_defaults=True, tag="lvm"):
    """An LVM volume group.

    Attributes:
        extent_size: bytes.
        backup: LVM's own text of it, as vgcfgbackup writes it, from which LVM's tools make the group again.
    """

    name: str
    extent_size: int
    members: tuple[PhysicalVolume, ...]
    volumes: tuple[LogicalVolume, ...]
    backup: str

    @property
    def member_ids(self) -> tuple[str, ...]:
        return tuple(member.device for member in self.members)


Container = Array | Luks | VolumeGroup
