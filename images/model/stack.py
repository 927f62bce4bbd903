"""The stack: what lies between partitions and filesystems (md RAID, LUKS, LVM), as facts of the layout.

A *device* is anything with bytes of its own: a disk, a partition, an array, an opened LUKS container, a logical
volume. Containers are listed bottom up: what one is made of comes before it. Ids are stable inside one document.
"""

import msgspec

from images.model.layout import Filesystem


class _Container(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="container"):
    """``id``: of the container; ``uuid``: as its own tools spell it."""

    id: str
    uuid: str


class ArrayMember(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One device of an array. ``device``: its id; ``slot``: its place, None for a spare; ``data_offset`` in bytes."""

    device: str
    slot: int | None = None
    data_offset: int = 0


class Array(_Container, frozen=True, kw_only=True, omit_defaults=True, tag="md"):
    """An md RAID array, itself a device.

    Attributes:
        name: as mdadm says it, with the home host (``host:0``), empty for none.
        level: 0, 1, 4, 5, 6 or 10. metadata: ``0.90``, ``1.0``, ``1.1`` or ``1.2``.
        slots: devices it was made of, missing ones counted.
        chunk_size, size: bytes; chunk_size is 0 for RAID 1.
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
    layout: str = ""
    bitmap: bool = False
    filesystem: Filesystem | None = None


class Luks(_Container, frozen=True, kw_only=True, omit_defaults=True, tag="luks"):
    """A LUKS container; opened, it is a device. Its header and all key slots are a volume of ``device``.

    Attributes:
        device: id of what it lies on. version: 1 or 2.
        name: the mapping's name at capture, as crypttab has it; empty when it was not open.
        payload_offset: bytes from the start of ``device`` to the encrypted data.
        sector_size: of the encryption, bytes.
        size: bytes of the opened device; 0 when it was not open, and then ``device`` was captured whole.
        filesystem: what lies in it, when no other container does.
    """

    device: str
    version: int
    payload_offset: int
    sector_size: int = 512
    name: str = ""
    size: int = 0
    label: str = ""
    filesystem: Filesystem | None = None


class PhysicalVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A physical volume of a group. ``device``: its id; ``data_offset``: bytes before the first extent."""

    device: str
    uuid: str
    size: int
    data_offset: int = 0


class LogicalVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A logical volume, itself a device.

    Attributes:
        segments: LVM's segment types, sorted (``linear``, ``striped``, ``thin``, ``raid1`` …).
        size: bytes. pool: name of its thin pool. active: it was readable at capture.
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
    """An LVM volume group. ``backup`` is vgcfgbackup's text, from which LVM's own tools make the group again."""

    name: str
    extent_size: int
    members: tuple[PhysicalVolume, ...]
    volumes: tuple[LogicalVolume, ...]
    backup: str


Container = Array | Luks | VolumeGroup
