"""Fit: where the partitions of a source disk go on a target disk, and by what means each content gets there.

Pure arithmetic: a disk of the layout and a size in, a table and seats out, or every reason why not. Nothing is read.
The source's table is kept as it is where that is possible; what has to change is changed in this order: partitions
move, then filesystems shrink, then filesystems are made anew.
"""

from collections.abc import Sequence

import msgspec

from core.units import ALIGNMENT, align_up, format_size
from images.model.layout import Disk, FilesystemKind, Partition, PartitionRole, PartitionTable
from restore.fit.area import Area
from restore.fit.conversion import Conversion, converted
from restore.fit.made import make_table
from restore.fit.notes import shown, told
from restore.fit.rooms import Place, Room, Settled, least_end, rooms, settle
from restore.fit.tenants import House, holds_container, house
from restore.fit.wishes import Wishes, nothing_shrinks
from restore.planning.abilities import GROWABLE, RELOCATABLE, REMAKEABLE
from restore.planning.rules import Growth, Rule, TableChoice
from restore.planning.seat import Means, Seat


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted table.

    Attributes:
        table: None for a disk without a table, and where there are reasons.
        seats: each partition of the source that goes to the target, in order of number.
        reasons: why it does not fit; the rest is then not to be used.
        notes: what the person should know.
        converted: the table is of another kind than the source's, or counts in other sectors: boot code and boot
            area of the source are of no use there.
        roomy: bytes of the smallest disk with what is good to have (``Wishes.bare``), when this one lacks it; else 0.
    """

    table: PartitionTable | None = None
    seats: tuple[Seat, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    converted: bool = False
    roomy: int = 0


def smallest_target(disk: Disk, wishes: Wishes | None = None, sector_size: int = 0) -> int:
    """Bytes of the smallest disk that takes ``disk``: moved together, and shrunk as far as the contents allow.

    Args:
        sector_size: of that disk; 0 for the source's.
    """
    return _smallest_by(disk, (wishes or Wishes()).barely, sector_size or disk.sector_size)


def _smallest_by(disk: Disk, wishes: Wishes, sector_size: int) -> int:
    """The same by ``wishes.least``."""
    if disk.table is None:
        return _least_bare(disk, wishes)
    return _smallest(disk, wishes, converted(disk, disk.size, sector_size, wishes))


def _smallest(disk: Disk, wishes: Wishes, conversion: Conversion) -> int:
    area = conversion.area
    found = rooms(house(disk, area, wishes).tenants, area)
    return area.disk_for(least_end(found[-1]) if found else area.start)


def fit(disk: Disk, size: int, sector_size: int, wishes: Wishes | None = None) -> Fit:
    """Place the partitions of ``disk`` on a target.

    Args:
        size, sector_size: of the target, in bytes.
    """
    asked = wishes or Wishes()
    fitted = _in_one(disk, size, sector_size, asked)
    if fitted.reasons and asked.bare is not None:
        fitted = _in_one(disk, size, sector_size, asked.barely)
        if not fitted.reasons:
            fitted = msgspec.structs.replace(fitted, roomy=_smallest_by(disk, asked, sector_size))
    if disk.table is None or fitted.reasons or size >= disk.size:
        return fitted
    least = smallest_target(disk, asked, sector_size)
    note = f"The smallest disk that would do has {least} bytes ({format_size(least)})."
    return msgspec.structs.replace(fitted, notes=(*fitted.notes, note))


def _in_one(disk: Disk, size: int, sector_size: int, asked: Wishes) -> Fit:
    """By ``asked.least`` alone."""
    if disk.table is not None:
        return _least_change(disk, size, sector_size, asked)
    stays = asked.grows_into_rest and disk.id not in asked.growable
    alone = ("The disk has no partition table: its filesystem does not grow.",) if stays else ()
    return Fit(reasons=_against_bare(disk, size, sector_size, asked), notes=alone)


def _least_change(disk: Disk, size: int, sector_size: int, asked: Wishes) -> Fit:
    if not any(rule.rule is Rule.SHRINK for rule in asked.rules):
        # Where nothing has to shrink, nobody asks how much the contents need: that is read from the image.
        fitted = _fit(disk, size, sector_size, msgspec.structs.replace(asked, least=nothing_shrinks))
        if not fitted.reasons:
            return fitted
    return _fit(disk, size, sector_size, asked)


def _fit(disk: Disk, size: int, sector_size: int, asked: Wishes) -> Fit:
    conversion = converted(disk, size, sector_size, asked)
    home = house(disk, conversion.area, asked)
    found = rooms(home.tenants, conversion.area)
    settled = [settle(room) for room in found]
    reasons = [*conversion.reasons, *home.reasons, *_too_low(home, conversion.area)]
    # Between partitions that cannot move, the size of the target changes nothing.
    reasons += [
        _no_room(room, done) for room, done in zip(found, settled, strict=True) if room.behind and not done.places
    ]
    area = conversion.area
    if size < ALIGNMENT or area.end < area.start or (settled and not settled[-1].places):
        smallest = _smallest(disk, asked, conversion)
        if size < smallest:
            reasons += [_too_small(size, smallest), *home.firm]
        else:
            reasons.append(f"{settled[-1].short} bytes are missing before byte {area.end}, where a dos table ends")
    if reasons:
        return Fit(reasons=tuple(reasons))
    places = [place for done in settled for place in done.places]
    stuck, no_space = _not_grown(found, settled, asked)
    if stuck:
        return Fit(reasons=stuck)
    table = make_table(disk, conversion.table, conversion.area, home, places)
    if conversion.boot is not None:
        parts = (*table.partitions, conversion.boot)
        table = msgspec.structs.replace(table, partitions=parts, first_usable_lba=conversion.boot.start_lba)
    return Fit(
        table=table,
        seats=_seats(table, home, places),
        notes=(*conversion.notes, *told(disk, table, home, places), *no_space),
        converted=conversion.changed,
    )


def _against_bare(disk: Disk, size: int, sector_size: int, wishes: Wishes) -> tuple[str, ...]:
    """Why a disk without a table does not go there; it is one volume, and stays as it is."""
    reasons: list[str] = []
    if sector_size != disk.sector_size:
        answer = wishes.conversion(_whole(disk), disk.sector_size, sector_size)
        if not isinstance(answer, Means):
            reasons.append(answer)
        elif answer is not Means.STREAM:
            reasons.append(f"a disk without a partition table is not converted to sectors of {sector_size} bytes")
    if size < disk.size and size < (least := _least_bare(disk, wishes)):
        reasons.append(_too_small(size, least))
    if wishes.rules:
        reasons.append("there are rules for partitions, and the disk has no partition table")
    if wishes.table is TableChoice.GPT:
        reasons.append("the disk has no partition table that could become a GPT")
    return tuple(reasons)


def _whole(disk: Disk) -> Partition:
    """A disk without a table as what its one volume would be on a disk that has one."""
    return Partition(
        id=disk.id,
        number=1,
        start_lba=0,
        sector_count=disk.size // disk.sector_size,
        type="",
        role=PartitionRole.PRIMARY,
        filesystem=disk.filesystem,
    )


def _least_bare(disk: Disk, wishes: Wishes) -> int:
    """What a disk without a table needs: a stack on it can be made smaller, a filesystem keeps its size."""
    whole = _whole(disk)
    found = wishes.least(whole) if holds_container(whole) else disk.size
    return min(align_up(found), disk.size) if isinstance(found, int) else disk.size


def _too_small(size: int, least: int) -> str:
    return (
        f"the target is {least - size} bytes too small: it has {size} bytes ({format_size(size)}), "
        f"the smallest that would do has {least} bytes ({format_size(least)})"
    )


def _too_low(home: House, area: Area) -> list[str]:
    return [
        f"partition {tenant.partition.number} starts at byte {tenant.start}, where the new table needs the bytes to "
        f"{area.start}, and cannot be moved: {tenant.pinned}"
        for tenant in home.tenants
        if tenant.pinned and tenant.start < area.start
    ]


def _no_room(room: Room, done: Settled) -> str:
    assert room.behind is not None
    numbers = shown([tenant.partition.number for tenant in room.tenants])
    return (
        f"partition {numbers} does not fit before partition {room.behind.partition.number}, which cannot be moved "
        f"({room.behind.pinned}): {done.short} bytes are missing"
    )


def _not_grown(found: Sequence[Room], settled: Sequence[Settled], wishes: Wishes) -> tuple[tuple[str, ...], list[str]]:
    """Reasons why somebody who was asked to grow did not, because of what is fixed behind; and notes for the rest."""
    named = {rule.partition for rule in wishes.rules}
    reasons: list[str] = []
    notes: list[str] = []
    grown = False
    for room, done in zip(found, settled, strict=True):
        growing = [place for place in done.places if place.tenant.grows]
        gained = any(place.size > place.tenant.size for place in growing)
        grown = grown or gained
        if not growing or gained or room.behind is None:
            continue
        numbers = [place.tenant.partition.number for place in growing]
        stuck = (
            f"artition {shown(numbers)} cannot grow: partition {room.behind.partition.number} lies behind and cannot "
            f"be moved: {room.behind.pinned}"
        )
        if wishes.growth is Growth.LAST or named.intersection(numbers):
            reasons.append(f"p{stuck}")
        else:
            notes.append(f"P{stuck}.")
    if not grown and not notes and wishes.grows_into_rest:
        notes.append("There is no space to grow into.")
    return tuple(reasons), notes


def _seats(table: PartitionTable, home: House, places: Sequence[Place]) -> tuple[Seat, ...]:
    made = {part.id: part for part in table.partitions}
    seats = [_seat(place, made[place.tenant.partition.id]) for place in places]
    seats += [Seat(source=part, partition=made[part.id], means=Means.EMPTY) for part in home.extended]
    return tuple(sorted(seats, key=lambda seat: seat.partition.number))


def _seat(place: Place, partition: Partition) -> Seat:
    tenant = place.tenant
    kind = tenant.partition.filesystem.kind if tenant.partition.filesystem else FilesystemKind.UNKNOWN
    means = tenant.means
    if place.size < tenant.size:
        means = tenant.cut
    elif place.size > tenant.size and means is Means.STREAM and kind in REMAKEABLE - GROWABLE:
        means = Means.REMAKE
    stored = means in (Means.STREAM, Means.SHRINK)
    # Boot sectors count in sectors: in others they are to be corrected even where the bytes stay.
    moved = (partition.start_lba, place.start) != (tenant.partition.start_lba, tenant.start)
    return Seat(
        source=tenant.partition,
        partition=partition,
        means=means,
        grow=place.size > tenant.size and means is Means.STREAM,
        relocate=stored and kind in RELOCATABLE and moved,
    )
