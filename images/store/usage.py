"""Usage: of every pack, what recovery points use; and from that, which packs prune deletes and which it rewrites.

Arithmetic over indexes and the census; nothing is changed here.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from images.store.census import Census
from images.store.index_table import ENTRY, Mask
from images.store.index_tables import IndexTables
from images.store.records import PACK_HEADER_SIZE

#: Entries that are sorted together, by ranges of their first byte: bounds the memory of :func:`choose_kept`.
_TOGETHER = 1 << 18

_PLACE = np.dtype([("entry", ENTRY), ("table", "<i4"), ("row", "<i8"), ("rank", "<i8")])


class PackUse(msgspec.Struct, frozen=True):
    """A pack. Bytes: ``size`` of the file, ``kept`` of the records that must stay in it."""

    id: bytes
    size: int
    kept: int

    @property
    def unused(self) -> int:
        """Bytes that nobody needs."""
        return max(self.size - PACK_HEADER_SIZE - self.kept, 0)


class PrunePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What prune will do: packs to delete, packs to rewrite (the emptiest first), packs that stay."""

    delete: tuple[PackUse, ...]
    rewrite: tuple[PackUse, ...]
    stay: tuple[PackUse, ...]

    @property
    def freed(self) -> int:
        """Bytes that will be free at the end."""
        return sum(pack.size for pack in self.delete) + sum(pack.unused for pack in self.rewrite)


class Limit(msgspec.Struct, frozen=True):
    """How much unused may stay in the packs: a share (0 to 1) of what is stored afterwards, or bytes."""

    share: float = 0.05
    size: int | None = None

    def allowed(self, used: int) -> int:
        """Bytes, for so many used ones."""
        if self.size is not None:
            return self.size
        return int(used * self.share / (1 - self.share)) if self.share < 1 else 1 << 62


class Kept(msgspec.Struct, frozen=True):
    """Of every used record the one copy that stays: masks over the entries of each index.

    Attributes:
        masks: what stays. alone: which of them are chosen among copies in several places, so that the fate of the
            record hangs on them.
    """

    masks: tuple[Mask, ...]
    alone: tuple[Mask, ...]


def choose_kept(tables: IndexTables, census: Census, damaged: frozenset[bytes]) -> Kept:
    """Choose.

    A record may lie in several packs (two machines stored it at the same time). The copy in the pack that holds
    most of what is used stays, so that the others empty; one in a damaged pack only when there is no other.
    """
    rank = _ranks(tables, census, damaged)
    kept = tuple(np.zeros(count, dtype=np.bool_) for count in tables.counts)
    alone = tuple(np.zeros(count, dtype=np.bool_) for count in tables.counts)
    step = max(min(256 * _TOGETHER // max(sum(tables.counts), 1), 256), 1)
    for first in range(0, 256, step):
        places = _used_places(tables, census, rank, first, min(first + step, 256))
        if not len(places):
            continue
        ids = np.frombuffer(np.ascontiguousarray(places["entry"]["id"]).tobytes(), dtype=">u8").reshape(-1, 4)
        order = np.lexsort((places["rank"], ids[:, 3], ids[:, 2], ids[:, 1], ids[:, 0]))
        ids, places = ids[order], places[order]
        (starts,) = np.nonzero(np.concatenate(([True], (ids[1:] != ids[:-1]).any(axis=1))))
        # The last of a group lies in another place than the first: then there are copies.
        ends = np.append(starts[1:], len(places)) - 1
        several = (places["rank"][starts] != places["rank"][ends]) | (
            places["entry"]["offset"][starts] != places["entry"]["offset"][ends]
        )
        chosen = places[starts]
        for number in range(len(kept)):
            here = chosen["table"] == number
            kept[number][chosen["row"][here]] = True
            alone[number][chosen["row"][here & several]] = True
    return Kept(kept, alone)


def _ranks(tables: IndexTables, census: Census, damaged: frozenset[bytes]) -> dict[bytes, int]:
    """Packs by the used bytes they hold, most first; damaged ones last."""
    used: dict[bytes, int] = {}
    for pack, size in _sums(tables, census.used):
        used[pack] = max(used.get(pack, 0), size)
    order = sorted(used, key=lambda pack: (pack in damaged, -used[pack], pack))
    return {pack: number for number, pack in enumerate(order)}


def _used_places(
    tables: IndexTables, census: Census, rank: dict[bytes, int], first: int, last: int
) -> npt.NDArray[np.void]:
    """The used entries of all indexes whose ids begin with the bytes ``first`` to ``last``, not included."""
    found: list[npt.NDArray[np.void]] = []
    for number, packs in enumerate(tables.packs):
        low, entries = tables.part(number, first, last)
        (hits,) = np.nonzero(census.used[number][low : low + len(entries)])
        if not len(hits):
            continue
        ranks = np.array([rank[pack] for pack in packs], dtype=np.int64)
        places = np.zeros(len(hits), dtype=_PLACE)
        places["entry"], places["table"], places["row"] = entries[hits], number, hits + low
        places["rank"] = ranks[places["entry"]["pack"]]
        found.append(places)
    return np.concatenate(found) if found else np.zeros(0, dtype=_PLACE)


def _sums(tables: IndexTables, masks: tuple[Mask, ...]) -> Iterator[tuple[bytes, int]]:
    """Bytes of the masked records for each pack of each index."""
    for table, mask in zip(tables, masks, strict=True):
        weights = np.where(mask, table.lengths(), 0)
        sums = np.bincount(table.entries["pack"], weights=weights, minlength=len(table.packs))
        for pack, size in zip(table.packs, sums.tolist(), strict=True):
            yield pack, int(size)


def not_covered(tables: IndexTables) -> frozenset[bytes]:
    """Packs that hold more than the indexes say: what could not be read when these were made or repaired."""
    left = {pack: size - PACK_HEADER_SIZE for pack, size in tables.pack_sizes().items()}
    for pack, size in _sums(tables, tuple(np.ones(count, dtype=np.bool_) for count in tables.counts)):
        left[pack] -= size
    return frozenset(pack for pack, size in left.items() if size > 0)


def plan_prune(
    tables: IndexTables,
    kept: tuple[Mask, ...],
    limit: Limit,
    damaged: frozenset[bytes],
    held: frozenset[bytes] = frozenset(),
) -> PrunePlan:
    """Decide.

    Args:
        damaged: packs that are missing or have the wrong size: they are never rewritten, and deleted only when unused.
        held: packs that stay as they are.
    """
    totals: dict[bytes, int] = dict.fromkeys(tables.pack_sizes(), 0)
    for identifier, size in _sums(tables, kept):
        totals[identifier] += size
    packs = [PackUse(identifier, size, totals[identifier]) for identifier, size in tables.pack_sizes().items()]
    delete = [pack for pack in packs if not pack.kept and pack.id not in held]
    untouched = damaged | held
    partly = [pack for pack in packs if pack.kept and pack.unused and pack.id not in untouched]
    allowed = limit.allowed(sum(pack.kept for pack in packs))
    left = sum(pack.unused for pack in partly)
    rewrite: list[PackUse] = []
    for pack in sorted(partly, key=lambda pack: (-pack.unused / pack.size, pack.id)):
        if left <= allowed:
            break
        rewrite.append(pack)
        left -= pack.unused
    chosen = {pack.id for pack in (*delete, *rewrite)}
    return PrunePlan(
        delete=tuple(delete), rewrite=tuple(rewrite), stay=tuple(pack for pack in packs if pack.id not in chosen)
    )
