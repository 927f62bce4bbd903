"""Pages: the nodes of a volume's map from chunk number to chunk id (docs/image-format.md §5).

Writing takes sorted slots and keeps one open page for each level; reading walks depth first.
Neither holds more than one page a level, whatever the size of the volume.
"""

import struct
from collections.abc import Callable, Iterable, Iterator

import msgspec

from core.errors import DamagedError
from images.store.records import ID_SIZE

FAN_OUT = 256
PAGE_MAGIC = b"LRTP"
HEADER_SIZE = 72
_HEADER = struct.Struct("<4sB3x32s32s")


class Slot(msgspec.Struct, frozen=True):
    """Chunk ``number`` of a volume; ``id`` is None when the chunk is allocated and all zero."""

    number: int
    id: bytes | None


class Page(msgspec.Struct, frozen=True):
    """A decoded page: slots by number inside the page, 0 to 255."""

    level: int
    ids: dict[int, bytes]
    zeros: frozenset[int]


def height_for(chunks: int) -> int:
    """The level of the root page of a volume of that many chunks."""
    height = 0
    while FAN_OUT ** (height + 1) < chunks:
        height += 1
    return height


def encode_page(page: Page) -> bytes:
    """Canonical bytes of a page."""
    return _HEADER.pack(PAGE_MAGIC, page.level, _bitmap(page.ids), _bitmap(page.zeros)) + b"".join(
        page.ids[slot] for slot in sorted(page.ids)
    )


def decode_page(data: bytes, level: int, where: str) -> Page:
    """The page in ``data``.

    Raises:
        DamagedError: it breaks a rule of §5; ``where`` names the page.
    """
    if len(data) < HEADER_SIZE:
        raise DamagedError(f"{where}: the page has {len(data)} bytes, fewer than its header.")
    magic, found_level, id_map, zero_map = _HEADER.unpack_from(data)
    if magic != PAGE_MAGIC or found_level != level:
        raise DamagedError(f"{where}: magic {magic.hex()} level {found_level}, expected {PAGE_MAGIC.hex()} {level}.")
    slots, zeros = _set_slots(id_map), _set_slots(zero_map)
    if len(data) != HEADER_SIZE + ID_SIZE * len(slots):
        raise DamagedError(f"{where}: {len(data)} bytes do not fit {len(slots)} ids.")
    if (zeros and level) or set(slots) & set(zeros) or not (slots or zeros):
        raise DamagedError(f"{where}: the page's bitmaps contradict each other.")
    places = range(HEADER_SIZE, len(data), ID_SIZE)
    ids = {slot: data[at : at + ID_SIZE] for slot, at in zip(slots, places, strict=True)}
    return Page(level, ids, frozenset(zeros))


def write_tree(slots: Iterable[Slot], chunks: int, store: Callable[[bytes], bytes]) -> bytes | None:
    """Store the pages of a volume.

    Args:
        slots: allocated chunks, sorted by number.
        chunks: number of chunks of the volume.
        store: keeps a page's bytes and returns its id.

    Returns:
        The root's id; None when there is no slot.
    """
    height = height_for(chunks)
    open_ids: list[dict[int, bytes]] = [{} for _ in range(height + 1)]
    zeros: set[int] = set()
    position = -1

    def close(level: int, at: int) -> bytes | None:
        """Store the open page of ``level`` (its position is ``at``) and enter it into the level above."""
        page = Page(level, open_ids[level], frozenset(zeros) if level == 0 else frozenset())
        if not page.ids and not page.zeros:
            return None
        identifier = store(encode_page(page))
        open_ids[level] = {}
        if level == 0:
            zeros.clear()
        if level < height:
            open_ids[level + 1][at % FAN_OUT] = identifier
        return identifier

    for slot in slots:
        if slot.number <= position or slot.number >= chunks:
            raise ValueError(f"slot {slot.number} after {position} of {chunks}")
        if position >= 0:
            for level in range(height):
                span = FAN_OUT ** (level + 1)
                if position // span == slot.number // span:
                    break
                close(level, position // span)
        position = slot.number
        if slot.id is None:
            zeros.add(slot.number % FAN_OUT)
        else:
            open_ids[0][slot.number % FAN_OUT] = slot.id
    if position < 0:
        return None
    root = None
    for level in range(height + 1):
        root = close(level, position // FAN_OUT ** (level + 1))
    return root


def read_tree(root: bytes | None, chunks: int, fetch: Callable[[bytes], bytes], where: str) -> Iterator[Slot]:
    """The slots of a volume, sorted by number.

    Args:
        fetch: the proven content of a page id.
        where: names the volume in errors.
    """
    if root is not None:
        yield from _walk(root, height_for(chunks), 0, chunks, fetch, where)


def _walk(
    identifier: bytes, level: int, first: int, chunks: int, fetch: Callable[[bytes], bytes], where: str
) -> Iterator[Slot]:
    page = _fetch_page(identifier, level, fetch, where)
    span = FAN_OUT**level
    for slot in sorted({*page.ids, *page.zeros}):
        number = first + slot * span
        if number >= chunks:
            raise DamagedError(f"{where}: a page names chunk {number}, the volume has {chunks}.")
        if level:
            yield from _walk(page.ids[slot], level - 1, number, chunks, fetch, where)
        else:
            yield Slot(number, page.ids.get(slot))


class Change(msgspec.Struct, frozen=True):
    """Chunk ``number`` of two volumes differs; None where a side has nothing allocated there."""

    number: int
    old: Slot | None
    new: Slot | None


def find_slot(root: bytes | None, chunks: int, number: int, fetch: Callable[[bytes], bytes], where: str) -> Slot | None:
    """Look up one chunk, reading one page a level. None: not allocated.

    Raises:
        ValueError: the volume has no such chunk. DamagedError: as :func:`read_tree`.
    """
    if not 0 <= number < chunks:
        raise ValueError(f"chunk {number} of {chunks}")
    identifier = root
    for level in range(height_for(chunks), -1, -1):
        if identifier is None:
            return None
        page = _fetch_page(identifier, level, fetch, where)
        slot = number // FAN_OUT**level % FAN_OUT
        if level == 0 and slot in page.zeros:
            return Slot(number, None)
        identifier = page.ids.get(slot)
    return None if identifier is None else Slot(number, identifier)


def diff_trees(
    old: tuple[bytes | None, int], new: tuple[bytes | None, int], fetch: Callable[[bytes], bytes], where: str
) -> Iterator[Change]:
    """The chunks in which two volumes differ, sorted by number; a page that both share is not read.

    Args:
        old, new: root and number of chunks. The numbers may differ: the shorter volume is read as the beginning
            of the longer one.
    """
    if max(old[1], new[1]) == 0:
        return
    height = height_for(max(old[1], new[1]))
    sides = tuple(_Side(root, height_for(max(chunks, 1)), chunks) for root, chunks in (old, new))
    yield from _diff(sides[0], sides[1], height, 0, fetch, where)


class _Side(msgspec.Struct, frozen=True):
    """One side of a difference at some position: what is below it, and the level that root is of."""

    root: bytes | None
    height: int
    chunks: int

    def children(self, level: int, fetch: Callable[[bytes], bytes], where: str) -> Page:
        """The page at ``level``; where the volume's own tree is lower, it is slot 0 of an imagined page."""
        if self.root is None:
            return Page(level, {}, frozenset())
        if level > self.height:
            return Page(level, {0: self.root}, frozenset())
        return _fetch_page(self.root, level, fetch, where)

    def at(self, root: bytes | None) -> "_Side":
        return _Side(root, self.height, self.chunks)


def _diff(
    old: _Side, new: _Side, level: int, first: int, fetch: Callable[[bytes], bytes], where: str
) -> Iterator[Change]:
    if old.root == new.root:
        return
    left, right = old.children(level, fetch, where), new.children(level, fetch, where)
    span = FAN_OUT**level
    for slot in sorted({*left.ids, *left.zeros, *right.ids, *right.zeros}):
        number = first + slot * span
        for side, page in ((old, left), (new, right)):
            if number >= side.chunks and (slot in page.ids or slot in page.zeros):
                raise DamagedError(f"{where}: a page names chunk {number}, the volume has {side.chunks}.")
        if level:
            yield from _diff(old.at(left.ids.get(slot)), new.at(right.ids.get(slot)), level - 1, number, fetch, where)
        elif (before := _slot(left, slot, number)) != (after := _slot(right, slot, number)):
            yield Change(number, before, after)


def _slot(page: Page, slot: int, number: int) -> Slot | None:
    return Slot(number, page.ids.get(slot)) if slot in page.ids or slot in page.zeros else None


def _fetch_page(identifier: bytes, level: int, fetch: Callable[[bytes], bytes], where: str) -> Page:
    return decode_page(fetch(identifier), level, f"{where}, page {identifier.hex()[:16]}…")


def _bitmap(slots: Iterable[int]) -> bytes:
    value = 0
    for slot in slots:
        value |= 1 << slot
    return value.to_bytes(FAN_OUT // 8, "little")


def _set_slots(bitmap: bytes) -> list[int]:
    value = int.from_bytes(bitmap, "little")
    return [slot for slot in range(FAN_OUT) if value >> slot & 1]
