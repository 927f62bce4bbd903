"""Steps: what a plan is made of. Inert documents: what is to be done, with its arguments, and one line about it.

How each is carried out is in ``restore.perform``, a module for each road.
"""

import msgspec

from core.units import counted, format_size
from images.model.extents import Extent
from images.model.layout import FilesystemKind, PartitionTable
from images.model.machine import Firmware
from restore.unique.renewal import Renewal


class _Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """``disk`` is the id of the source disk whose target is meant. Offsets and sizes are bytes on the target."""

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
    """Grow the filesystem of partition ``number`` to the size of its partition."""

    number: int
    kind: FilesystemKind
    size: int

    def describe(self) -> str:
        return f"{self.disk}: grow {self.kind} in partition {self.number} to {format_size(self.size)}"


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


Step = (
    WipeSignatures
    | CreateTable
    | WriteHead
    | RestoreVolume
    | VerifyVolume
    | GrowFilesystem
    | RelocateFilesystem
    | RepairBoot
    | MakeUnique
)
