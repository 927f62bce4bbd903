"""Parity of packs: make it, look how pack and parity are, repair them (docs/image-format.md §11).

Works on any backend by reading ranges and writing whole files; nothing is written in place. It knows
blocks and checksums, not records: it brings back what was there when :func:`protect` ran, so whoever
protects a pack that is not fresh proves its records first. Whoever repairs holds the exclusive lock.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

import msgspec

from core.errors import DamagedError
from images.model.extents import Extent, merge
from images.store.backend import PARTIAL, Reader, Writer
from images.store.parity_code import ParitySums, rows_at_once
from images.store.parity_file import BlockFile, find_head, other_heads
from images.store.parity_head import CHECKSUM_SIZE, Geometry, Head, Parity, checksum, plan_geometry
from images.store.parity_solver import PackSolver, groups_at_once
from images.store.records import PACK_HEADER_SIZE, PACK_SIZE_LIMIT, check_pack_header
from images.store.repository import pack_name

_SHOWN = 8


class ParityState(StrEnum):
    """How the parity file of a pack is."""

    SOUND = "sound"
    #: Some of it is damaged; what is left still says what the pack must be.
    DAMAGED = "damaged"
    MISSING = "missing"
    #: No head is sound: it says nothing.
    UNUSABLE = "unusable"


class PackCondition(msgspec.Struct, frozen=True, kw_only=True):
    """A pack and its parity file, block by block.

    Attributes:
        pack: its id. size: bytes it must have; 0 when parity does not say.
        state: of the parity file. problem: a sentence when it is not sound, or when a disk refused to read.
        damaged: of the pack, whole blocks, merged; bytes behind its end count.
        damaged_parity: of the parity file.
        lost: those of ``damaged`` that parity cannot bring back.
    """

    pack: bytes
    size: int = 0
    state: ParityState
    problem: str = ""
    damaged: tuple[Extent, ...] = ()
    damaged_parity: tuple[Extent, ...] = ()
    lost: tuple[Extent, ...] = ()

    @property
    def known(self) -> bool:
        """Whether parity says anything about the pack."""
        return self.state in (ParityState.SOUND, ParityState.DAMAGED)

    @property
    def sound(self) -> bool:
        """Whether every block of the pack and of its parity is as it was."""
        return self.state is ParityState.SOUND and not self.damaged

    @property
    def repairable(self) -> bool:
        """Whether :func:`repair` makes it sound again."""
        return self.known and not self.lost


#: Looks at what a pack would become before anything is written; raises DamagedError to refuse.
Accept = Callable[[PackCondition, PackSolver], None]


def parity_name(pack: bytes) -> str:
    """The parity file of a pack."""
    return pack_name(pack).removesuffix(".pack") + ".parity"


def protect(backend: Writer, repository: bytes, pack: bytes, parity: Parity) -> int:
    """Make the parity of a pack that is complete, from what lies there now; an old parity file is replaced.

    Args:
        repository, pack: ids of 16 bytes.

    Returns:
        bytes of the parity file.

    Raises:
        DamagedError: the pack is not a pack of this repository, or changes meanwhile.
        DeviceError: it is missing or cannot be read, or the parity cannot be written.
    """
    name = pack_name(pack)
    size = backend.size(name)
    if not PACK_HEADER_SIZE <= size <= PACK_SIZE_LIMIT:
        raise DamagedError(
            f"{backend.location}/{name} has {size} bytes, expected {PACK_HEADER_SIZE} to {PACK_SIZE_LIMIT}."
        )
    header = backend.read_range(name, 0, PACK_HEADER_SIZE)
    check_pack_header(header, repository, pack, f"{backend.location}/{name}")
    geometry = plan_geometry(size, parity)
    _write_parity(backend, repository, pack, geometry, None)
    return geometry.file_size


def examine(backend: Reader, repository: bytes, pack: bytes, *, size: int = 0) -> PackCondition:
    """Read a pack and its parity file to the end and compare every block with its checksum.

    Args:
        size: bytes of the pack as an index has it; 0 when nobody knows.

    Raises:
        UnreachableError, DeviceError: a server does not answer, or not with the bytes.
            What is damaged or missing is in the result, not an error.
    """
    data, file = BlockFile(backend, pack_name(pack)), BlockFile(backend, parity_name(pack))
    if not file.exists:
        return PackCondition(pack=pack, state=ParityState.MISSING, problem=f"{file.place} is missing.")
    try:
        head = _head(file, repository, pack, size)
    except DamagedError as error:
        return PackCondition(pack=pack, state=ParityState.UNUSABLE, problem=error.message)
    return _compare(data, file, head)


def repair(
    backend: Writer, repository: bytes, pack: bytes, *, size: int = 0, accept: Accept | None = None
) -> PackCondition:
    """Make a pack and its parity file what they were, byte for byte; sound files are not touched.

    Args:
        size: bytes of the pack as an index has it; 0 when nobody knows.
        accept: asked before the pack is written anew, since parity does not know what is right (``parity_judge.py``).

    Returns:
        the condition before: its ``damaged`` and ``damaged_parity`` are repaired now.

    Raises:
        DamagedError: more is damaged than parity can bring back, or it says nothing, or ``accept`` refuses: nothing
            was changed. Or the disk does not keep what is written.
        DeviceError: a new file cannot be written; the old one is as it was. A pack is repaired before its parity.
    """
    before = examine(backend, repository, pack, size=size)
    if not before.repairable:
        raise _refusal(backend, before)
    if before.sound:
        return before
    data, file = BlockFile(backend, pack_name(pack)), BlockFile(backend, parity_name(pack))
    head = _head(file, repository, pack, size)
    if before.damaged:
        solver = PackSolver(data, file, head, together=groups_at_once(head.geometry))
        if accept is not None:
            accept(before, solver)
        _write_pack(backend, data, solver, head)
    if before.damaged_parity:
        _write_parity(backend, repository, pack, head.geometry, head)
    after = examine(backend, repository, pack, size=size)
    if not after.sound:
        raise DamagedError(
            f"{data.place} was repaired, and does not read back as it was written.",
            hint="The disk is failing: copy the repository to another one.",
        )
    return before


def read_repaired(backend: Reader, repository: bytes, pack: bytes) -> PackSolver:
    """A pack to be read through its parity, without repairing it: damaged blocks are solved on the way.

    Raises:
        DamagedError: its parity file is missing or says nothing.
    """
    data, file = BlockFile(backend, pack_name(pack)), BlockFile(backend, parity_name(pack))
    return PackSolver(data, file, find_head(file, repository, pack))


def _head(file: BlockFile, repository: bytes, pack: bytes, size: int) -> Head:
    head = find_head(file, repository, pack)
    if size and head.geometry.pack_size != size:
        raise DamagedError(
            f"{file.place} is the parity of a pack of {head.geometry.pack_size} bytes; the index says {size}."
        )
    return head


def _compare(data: BlockFile, file: BlockFile, head: Head) -> PackCondition:
    geometry = head.geometry
    whole = Extent(0, geometry.pack_size)
    bad = list(_erased(data.blocks(whole, geometry.block_size), head.blocks))
    bad_parity: list[int] = []
    for row in range(geometry.parity_blocks):
        start = geometry.row_offset(row)
        blocks = file.blocks(Extent(start, start + geometry.row_size), geometry.block_size)
        first = row * geometry.groups
        checksums = head.parity[first * CHECKSUM_SIZE : (first + geometry.groups) * CHECKSUM_SIZE]
        bad_parity += [first + number for number in _erased(blocks, checksums)]
    erased = Counter(number % geometry.groups for number in (*bad, *bad_parity))
    places = [geometry.parity_block(number) for number in bad_parity]
    damaged_parity = [*places, *other_heads(file, head), *_behind(file, geometry.file_size)]
    lost = [number for number in bad if erased[number % geometry.groups] > geometry.parity_blocks]
    return PackCondition(
        pack=head.pack,
        size=geometry.pack_size,
        state=ParityState.DAMAGED if damaged_parity else ParityState.SOUND,
        problem=data.unreadable or file.unreadable,
        damaged=tuple(merge([*map(geometry.block, bad), *_behind(data, geometry.pack_size)])),
        damaged_parity=tuple(merge(sorted(damaged_parity))),
        lost=tuple(merge(map(geometry.block, lost))),
    )


def _erased(blocks: Iterable[bytes | memoryview | None], checksums: bytes) -> Iterator[int]:
    for number, block in enumerate(blocks):
        expected = checksums[number * CHECKSUM_SIZE : (number + 1) * CHECKSUM_SIZE]
        if block is None or checksum(block) != expected:
            yield number


def _behind(file: BlockFile, size: int) -> Iterator[Extent]:
    if file.size > size:
        yield Extent(size, file.size)


def _write_pack(backend: Writer, data: BlockFile, solver: PackSolver, head: Head) -> None:
    backend.remove(data.name + PARTIAL)
    blocks = data.blocks(Extent(0, head.geometry.pack_size), head.geometry.block_size)
    with backend.create(data.name) as stream:
        for number, block in enumerate(blocks):
            sound = block is not None and checksum(block) == head.block_checksum(number)
            stream.write(block if block is not None and sound else solver.block(number))


def _write_parity(backend: Writer, repository: bytes, pack: bytes, geometry: Geometry, expected: Head | None) -> None:
    """Encode the pack and write its parity file; with ``expected`` only if it comes out with that head."""
    name = pack_name(pack)
    step = rows_at_once(geometry)
    batches = [
        range(first, min(first + step, geometry.parity_blocks)) for first in range(0, geometry.parity_blocks, step)
    ]
    sums, blocks = _sum_up(backend, name, geometry, batches[0])
    checksums = _row_checksums(geometry, sums, batches[0])
    for batch in batches[1:]:
        sums, again = _sum_up(backend, name, geometry, batch)
        checksums += _row_checksums(geometry, sums, batch)
        blocks = blocks if again == blocks else b""
    head = Head(repository=repository, pack=pack, geometry=geometry, blocks=blocks, parity=checksums)
    if not blocks or (expected is not None and head != expected):
        raise DamagedError(f"{backend.location}/{name} changes while it is read.", hint="Is the disk failing?")
    backend.remove(parity_name(pack) + PARTIAL)
    encoded = head.encode()
    with backend.create(parity_name(pack)) as stream:
        for batch in batches:
            if len(batches) > 1:
                sums, _ = _sum_up(backend, name, geometry, batch)
                first, end = (row * geometry.groups * CHECKSUM_SIZE for row in (batch.start, batch.stop))
                if _row_checksums(geometry, sums, batch) != checksums[first:end]:
                    raise DamagedError(f"{backend.location}/{name} changes while it is read.")
            for row in batch:
                stream.write(encoded)
                stream.write(sums.row(row))
        stream.write(encoded)


def _sum_up(backend: Reader, name: str, geometry: Geometry, rows: range) -> tuple[ParitySums, bytes]:
    """Read the pack once: the sums of some parity rows, and the checksums of its blocks."""
    sums = ParitySums(geometry, rows.start, len(rows))
    checksums = bytearray()
    file = BlockFile(backend, name)
    for block in file.blocks(Extent(0, geometry.pack_size), geometry.block_size):
        if block is None:
            raise DamagedError(file.unreadable or f"{file.place} is truncated: it has {file.size} bytes.")
        sums.add(block)
        checksums += checksum(block)
    return sums, bytes(checksums)


def _row_checksums(geometry: Geometry, sums: ParitySums, rows: range) -> bytes:
    size = geometry.block_size
    found = bytearray()
    for parity in rows:
        row = memoryview(sums.row(parity))
        for at in range(0, len(row), size):
            found += checksum(row[at : at + size])
    return bytes(found)


def _refusal(backend: Reader, condition: PackCondition) -> DamagedError:
    place = f"{backend.location}/{pack_name(condition.pack)}"
    if not condition.known:
        return DamagedError(f"{place} cannot be repaired: {condition.problem}", hint="Nothing was changed.")
    kept = sum(extent.size for extent in condition.damaged) - sum(extent.size for extent in condition.lost)
    return DamagedError(
        f"{place} cannot be repaired: {_show(condition.lost)} are damaged beyond what its parity brings back "
        f"({_show(condition.damaged)} are damaged, {kept} bytes of them would come back).",
        hint="Nothing was changed. Another copy of the repository, or the next capture, may bring the chunks back.",
    )


def _show(extents: tuple[Extent, ...]) -> str:
    shown = ", ".join(f"{extent.start} to {extent.end}" for extent in extents[:_SHOWN])
    more = len(extents) - _SHOWN
    return f"bytes {shown}" + (f" and {more} more extents" if more > 0 else "")
