"""Rooms: the stretches of the target between partitions that cannot be moved, and how tenants are placed in one.

Everything is bytes. A room begins where its first tenant is pinned, or where partitions may begin; it ends before the
next pinned tenant, or where partitions must end. The order of tenants never changes.
"""

from collections.abc import Sequence

import msgspec

from core.units import ALIGNMENT, align_down, align_up
from restore.fit.area import Area
from restore.fit.tenants import Tenant
from restore.planning.seat import Means


class Place(msgspec.Struct, frozen=True):
    """Where a tenant goes. Bytes."""

    tenant: Tenant
    start: int
    size: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch ``start`` to ``end`` with its tenants; only the first can be pinned, and then it lies at ``start``.

    ``usable``, ``first``: where a partition that stays, and one that is moved, may start at the earliest. ``behind``:
    the pinned tenant that ends the room, None at the end of the disk.
    """

    start: int
    end: int
    usable: int
    first: int
    tenants: tuple[Tenant, ...]
    behind: Tenant | None = None


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A room with everybody placed, or nobody: then it is ``short`` bytes too small. ``lying``: all stay exactly where
    they were."""

    places: tuple[Place, ...] = ()
    short: int = 0
    lying: bool = False


def rooms(tenants: Sequence[Tenant], area: Area) -> list[Room]:
    """Divide an area at the pinned tenants."""
    found: list[Room] = []

    def close(end: int, behind: Tenant | None) -> None:
        if inside:
            room = Room(start=start, end=end, usable=area.start, first=area.first, tenants=tuple(inside), behind=behind)
            found.append(room)

    start, inside = area.first, list[Tenant]()
    for tenant in tenants:
        if tenant.pinned:
            close(tenant.start - tenant.head, tenant)
            start, inside = tenant.start, [tenant]
        else:
            inside.append(tenant)
    close(area.end, None)
    return found


def least_end(room: Room) -> int:
    """Where the room must end at the earliest, by whatever means."""
    packed = _end(_chain(room, [tenant.floor for tenant in room.tenants]))
    return min(packed, room.tenants[-1].end) if _may_lie(room) else packed


def settle(room: Room) -> Settled:
    """Place the tenants of a room: change the least that has to be changed.

    They lie as they were when all start on the boundary; else they are moved onto it; where there is no room for that
    they lie as they were; and at last those that can are made smaller.
    """
    lies = _may_lie(room) and room.tenants[-1].end <= room.end
    aligned = all(tenant.pinned or tenant.start % ALIGNMENT == 0 for tenant in room.tenants)
    growing = any(tenant.grows for tenant in room.tenants)
    wanted = [tenant.wanted for tenant in room.tenants]
    if lies and aligned and not growing:
        return _lying(room)
    if _end(_chain(room, wanted)) <= room.end:
        placed = _placed(room, wanted)
        return Settled(places=tuple(_grown(room, placed) if growing else placed))
    if lies:
        return _lying(room)
    sizes = _cut(room, wanted)
    if sizes is None:
        return Settled(short=least_end(room) - room.end)
    return Settled(places=tuple(_placed(room, sizes)))


def _lying(room: Room) -> Settled:
    return Settled(places=tuple(Place(tenant, tenant.start, tenant.size) for tenant in room.tenants), lying=True)


def _may_lie(room: Room) -> bool:
    """Whether everybody could stay: nothing is asked that changes a size or a place, and nobody is below the first."""
    return all(
        tenant.wanted == tenant.size and not tenant.closes and tenant.start >= room.usable and tenant.whole
        for tenant in room.tenants
    )


def _chain(room: Room, sizes: Sequence[int], begin: int = 0, start: int | None = None) -> list[Place]:
    """Everybody from ``begin`` on as far to the front as can be, the first at ``start`` when it is given."""
    places: list[Place] = []
    for index in range(begin, len(sizes)):
        tenant = room.tenants[index]
        if places:
            at = _behind(room, places[-1].end, tenant)
        elif start is not None:
            at = start
        else:
            at = room.start if tenant.pinned else _behind(room, room.start, tenant)
        places.append(Place(tenant, at, sizes[index]))
    return places


def _behind(room: Room, end: int, tenant: Tenant) -> int:
    return max(align_up(end + tenant.head), align_up(room.first + tenant.head))


def _end(places: Sequence[Place]) -> int:
    return places[-1].end


def _placed(room: Room, sizes: Sequence[int]) -> list[Place]:
    """Everybody as near to the old place as the sizes allow; they must fit."""
    latest = _latest(room, sizes)
    places: list[Place] = []
    for index, tenant in enumerate(room.tenants):
        if tenant.pinned:
            places.append(Place(tenant, room.start, sizes[index]))
            continue
        earliest = _behind(room, places[-1].end if places else room.start, tenant)
        wish = earliest if tenant.closes else align_up(tenant.start) - _freed(room, index, sizes)
        places.append(Place(tenant, max(earliest, min(wish, latest[index])), sizes[index]))
    return places


def _latest(room: Room, sizes: Sequence[int]) -> list[int]:
    """The last starts at which everybody behind still fits."""
    starts: list[int] = []
    limit = room.end
    for tenant, size in zip(reversed(room.tenants), reversed(sizes), strict=True):
        starts.append(align_down(limit - size))
        limit = starts[-1] - tenant.head
    return starts[::-1]


def _freed(room: Room, index: int, sizes: Sequence[int]) -> int:
    """Bytes before a tenant that rules have freed and that somebody at or behind it will grow into."""
    if not any(tenant.grows for tenant in room.tenants[index:]):
        return 0
    freed = sum(tenant.freed for tenant in room.tenants[: index + 1])
    freed += sum(max(0, tenant.size - size) for tenant, size in zip(room.tenants[:index], sizes[:index], strict=True))
    return align_down(freed)


def _grown(room: Room, placed: list[Place]) -> list[Place]:
    """Share what is left among those that grow, by their sizes, in whole units; who stands behind is moved up."""
    begin = next(index for index, place in enumerate(placed) if place.tenant.grows)
    start = placed[begin].start
    sizes = [place.size for place in placed]
    if placed[begin].tenant.grows and start % ALIGNMENT:
        # A pinned one that does not start on the boundary can still end on it.
        sizes[begin] = align_up(placed[begin].end) - start
    growing = [index for index, place in enumerate(placed) if place.tenant.grows]
    full = [align_up(size) if index in growing and index != begin else size for index, size in enumerate(sizes)]
    if start % ALIGNMENT == 0:
        full[begin] = align_up(sizes[begin])
    units = (room.end - _end(_chain(room, full, begin, start))) // ALIGNMENT
    if units <= 0:
        return placed
    for index, share in zip(growing, _shares(units, [sizes[index] for index in growing]), strict=True):
        full[index] += share * ALIGNMENT
    return placed[:begin] + _chain(room, full, begin, start)


def _shares(units: int, weights: Sequence[int]) -> list[int]:
    """Divide whole units by weight; what rounding leaves goes to the largest remainders, the first of equals."""
    total = sum(weights)
    shares = [units * weight // total for weight in weights]
    order = sorted(range(len(weights)), key=lambda index: (-(units * weights[index] % total), index))
    for index in order[: units - sum(shares)]:
        shares[index] += 1
    return shares


def _cut(room: Room, wanted: Sequence[int]) -> list[int] | None:
    """Sizes at which everybody fits: first those a filesystem's own tool shrinks, by their free space; then those that
    are made anew; at last a /boot, which is small, and full with its next kernel.

    None when even the least sizes do not fit.
    """
    sizes = list(wanted)
    tools, anew = (Means.STREAM, Means.SHRINK), (Means.REMAKE,)
    for last, means in ((False, tools), (False, anew), (True, (*tools, *anew))):
        spare = [
            (align_up(size) - tenant.floor) // ALIGNMENT
            if (tenant.last, tenant.cut in means) == (last, True) and tenant.floor < size
            else 0
            for tenant, size in zip(room.tenants, sizes, strict=True)
        ]
        base = [align_up(size) if units else size for size, units in zip(sizes, spare, strict=True)]
        cuts = [0] * len(sizes)
        # Rounding to whole units can ask for a few more rounds, never for more than there are tenants and units.
        while sum(cuts) < sum(spare):
            over = _end(_chain(room, sizes)) - room.end
            if over <= 0:
                return sizes
            left = [units - cut for units, cut in zip(spare, cuts, strict=True)]
            units = min(align_up(over) // ALIGNMENT, sum(left))
            for index, share in enumerate(_shares(units, left)):
                cuts[index] += min(share, left[index])
            sizes = [
                size if not cut else least - cut * ALIGNMENT for size, least, cut in zip(sizes, base, cuts, strict=True)
            ]
    return sizes if _end(_chain(room, sizes)) <= room.end else None
