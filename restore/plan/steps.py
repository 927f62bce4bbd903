"""Steps: what a plan is made of. Inert documents: what is to be done, with its arguments, and one line about it.

How each is carried out is in ``restore.perform``, a module for each road.
"""

import msgspec

from core.units import counted, format_size
from images.model.extents import Extent
from images.model.layout import FilesystemKind, PartitionTable
from images.model.machine import Firmware
from images.model.stack import Array, Luks, VolumeGroup
from restore.unique.renewal import Renewal


class _Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """``disk`` is the id of the source disk whose target is meant, or of a device of the stack (images/model/stack.py).

    Offsets and sizes are bytes on the target.
    """

    disk: str

    def describe(self) -> str:
        """One line for people."""
        raise NotImplementedError


class WipeSignatures(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="wipe-signatures"):
    """Fill these extents with zeros, so that nothing of the old content is taken for something alive."""

    extents: tuple[Extent, ...]

    def describe(self) -> str:
        return f"{self.disk}: wipe old signatures in {counted(len(self.extents), 'place')}"


class CreateTable(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="create-table"):
    """Make this partition table, with all its identities."""

    table: PartitionTable

    def describe(self) -> str:
        count = counted(len(self.table.partitions), "partition")
        return f"{self.disk}: create the {self.table.kind} table with {count}"


class WriteHead(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="write-head"):
    """Put boot code and the gap behind the table back: these extents of the head volume."""

    volume: str
    extents: tuple[Extent, ...]

    def describe(self) -> str:
        size = format_size(sum(extent.size for extent in self.extents))
        return f"{self.disk}: write boot code and boot area, {size}"


class RestoreVolume(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="restore-volume"):
    """Stream a volume to its range. ``data`` and ``zero`` are the bytes written of each kind.

    ``stored``: bytes read from the repository for it.
    """

    volume: str
    offset: int
    size: int
    data: int
    zero: int
    stored: int = 0

    def describe(self) -> str:
        zeros = f" and {format_size(self.zero)} of zeros" if self.zero else ""
        return f"{self.volume}: write {format_size(self.data)}{zeros}"


class VerifyVolume(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="verify-volume"):
    """Read a volume's range back and compare every chunk with its id."""

    volume: str
    offset: int
    size: int

    def describe(self) -> str:
        return f"{self.volume}: read back and compare with the recovery point"


class GrowFilesystem(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="grow-filesystem"):
    """Grow the filesystem of partition ``number`` to its size; ``number`` is 0 when ``disk`` is itself the device."""

    number: int
    kind: FilesystemKind
    size: int

    def describe(self) -> str:
        place = f" in partition {self.number}" if self.number else ""
        return f"{self.disk}: grow {self.kind}{place} to {format_size(self.size)}"


class RemakeFat(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="remake-fat"):
    """Write a FAT volume anew, with the same identity and the files of ``volume``, for other sectors or another size.

    ``offset`` and ``size`` are the partition's; ``old_lba`` is where it started, in sectors of the source. ``data``:
    bytes that were allocated at capture; ``stored``: bytes read from the repository for them, at most.
    """

    volume: str
    number: int
    kind: FilesystemKind
    offset: int
    size: int
    old_lba: int
    data: int
    stored: int = 0

    def describe(self) -> str:
        return f"{self.volume}: make {self.kind} of {format_size(self.size)} anew and copy its files"


class RemakeVolume(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="remake-volume"):
    """Make a fresh filesystem with the same UUID, label and features, and copy the files of ``volume`` into it.

    What lies beside the files is not kept: flags of chattr, quota limits, extents that files share. ``offset`` and
    ``size`` are the partition's. ``data``: bytes that were allocated at capture; ``stored``: bytes read from the
    repository for them, at most. ``kernel_room`` as of ShrinkVolume.
    """

    volume: str
    number: int
    kind: FilesystemKind
    offset: int
    size: int
    data: int
    stored: int = 0
    kernel_room: int = 0

    def describe(self) -> str:
        without = "without chattr flags and quotas"
        return f"{self.volume}: make {self.kind} of {format_size(self.size)} anew and copy its files, {without}"


class ShrinkVolume(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="shrink-volume"):
    """Make the filesystem of a volume smaller on a copy-on-write overlay, and write the result to its range.

    Attributes:
        number: of the partition it goes to; offset, size: of that partition.
        data: bytes that will be written, by estimate; stored: bytes read from the repository for that.
        scratch: bytes of scratch it takes meanwhile, by estimate.
        verify: what was written is read back and compared.
        kernel_room: bytes that one more kernel with its initramfs takes and will not find; 0 where it does.
    """

    volume: str
    number: int
    offset: int
    size: int
    kind: FilesystemKind
    data: int
    stored: int = 0
    scratch: int
    verify: bool = True
    kernel_room: int = 0

    def describe(self) -> str:
        proof = ", read back" if self.verify else ""
        return (
            f"{self.volume}: make {self.kind} smaller, to {format_size(self.size)}, on {format_size(self.scratch)} of "
            f"scratch, and write about {format_size(self.data)}{proof}"
        )


class RelocateFilesystem(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="relocate-filesystem"):
    """Correct what the filesystem of partition ``number`` says of its place, and NTFS of the size of a sector.

    ``offset`` and ``size`` are the partition's; ``old_lba`` is where it started, in sectors of ``old_sector_size``
    bytes.
    """

    number: int
    kind: FilesystemKind
    offset: int
    size: int
    old_lba: int
    old_sector_size: int

    def describe(self) -> str:
        return f"{self.disk}: correct where {self.kind} in partition {self.number} says it lies"


class RepairBoot(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="repair-boot"):
    """Make the restored system boot on the hardware that is there now, for this firmware."""

    firmware: Firmware

    def describe(self) -> str:
        firmware = self.firmware.upper()
        return f"{self.disk}: reinstall the boot loader for {firmware} and check the initramfs"


class MakeUnique(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="make-unique"):
    """Give filesystems and the installed system the identities of ``renewals``; those of the tables are in the tables.

    ``disk`` is the first disk; the step is about all of them.
    """

    renewals: tuple[Renewal, ...]

    def describe(self) -> str:
        count = counted(len(self.renewals), "identity", "identities")
        return f"give the machine {count} of its own, and rewrite what refers to the old ones"


class CreateArray(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="create-array"):
    """Make an md array of its members with the same identity; ``disk`` is its id, and from then on a device.

    ``fill``: as large as its members allow, and not as large as it was.
    """

    array: Array
    fill: bool = False

    def describe(self) -> str:
        count = counted(len(self.array.members), "device")
        room = ", as large as they allow" if self.fill else ""
        return f"{self.disk}: make the RAID {self.array.level} array of {count}{room}"


class OpenLuks(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="open-luks"):
    """Open a LUKS container whose header was put back; ``disk`` is its id, and from then on a device.

    It is as large as what it lies on.
    """

    container: Luks

    def describe(self) -> str:
        return f"{self.disk}: open the LUKS container in {self.container.device}"


class CreateVolumeGroup(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="create-volume-group"):
    """Make an LVM group with its physical and logical volumes and activate it; ``disk`` is its id.

    ``grow``: the name of the logical volume that takes the room the physical volumes gained; empty for none.
    """

    group: VolumeGroup
    grow: str = ""

    def describe(self) -> str:
        count = counted(len(self.group.volumes), "logical volume")
        room = f", {self.grow} takes the new room" if self.grow else ""
        return f"{self.disk}: make the volume group {self.group.name} with {count}{room}"


def container_of(step: _Step) -> Array | Luks | VolumeGroup | None:
    """The container that a step makes; None for other steps."""
    if isinstance(step, CreateArray):
        return step.array
    if isinstance(step, OpenLuks):
        return step.container
    return step.group if isinstance(step, CreateVolumeGroup) else None


class CloseStack(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="close-stack"):
    """Deactivate, close and stop what the steps before it made alive; ``disk`` is the first disk."""

    def describe(self) -> str:
        return "close logical volumes, encrypted containers and arrays"


Step = (
    WipeSignatures
    | CreateTable
    | WriteHead
    | RestoreVolume
    | VerifyVolume
    | GrowFilesystem
    | ShrinkVolume
    | RelocateFilesystem
    | RemakeFat
    | RemakeVolume
    | RepairBoot
    | MakeUnique
    | CreateArray
    | OpenLuks
    | CreateVolumeGroup
    | CloseStack
)
