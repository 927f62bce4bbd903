"""The layout: how a machine's disks are structured, with everything needed to make it again.

Facts only: no live parted or blkid object, no path. Ids (``disk0``, ``disk0-part2``) are stable
inside one document and are how other documents point here.
"""

from collections.abc import Iterator
from enum import StrEnum
from uuid import UUID

import msgspec

from core.units import to_bytes
from images.model.extents import Extent
from images.model.filesystem import Filesystem as Filesystem
from images.model.filesystem import FilesystemKind as FilesystemKind
from images.model.stack import Array, Container, Luks


class TableKind(StrEnum):
    """The disklabel."""

    GPT = "gpt"
    DOS = "dos"


class PartitionRole(StrEnum):
    """What a partition is to the table (dos) and to the firmware."""

    PRIMARY = "primary"
    EXTENDED = "extended"
    LOGICAL = "logical"
    ESP = "esp"
    BIOS_BOOT = "bios-boot"
    MSR = "msr"
    RECOVERY = "recovery"


#: Roles that need no filesystem: GRUB's core image lies in the one, nothing in the other.
BARE_ROLES = frozenset({PartitionRole.BIOS_BOOT, PartitionRole.MSR})


class DiskIdentity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a disk is named: never by /dev/sdX. Empty strings where the disk does not say."""

    wwn: str = ""
    serial: str = ""
    model: str = ""
    transport: str = ""


class Partition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One partition.

    Attributes:
        id: stable in the document.
        number: as the table and the kernel count (logical ones from 5).
        start_lba, sector_count: in logical sectors of the disk.
        type: the GPT type GUID in lower case, or the dos type as ``0x83``.
        uuid: the GPT partition GUID; None on dos.
        name: the GPT name.
        name_utf16: the GPT name's 72 bytes in hex, where ``name`` does not say them all (not UTF-16, text behind its
            end).
        attributes: the GPT attribute bits.
        active: the dos boot flag (0x80).
        role: what it is for.
        filesystem: what lies in it; None in an extended partition.
    """

    id: str
    number: int
    start_lba: int
    sector_count: int
    type: str
    role: PartitionRole
    uuid: UUID | None = None
    name: str = ""
    name_utf16: str = ""
    attributes: int = 0
    active: bool = False
    filesystem: Filesystem | None = None

    @property
    def end_lba(self) -> int:
        """The first LBA behind it."""
        return self.start_lba + self.sector_count

    def extent(self, sector_size: int) -> Extent:
        """Its bytes on the disk."""
        return Extent(to_bytes(self.start_lba, sector_size), to_bytes(self.end_lba, sector_size))


class BootRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the chain through the logical partitions of a dos table, as it lay on the disk.

    Attributes:
        content: its 512 bytes in hex.
    """

    lba: int
    content: str


class PartitionTable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A partition table.

    Attributes:
        kind: the disklabel.
        identifier: the GPT disk GUID in lower case, or the dos disk signature as ``0x1234abcd``.
        first_usable_lba, last_usable_lba: inclusive, GPT only; 0 on dos.
        entry_count: GPT entries; 0 on dos.
        entry_size: bytes of a GPT entry.
        entries_lba: where the entries of the primary GPT begin.
        partitions: in order of their numbers.
        mbr: bytes 440 to 511 of LBA 0 in hex (disk signature, entries, mark), where they are not what the rest of
            this document says by itself: a hybrid MBR, another protective one, places in an old geometry.
        records: the boot records of the logical partitions in the order of their chain, under the same condition.
        notes: what the reader had to say (``the primary GPT is damaged, the backup was used``).
    """

    kind: TableKind
    identifier: str
    partitions: tuple[Partition, ...]
    first_usable_lba: int = 0
    last_usable_lba: int = 0
    entry_count: int = 0
    entry_size: int = 128
    entries_lba: int = 2
    mbr: str = ""
    records: tuple[BootRecord, ...] = ()
    notes: tuple[str, ...] = ()


class Disk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One disk of the layout.

    Attributes:
        path: the image file it was read from; empty for a real disk, whose node means nothing later.
        filesystem: set when the disk has no table and is one volume.
    """

    id: str
    identity: DiskIdentity
    size: int
    sector_size: int
    physical_sector_size: int = 512
    path: str = ""
    table: PartitionTable | None = None
    filesystem: Filesystem | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """Anything of a layout that has bytes of its own: a disk, a partition, an array, an opened LUKS, a logical volume.

    Attributes:
        size: bytes. sector_size: of its logical sectors, bytes.
        container: id of the container that makes it; empty for a disk and a partition.
        filesystem: what lies on it, when that is neither a partition table nor a container that was followed.
    """

    id: str
    size: int
    sector_size: int
    container: str = ""
    filesystem: Filesystem | None = None


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The disks of one machine, and what is built on them: ``containers`` bottom up."""

    version: int = 1
    disks: tuple[Disk, ...]
    containers: tuple[Container, ...] = ()

    def disk(self, disk_id: str) -> Disk:
        """The disk with that id; KeyError when there is none."""
        for disk in self.disks:
            if disk.id == disk_id:
                return disk
        raise KeyError(disk_id)

    def devices(self) -> tuple[Device, ...]:
        """Every device, bottom up. KeyError where a container names a device that does not come before it."""
        found: dict[str, Device] = {}
        for device in (device for disk in self.disks for device in devices_of_disk(disk)):
            found[device.id] = device
        for container in self.containers:
            sector_size = max(found[member].sector_size for member in container.member_ids)
            for device in devices_made_by(container, sector_size):
                found[device.id] = device
        return tuple(found.values())

    def device(self, device_id: str) -> Device:
        """The device with that id; KeyError when there is none."""
        whole = next((disk for disk in self.disks if disk.id == device_id), None)
        if whole is not None:
            return next(devices_of_disk(whole))
        for device in self.devices():
            if device.id == device_id:
                return device
        raise KeyError(device_id)

    def container_on(self, device_id: str) -> Container | None:
        """The container that a device is a member of; None when it holds its own bytes."""
        return next((container for container in self.containers if device_id in container.member_ids), None)


def devices_of_disk(disk: Disk) -> Iterator[Device]:
    """The disk itself and its partitions."""
    yield Device(id=disk.id, size=disk.size, sector_size=disk.sector_size, filesystem=disk.filesystem)
    for part in disk.table.partitions if disk.table else ():
        size = to_bytes(part.sector_count, disk.sector_size)
        yield Device(id=part.id, size=size, sector_size=disk.sector_size, filesystem=part.filesystem)


def devices_made_by(container: Container, sector_size: int) -> Iterator[Device]:
    """The devices of a container whose members have sectors of ``sector_size`` bytes."""
    if isinstance(container, Array | Luks):
        encrypted = container.sector_size if isinstance(container, Luks) else 0
        yield Device(
            id=container.id,
            size=container.size,
            sector_size=max(sector_size, encrypted),
            container=container.id,
            filesystem=container.filesystem,
        )
        return
    for volume in container.volumes:
        yield Device(
            id=volume.id,
            size=volume.size,
            sector_size=sector_size,
            container=container.id,
            filesystem=volume.filesystem,
        )
