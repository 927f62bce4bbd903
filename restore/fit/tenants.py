"""Tenants: the partitions of a source disk as the fit sees them: bytes, bounds, and what may be done to each.

Which abilities there are is said by ``restore.planning.abilities``; how much a content needs by ``Wishes.least``.
"""

from itertools import pairwise

import msgspec

from core.units import ALIGNMENT, align_down, align_up, format_size
from images.model.extents import Extent
from images.model.layout import Disk, FilesystemKind, Partition, PartitionRole, TableKind
from restore.fit.area import Area
from restore.fit.wishes import Wishes
from restore.planning.abilities import GROWABLE, MOVABLE, MOVABLE_CONTAINERS, RELOCATABLE, REMAKEABLE, SHRINKABLE
from restore.planning.rules import Growth, PartitionRule, Rule
from restore.planning.seat import Means

_KEEP_SIZE = frozenset({PartitionRole.ESP, PartitionRole.MSR, PartitionRole.BIOS_BOOT, PartitionRole.RECOVERY})
#: Dos types of recovery and diagnostic partitions, which have no role of their own there (Microsoft, "PARTITION
#: INFORMATION": 0x27; util-linux, include/pt-mbr-partnames.h: 0x12, 0xde).
_RECOVERY_TYPES = frozenset({"0x12", "0x27", "0xde"})
#: Windows dynamic disks and storage spaces keep maps that count from the start of the disk.
_MAPPED_TYPES = frozenset(
    {
        "0x42",
        "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3",
        "af9b60a0-1431-4f62-bc68-3311714a69ad",
        "e75caf8f-f680-4cee-afa3-b001e56efc2d",
    }
)


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """One partition that goes to the target. Bytes.

    Attributes:
        start, size: on the source; the size is rounded up to sectors of the target.
        wanted: the size it is given when there is room.
        floor: the size it may be cut to when there is none; ``wanted`` when it may not be cut.
        means: how its content comes over at ``size`` or more; ``cut``: how it does at less.
        grows: it takes a share of what is left.
        last: it is cut only when all others were.
        closes: the gap before it is closed.
        pinned: why it cannot be moved; empty when it can.
        whole: it starts on a sector of the target where it lies.
        head: bytes kept free before it, for the boot record of a logical partition.
        freed: bytes that a dropped partition leaves free before it.
    """

    partition: Partition
    start: int
    size: int
    wanted: int
    floor: int
    means: Means = Means.STREAM
    cut: Means = Means.SHRINK
    grows: bool = False
    last: bool = False
    closes: bool = False
    pinned: str = ""
    whole: bool = True
    head: int = 0
    freed: int = 0

    @property
    def end(self) -> int:
        """The first byte behind it on the source."""
        return self.start + self.size


class House(msgspec.Struct, frozen=True, kw_only=True):
    """All tenants in order of their starts; ``extended`` are the extended partitions around logical tenants.

    ``reasons``: what is asked and cannot be. ``dropped``: numbers left out. ``firm``: why filesystems of kinds that
    shrink do not.
    """

    tenants: tuple[Tenant, ...]
    extended: tuple[Partition, ...] = ()
    reasons: tuple[str, ...] = ()
    dropped: tuple[int, ...] = ()
    firm: tuple[str, ...] = ()


def is_around(extended: Partition, tenant: Tenant) -> bool:
    """Whether a tenant is one of the logical partitions of ``extended``."""
    return _is_inside(tenant.partition, extended)


def keeps_size(partition: Partition) -> bool:
    """ESP, MSR, BIOS boot and recovery partitions keep their size whatever the rules."""
    return partition.role in _KEEP_SIZE or partition.type in _RECOVERY_TYPES


def is_data(partition: Partition) -> bool:
    """Whether it may grow without being named: a filesystem for data, not swap, not a partition of the firmware."""
    swap = partition.filesystem is not None and partition.filesystem.kind is FilesystemKind.SWAP
    return partition.role is not PartitionRole.EXTENDED and not keeps_size(partition) and not swap


def house(disk: Disk, area: Area, wishes: Wishes) -> House:
    """The tenants of a disk that has a table, and wants to live in this area of the target."""
    return _Builder(disk, area, wishes).build()


def _is_inside(part: Partition, extended: Partition) -> bool:
    logical = part.role is PartitionRole.LOGICAL and extended.role is PartitionRole.EXTENDED
    return logical and extended.start_lba <= part.start_lba < extended.end_lba


class _Builder:
    def __init__(self, disk: Disk, area: Area, wishes: Wishes) -> None:
        assert disk.table is not None
        self._disk = disk
        self._sector_size = area.sector_size
        self._usable = area.start
        self._wishes = wishes
        # Logical partitions of a dos table become ordinary ones in a GPT.
        self._nested = area.kind is TableKind.DOS
        self._parts = sorted(disk.table.partitions, key=lambda part: part.start_lba)
        self._rules = {rule.partition: rule for rule in wishes.rules}
        self._reasons: list[str] = []
        self._firm: dict[int, str] = {}

    def build(self) -> House:
        self._check_numbers()
        self._check_places()
        last = self._last_growable() if self._wishes.growth is Growth.LAST else None
        if self._wishes.growth is not Growth.NONE and not any(map(self._grows_unasked, self._parts)):
            self._reasons.append("no partition has a filesystem that this version can grow")
        around = [part for part in self._parts if part.role is PartitionRole.EXTENDED]
        lonely = [part for part in around if not any(_is_inside(other, part) for other in self._parts)]
        tenants: list[Tenant] = []
        dropped: list[int] = []
        freed = end = 0
        for part in self._parts:
            extent = part.extent(self._disk.sector_size)
            if part in around and not (part in lonely and self._nested):
                end = max(end, extent.start)
                continue
            if self._rule(part) is Rule.DROP:
                dropped.append(part.number)
                freed += extent.size
                end = extent.end
                continue
            tenant = self._tenant(part, grows=last == part.number)
            head = self._head(part, extent.start - end)
            tenants.append(msgspec.structs.replace(tenant, freed=freed, head=head))
            freed, end = 0, extent.end
        alive = [part for part in around if any(_is_inside(tenant.partition, part) for tenant in tenants)]
        return House(
            tenants=tuple(tenants),
            extended=tuple(alive) if self._nested else (),
            reasons=tuple(self._reasons),
            dropped=tuple(dropped),
            firm=tuple(f"partition {number} cannot be made smaller: {reason}" for number, reason in self._firm.items()),
        )

    def _check_numbers(self) -> None:
        numbers = [rule.partition for rule in self._wishes.rules]
        known = {part.number: part for part in self._parts}
        for number in sorted(set(numbers)):
            if number not in known:
                self._reasons.append(f"there is a rule for partition {number}, and no partition of that number")
            elif known[number].role is PartitionRole.EXTENDED:
                self._reasons.append(f"partition {number} is extended: it follows its logical ones, and takes no rule")
            if numbers.count(number) > 1:
                self._reasons.append(f"partition {number} has more than one rule")

    def _check_places(self) -> None:
        """No reader gives such a table, but a manifest is a document like any other: what overlaps is not arranged."""
        outside = [part for part in self._parts if part.role is not PartitionRole.LOGICAL]
        inside = [part for part in self._parts if part.role is PartitionRole.LOGICAL]
        for parts in (outside, inside):
            for first, second in pairwise(parts):
                if second.start_lba < first.end_lba:
                    self._reasons.append(f"partitions {first.number} and {second.number} overlap in the recovery point")
        for part in inside:
            if not any(_is_inside(part, around) and part.end_lba <= around.end_lba for around in outside):
                self._reasons.append(f"partition {part.number} lies in no extended partition of the recovery point")

    def _rule(self, part: Partition) -> Rule | None:
        rule = self._rules.get(part.number)
        return rule.rule if rule else None

    def _growable(self, part: Partition) -> bool:
        kind = part.filesystem.kind if part.filesystem else None
        return not keeps_size(part) and (kind in GROWABLE | REMAKEABLE or part.id in self._wishes.growable)

    def _grows_unasked(self, part: Partition) -> bool:
        # What would have to be made anew for it grows only when a rule says so.
        kind = part.filesystem.kind if part.filesystem else None
        growable = kind in GROWABLE or part.id in self._wishes.growable
        return is_data(part) and growable and self._rule(part) in (None, Rule.GROW, Rule.MOVE)

    def _last_growable(self) -> int | None:
        numbers = [part.number for part in self._parts if self._grows_unasked(part)]
        return numbers[-1] if numbers else None

    def _head(self, part: Partition, gap: int) -> int:
        """Room for the boot record of a logical partition: a whole alignment unit, or what it had where it may stay."""
        if part.role is not PartitionRole.LOGICAL or not self._nested:
            return 0
        stays = part.extent(self._disk.sector_size).start % ALIGNMENT == 0 or bool(self._pinned(part))
        return align_up(min(gap, ALIGNMENT), self._sector_size) if stays and gap > 0 else ALIGNMENT

    def _tenant(self, part: Partition, *, grows: bool) -> Tenant:
        extent = part.extent(self._disk.sector_size)
        rule = self._rules.get(part.number)
        if part.role is PartitionRole.BIOS_BOOT:
            extent = self._in_sectors(extent)
        size = align_up(extent.size, self._sector_size)
        means = self._means(part)
        pinned = self._pinned(part)
        whole = extent.start % self._sector_size == 0
        if pinned and not whole:
            self._reasons.append(
                f"partition {part.number} starts at byte {extent.start}, which is no sector of {self._sector_size} "
                f"bytes, and cannot be moved: {pinned}"
            )
        if rule and rule.rule is Rule.MOVE and pinned:
            self._reasons.append(f"partition {part.number} cannot be moved: {pinned}")
        least, cut = self._least(part, size)
        wanted, floor = self._bounds(part, rule, size, least)
        return Tenant(
            partition=part,
            start=extent.start,
            size=size,
            wanted=wanted,
            floor=floor,
            means=means,
            cut=cut if means is Means.STREAM else means,
            grows=self._takes_space(part, rule, grows),
            last=floor < wanted and self._wishes.boots(part),
            closes=rule is not None and rule.rule is Rule.MOVE,
            pinned=pinned,
            whole=whole,
        )

    def _in_sectors(self, extent: Extent) -> Extent:
        """A BIOS boot partition in sectors of the target: the tables in front of it may need more bytes there."""
        start = align_up(max(extent.start, self._usable), self._sector_size)
        return Extent(start, max(start + self._sector_size, align_down(extent.end, self._sector_size)))

    def _takes_space(self, part: Partition, rule: PartitionRule | None, last: bool) -> bool:
        if rule is None:
            return last or (self._wishes.growth is Growth.ALL and self._grows_unasked(part))
        if rule.rule is not Rule.GROW:
            return last or (rule.rule is Rule.MOVE and self._wishes.growth is Growth.ALL and self._grows_unasked(part))
        return rule.size == 0

    def _means(self, part: Partition) -> Means:
        if part.role is PartitionRole.EXTENDED:
            return Means.EMPTY
        if self._sector_size == self._disk.sector_size:
            return Means.STREAM
        if part.role in (PartitionRole.MSR, PartitionRole.BIOS_BOOT):
            # Nothing in the one counts; the other is written by the boot loader's installer, in sectors of the target.
            return Means.EMPTY
        answer = self._wishes.conversion(part, self._disk.sector_size, self._sector_size)
        if isinstance(answer, Means):
            return answer
        self._reasons.append(f"partition {part.number}: {answer}")
        return Means.STREAM

    def _pinned(self, part: Partition) -> str:
        filesystem = part.filesystem
        if self._rule(part) is Rule.KEEP:
            return "its rule is keep"
        if part.role is PartitionRole.BIOS_BOOT:
            return "the boot loader finds it by its place"
        if part.type in _MAPPED_TYPES:
            return "it belongs to a dynamic disk or a storage space of Windows"
        if part.role in (PartitionRole.MSR, PartitionRole.EXTENDED):
            return ""
        if filesystem is not None and (
            filesystem.kind in MOVABLE or filesystem.kind in RELOCATABLE or filesystem.detail in MOVABLE_CONTAINERS
        ):
            return ""
        return "its content may depend on its place"

    def _least(self, part: Partition, size: int) -> tuple[int, Means]:
        """Bytes it can be cut to, and how; its size when it cannot be cut."""
        kind = part.filesystem.kind if part.filesystem else None
        if keeps_size(part) or (kind not in SHRINKABLE | REMAKEABLE and not holds_container(part)):
            return size, Means.STREAM
        least = self._wishes.least(part)
        if isinstance(least, str):
            self._firm[part.number] = least
            return size, Means.STREAM
        # What is stored of a container is its header: it is streamed, and what lies in the container is made smaller.
        made = Means.STREAM if holds_container(part) else Means.REMAKE
        return min(size, max(align_up(least), ALIGNMENT)), Means.SHRINK if kind in SHRINKABLE else made

    def _bounds(self, part: Partition, rule: PartitionRule | None, size: int, least: int) -> tuple[int, int]:
        """The size wanted, and the least it may be cut to."""
        swap = part.filesystem is not None and part.filesystem.kind is FilesystemKind.SWAP
        if rule is None:
            # Who hibernates needs all of the swap there is: it is cut only when a rule says so.
            return size, size if swap else least
        if rule.rule in (Rule.GROW, Rule.SHRINK) and keeps_size(part):
            role = part.role.value if part.role in _KEEP_SIZE else "recovery"
            self._reasons.append(f"partition {part.number} ({role}) keeps its size: the rule {rule.rule} is not for it")
        elif rule.rule is Rule.GROW:
            return self._grown(part, rule, size)
        elif rule.rule is Rule.SHRINK:
            return self._shrunk(part, rule, size, least)
        return size, size

    def _grown(self, part: Partition, rule: PartitionRule, size: int) -> tuple[int, int]:
        if not self._growable(part):
            self._reasons.append(f"partition {part.number} cannot grow: this version cannot grow {_content(part)}")
            return size, size
        wanted = align_up(rule.size) if rule.size else size
        if wanted < size:
            self._reasons.append(
                f"partition {part.number} cannot grow to {rule.size} bytes ({format_size(rule.size)}): "
                f"it has {size} bytes ({format_size(size)})"
            )
            return size, size
        return wanted, wanted

    def _shrunk(self, part: Partition, rule: PartitionRule, size: int, least: int) -> tuple[int, int]:
        if least >= size and (not rule.size or rule.size < size):
            self._reasons.append(f"partition {part.number} cannot be made smaller: {self._why_not_smaller(part)}")
            return size, size
        wanted = align_up(rule.size) if rule.size else least
        if wanted < least:
            self._reasons.append(
                f"partition {part.number} cannot be made as small as {rule.size} bytes ({format_size(rule.size)}): "
                f"its content needs {least} bytes ({format_size(least)}), {least - rule.size} more"
            )
        elif wanted > size:
            self._reasons.append(
                f"partition {part.number} cannot shrink to {rule.size} bytes ({format_size(rule.size)}): "
                f"it has {size} bytes ({format_size(size)})"
            )
        bounded = min(max(wanted, least), size)
        return bounded, bounded

    def _why_not_smaller(self, part: Partition) -> str:
        kind = part.filesystem.kind if part.filesystem else None
        if kind in SHRINKABLE | REMAKEABLE or holds_container(part):
            return self._firm.get(part.number, "its content needs all of it")
        return f"this version cannot shrink {_content(part)}"


def holds_container(part: Partition) -> bool:
    """Whether it is a member of an array, a volume group or an encrypted container."""
    return part.filesystem is not None and part.filesystem.detail in MOVABLE_CONTAINERS


def _content(part: Partition) -> str:
    filesystem = part.filesystem
    if filesystem is None or (filesystem.kind is FilesystemKind.UNKNOWN and not filesystem.detail):
        return "what lies in it"
    return filesystem.detail or filesystem.kind.value
