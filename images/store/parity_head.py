"""The bytes of a parity file: its parameters, where everything lies in it, and its heads (docs/image-format.md §11).

Bytes in, facts out: no file is opened here, and nothing is computed but positions. The code itself
is in ``parity_code.py``; protecting, examining and repairing packs is in ``parity.py``.
"""

import struct
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from blake3 import blake3

from core.errors import DamagedError, UsageError
from core.units import GIB, KIB, MIB, align_up
from images.model.extents import Extent
from images.store.records import PACK_SIZE_LIMIT

PARITY_MAGIC = b"LRPR"
PARITY_VERSION = 1
CHECKSUM_SIZE = 16
DIGEST_SIZE = 32
#: Heads begin at multiples of it only as far as the file's own numbers say so; their size is one.
HEAD_ALIGNMENT = 4 * KIB
HEAD_SIZE_LIMIT = 16 * MIB
PARITY_FILE_LIMIT = GIB
#: A row of parity, of which four are summed up in memory at a time.
ROW_LIMIT = 16 * MIB
DATA_BLOCKS_LIMIT = 192
#: So that the rows of the largest pack stay within their limit.
DATA_BLOCKS_LEAST = PACK_SIZE_LIMIT // ROW_LIMIT
PARITY_BLOCKS_LIMIT = 32
BLOCK_SIZES = (4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB)

_HEAD = struct.Struct("<4sI16s16sQIHHI4x")
FIXED_SIZE = _HEAD.size
#: Small packs get at least this many groups, so that neighbouring blocks may break together …
_GROUPS_WANTED = 4
#: … unless parity would then cost more than one parity row for so many blocks.
_BLOCKS_FOR_A_GROUP = 8


class ParityKind(StrEnum):
    """The code parity is made with."""

    REED_SOLOMON = "reed-solomon"


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``parity`` in the repository document: what writers use for new packs. ``block_size`` in bytes."""

    code: ParityKind = ParityKind.REED_SOLOMON
    data_blocks: Annotated[int, msgspec.Meta(ge=DATA_BLOCKS_LEAST, le=DATA_BLOCKS_LIMIT)] = 128
    parity_blocks: Annotated[int, msgspec.Meta(ge=1, le=PARITY_BLOCKS_LIMIT)] = 4
    block_size: Literal[4096, 8192, 16384, 32768, 65536] = 65536


def choose_parity(regions: int) -> Parity | None:
    """The parity of a new repository whose packs shall survive ``regions`` damaged regions each; None for 0.

    Raises:
        UsageError: a number that is not possible.
    """
    if not 0 <= regions <= PARITY_BLOCKS_LIMIT:
        raise UsageError(
            f"Parity against {regions} damaged regions in each pack is not possible.",
            hint=f"Give a number from 0 (none) to {PARITY_BLOCKS_LIMIT}; 4 costs 3 % more space.",
        )
    return Parity(parity_blocks=regions) if regions else None


class Geometry(msgspec.Struct, frozen=True, kw_only=True):
    """Where blocks lie in a pack of ``pack_size`` bytes and in its parity file.

    A block of the pack has a number from 0; so has a parity block, row after row. All sizes in bytes.
    """

    pack_size: int
    block_size: int
    data_blocks: int
    parity_blocks: int
    groups: int

    @property
    def blocks(self) -> int:
        """Blocks of the pack."""
        return -(-self.pack_size // self.block_size)

    @property
    def rows(self) -> int:
        """Rows of the pack: the most members a group has."""
        return -(-self.blocks // self.groups)

    @property
    def row_size(self) -> int:
        """Bytes of a row of the pack, and of a parity row."""
        return self.groups * self.block_size

    @property
    def head_size(self) -> int:
        """Bytes of each head."""
        checksums = self.blocks + self.parity_blocks * self.groups
        return align_up(FIXED_SIZE + CHECKSUM_SIZE * checksums + DIGEST_SIZE, HEAD_ALIGNMENT)

    @property
    def file_size(self) -> int:
        """Bytes of the parity file."""
        return (self.parity_blocks + 1) * self.head_size + self.parity_blocks * self.row_size

    def head_offset(self, copy: int) -> int:
        """Where head ``copy`` begins, 0 to ``parity_blocks``."""
        return copy * (self.head_size + self.row_size)

    def row_offset(self, parity: int) -> int:
        """Where parity row ``parity`` begins in the parity file."""
        return self.head_offset(parity) + self.head_size

    def block(self, number: int) -> Extent:
        """The place of a block in the pack."""
        start = number * self.block_size
        return Extent(start, min(start + self.block_size, self.pack_size))

    def parity_block(self, number: int) -> Extent:
        """The place of a parity block in the parity file."""
        parity, group = divmod(number, self.groups)
        start = self.row_offset(parity) + group * self.block_size
        return Extent(start, start + self.block_size)


def plan_geometry(pack_size: int, parity: Parity) -> Geometry:
    """The geometry a writer gives the parity of a pack of ``pack_size`` bytes."""
    blocks = -(-pack_size // parity.block_size)
    least = min(_GROUPS_WANTED, -(-blocks // _BLOCKS_FOR_A_GROUP))
    return Geometry(
        pack_size=pack_size,
        block_size=parity.block_size,
        data_blocks=parity.data_blocks,
        parity_blocks=parity.parity_blocks,
        groups=max(-(-blocks // parity.data_blocks), least),
    )


def checksum(block: bytes | memoryview) -> bytes:
    """The 16 bytes by which a block is recognised."""
    return blake3(block).digest(CHECKSUM_SIZE)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A head: the geometry and the checksums, 16 bytes each, of the pack's blocks and of the parity blocks."""

    repository: bytes
    pack: bytes
    geometry: Geometry
    blocks: bytes
    parity: bytes

    def block_checksum(self, number: int) -> bytes:
        """The checksum of a block of the pack."""
        return self.blocks[number * CHECKSUM_SIZE : (number + 1) * CHECKSUM_SIZE]

    def parity_checksum(self, number: int) -> bytes:
        """The checksum of a parity block."""
        return self.parity[number * CHECKSUM_SIZE : (number + 1) * CHECKSUM_SIZE]

    def encode(self) -> bytes:
        """The ``head_size`` bytes of one head."""
        size = self.geometry
        fixed = _HEAD.pack(
            PARITY_MAGIC,
            PARITY_VERSION,
            self.repository,
            self.pack,
            size.pack_size,
            size.block_size,
            size.data_blocks,
            size.parity_blocks,
            size.groups,
        )
        body = (fixed + self.blocks + self.parity).ljust(size.head_size - DIGEST_SIZE, b"\0")
        return body + blake3(body).digest()


def decode_geometry(data: bytes, repository: bytes, pack: bytes, where: str) -> Geometry:
    """The geometry in the first 64 bytes of a head, every number bounded.

    Raises:
        DamagedError: naming ``where``, the field, what was expected and what was found.
    """
    if len(data) < FIXED_SIZE:
        raise DamagedError(f"{where}: the parity head has {len(data)} bytes, expected {FIXED_SIZE}.")
    magic, version, found_repository, found_pack, pack_size, block_size, k, m, groups = _HEAD.unpack_from(data)
    for field, offset, expected, found in (
        ("magic", 0, PARITY_MAGIC, magic),
        ("version", 4, PARITY_VERSION, version),
        ("repository id", 8, repository, found_repository),
        ("pack id", 24, pack, found_pack),
    ):
        if expected != found:
            raise DamagedError(f"{where}, byte {offset}: {field} is {_show(found)}, expected {_show(expected)}.")
    for field, offset, fine, found in (
        ("pack size", 40, 0 < pack_size <= PACK_SIZE_LIMIT, pack_size),
        ("block size", 48, block_size in BLOCK_SIZES, block_size),
        ("number of data blocks", 52, 0 < k <= DATA_BLOCKS_LIMIT, k),
        ("number of parity blocks", 54, 0 < m <= min(k, PARITY_BLOCKS_LIMIT), m),
    ):
        if not fine:
            raise DamagedError(f"{where}, byte {offset}: {field} is {found}, which is not possible.")
    geometry = Geometry(pack_size=pack_size, block_size=block_size, data_blocks=k, parity_blocks=m, groups=groups)
    least, most = -(-geometry.blocks // k), geometry.blocks
    if not least <= groups <= most:
        raise DamagedError(f"{where}, byte 56: number of groups is {groups}, expected {least} to {most}.")
    for field, limit, found in (
        ("a row", ROW_LIMIT, geometry.row_size),
        ("a head", HEAD_SIZE_LIMIT, geometry.head_size),
        ("the file", PARITY_FILE_LIMIT, geometry.file_size),
    ):
        if found > limit:
            raise DamagedError(f"{where}: by its numbers {field} has {found} bytes, expected at most {limit}.")
    return geometry


def decode_head(data: bytes, repository: bytes, pack: bytes, where: str) -> Head:
    """A whole head, proven by its digest.

    Raises:
        DamagedError: naming ``where``, the field, what was expected and what was found.
    """
    geometry = decode_geometry(data, repository, pack, where)
    if len(data) != geometry.head_size:
        raise DamagedError(f"{where}: the parity head has {len(data)} bytes, expected {geometry.head_size}.")
    body, expected = data[:-DIGEST_SIZE], data[-DIGEST_SIZE:]
    found = blake3(body).digest()
    if found != expected:
        raise DamagedError(
            f"{where}, byte {len(body)}: the head's digest is {found.hex()[:16]}…, expected {expected.hex()[:16]}…."
        )
    parity_at = FIXED_SIZE + CHECKSUM_SIZE * geometry.blocks
    end = parity_at + CHECKSUM_SIZE * geometry.parity_blocks * geometry.groups
    head = Head(
        repository=repository,
        pack=pack,
        geometry=geometry,
        blocks=bytes(data[FIXED_SIZE:parity_at]),
        parity=bytes(data[parity_at:end]),
    )
    if head.encode() != data:
        raise DamagedError(f"{where}: bytes that must be zero are not.")
    return head


def _show(value: bytes | int) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
