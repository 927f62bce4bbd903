"""The plan: what a restore will do, as an inert document with a digest (DESIGN §4).

A plan is built by ``planner.py``, read by people (``render``), confirmed by giving back its digest,
and carried out by ``execute.py``. Changing anything in it changes the digest.
"""

from collections.abc import Iterator

import msgspec
from blake3 import blake3

from core.documents import encode
from core.units import ALIGNMENT, format_size, to_bytes
from images.model.extents import Extent
from images.model.layout import DiskIdentity, FilesystemKind, PartitionTable
from images.model.machine import Firmware

PLAN_VERSION = 1
DIGEST_DIGITS = 16


class TargetDisk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A disk that will be written.

    Attributes:
        source: the id of the disk in the manifest's layout that goes here.
        identity: how the disk is found again; not used when ``file`` is set.
        file: absolute path of an image file or loop device; empty for a disk of the machine.
        size, sector_size: bytes, as they were when the plan was made.
        destroys: what is on it now, a line each.
    """

    source: str
    identity: DiskIdentity
    file: str
    size: int
    sector_size: int
    destroys: tuple[str, ...]

    @property
    def shown(self) -> str:
        """Its name for people, without a device node."""
        if self.file:
            return self.file
        names = [self.identity.model, self.identity.serial and f"serial {self.identity.serial}"]
        return " ".join(name for name in names if name) or f"WWN {self.identity.wwn or 'unknown'}"


class _Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """``disk`` is the id of the source disk whose target is meant. Offsets and sizes are bytes on the target."""

    disk: str


class WipeSignatures(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="wipe-signatures"):
    """Fill these extents with zeros, so that nothing of the old content is taken for something alive."""

    extents: tuple[Extent, ...]


class CreateTable(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="create-table"):
    """Make this partition table, with all its identities."""

    table: PartitionTable


class WriteHead(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="write-head"):
    """Put boot code and the gap behind the table back: these extents of the head volume."""

    volume: str
    extents: tuple[Extent, ...]


class RestoreVolume(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="restore-volume"):
    """Stream a volume to its range. ``data`` and ``zero`` are the bytes written of each kind."""

    volume: str
    offset: int
    size: int
    data: int
    zero: int


class VerifyVolume(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="verify-volume"):
    """Read a volume's range back and compare every chunk with its id."""

    volume: str
    offset: int
    size: int


class GrowFilesystem(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="grow-filesystem"):
    """Grow the filesystem of partition ``number`` to the size of its partition."""

    number: int
    kind: FilesystemKind
    size: int


class RepairBoot(_Step, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="repair-boot"):
    """Make the restored system boot on the hardware that is there now, for this firmware."""

    firmware: Firmware


Step = WipeSignatures | CreateTable | WriteHead | RestoreVolume | VerifyVolume | GrowFilesystem | RepairBoot


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ordered, inert steps.

    Attributes:
        recovery_point: full id; name, created: for people.
        repository: where the chunks come from.
        notes: what the person should know before confirming.
    """

    version: int = PLAN_VERSION
    recovery_point: str
    name: str
    created: str
    repository: str
    targets: tuple[TargetDisk, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """What confirming gives back: the beginning of BLAKE3 over the canonical document."""
        return blake3(encode(self)).hexdigest()[:DIGEST_DIGITS]

    def target(self, disk: str) -> TargetDisk:
        """The target of a source disk; KeyError when the plan has none."""
        for target in self.targets:
            if target.source == disk:
                return target
        raise KeyError(disk)

    def bytes_written(self) -> int:
        """Bytes the stream will write, zeros not counted."""
        return sum(step.data for step in self.steps if isinstance(step, RestoreVolume))


def render(plan: Plan) -> str:
    """The plan as text, 80 columns, for a terminal, the wizard or a printout."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"Plan {plan.digest}"
    yield f"  restore  {plan.name}, taken {plan.created[:19].replace('T', ' ')} UTC ({plan.recovery_point[:12]})"
    yield f"  from     {plan.repository}"
    for target in plan.targets:
        yield ""
        yield f"Target for {target.source}: {target.shown}, {format_size(target.size)}"
        yield "  EVERYTHING ON IT WILL BE LOST. It holds now:"
        yield from (f"    {line}" for line in target.destroys or ("nothing that is recognised",))
        yield "  It will become:"
        for step in plan.steps:
            if isinstance(step, CreateTable) and step.disk == target.source:
                yield from _table_lines(step.table, target.sector_size)
    yield ""
    yield "Steps"
    for number, step in enumerate(plan.steps, 1):
        yield f"  {number:2}. {describe(step)}"
    if plan.notes:
        yield ""
        yield "Notes"
        yield from (f"  - {note}" for note in plan.notes)


def _table_lines(table: PartitionTable, sector_size: int) -> Iterator[str]:
    yield f"    {table.kind} partition table {table.identifier}"
    for partition in table.partitions:
        extent = partition.extent(sector_size)
        filesystem = partition.filesystem
        kind = (filesystem.detail or filesystem.kind) if filesystem else partition.role.value
        label = f' "{filesystem.label}"' if filesystem and filesystem.label else ""
        aligned = "" if extent.start % ALIGNMENT == 0 else "  (start kept, not on 1 MiB)"
        yield (
            f"    {partition.number:2}  {kind:<8}{label}  {format_size(extent.size):>10}  "
            f"from {format_size(to_bytes(partition.start_lba, sector_size))}{aligned}"
        )


def describe(step: Step) -> str:
    """One line about a step."""
    match step:
        case WipeSignatures(disk=disk, extents=extents):
            return f"{disk}: wipe old signatures in {_count(len(extents), 'place')}"
        case CreateTable(disk=disk, table=table):
            return f"{disk}: create the {table.kind} table with {_count(len(table.partitions), 'partition')}"
        case WriteHead(disk=disk, extents=extents):
            return f"{disk}: write boot code and boot area, {format_size(sum(extent.size for extent in extents))}"
        case RestoreVolume(volume=volume, data=data, zero=zero):
            zeros = f" and {format_size(zero)} of zeros" if zero else ""
            return f"{volume}: write {format_size(data)}{zeros}"
        case VerifyVolume(volume=volume):
            return f"{volume}: read back and compare with the recovery point"
        case GrowFilesystem(disk=disk, number=number, kind=kind, size=size):
            return f"{disk}: grow {kind} in partition {number} to {format_size(size)}"
        case RepairBoot(disk=disk, firmware=firmware):
            return f"{disk}: reinstall the boot loader for {firmware.upper()} and check the initramfs"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
