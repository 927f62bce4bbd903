"""The Reed-Solomon code of packs: parity rows from a pack that streams by, erased blocks from the others.

Bytes in, bytes out: no file is opened here and no checksum is judged. The field arithmetic and the
solving are zfec's. Making parity does not call zfec's encoder on the data, because that wants one
member of every row at once, so the pack would be read with a seek for each block. Instead zfec is
asked for the products of each byte with a row's coefficients, and numpy adds them up while the pack is
read once, from front to back.
"""

import numpy as np
import numpy.typing as npt
import zfec

from images.store.parity_head import Geometry

#: Parity rows that share one table look-up: four 16-bit products in one 64-bit word.
LANES = 4
#: Bytes of working memory for the sums of parity rows.
SUM_MEMORY = 32 << 20
#: Pairs of bytes looked up at a time, so that products stay in the processor's second-level cache.
_PAIRS = 1 << 14
_BYTES = bytes(range(256))

_Words = npt.NDArray[np.uint64]


class ParitySums:
    """Parity rows ``first`` to ``first + count`` of one pack, summed up as its bytes come by in order.

    Memory: ``row_size`` bytes for each row, rounded up to four rows.
    """

    def __init__(self, geometry: Geometry, first: int, count: int) -> None:
        if not 0 <= first < first + count <= geometry.parity_blocks:
            raise ValueError(f"parity rows {first} to {first + count} of {geometry.parity_blocks}")
        self._geometry = geometry
        self._encoder = zfec.Encoder(geometry.data_blocks, geometry.data_blocks + geometry.parity_blocks)
        self._first = first
        numbers = range(first, first + count)
        self._lanes = tuple(tuple(numbers[at : at + LANES]) for at in range(0, count, LANES))
        self._sums = tuple(np.zeros(geometry.row_size // 2, dtype="<u8") for _ in self._lanes)
        self._products = np.empty(_PAIRS, dtype="<u8")
        self._position = 0
        self._tables: tuple[_Words, ...] = ()

    def add(self, data: bytes | memoryview) -> None:
        """The next bytes of the pack: an even number of them, unless they are the last."""
        view = memoryview(data)
        if self._position % 2:
            raise ValueError(f"bytes behind an odd end at {self._position}")
        if self._position + len(view) > self._geometry.pack_size:
            raise ValueError(f"{self._position + len(view)} bytes of a pack of {self._geometry.pack_size}")
        while len(view):
            row, within = divmod(self._position, self._geometry.row_size)
            if not within:
                self._tables = tuple(self._table(row, lane) for lane in self._lanes)
            piece = view[: self._geometry.row_size - within]
            pairs = np.frombuffer(piece if len(piece) % 2 == 0 else bytes(piece) + b"\0", dtype="<u2")
            for sums, table in zip(self._sums, self._tables, strict=True):
                self._add(sums[within // 2 :], pairs, table)
            self._position += len(piece)
            view = view[len(piece) :]

    def row(self, parity: int) -> bytes:
        """A finished row, ``row_size`` bytes.

        Raises:
            ValueError: the pack has not come by to its end.
        """
        if self._position != self._geometry.pack_size:
            raise ValueError(f"{self._position} bytes of a pack of {self._geometry.pack_size}")
        lane, number = divmod(parity - self._first, LANES)
        return self._sums[lane].view("<u2")[number::LANES].tobytes()

    def _table(self, row: int, lane: tuple[int, ...]) -> _Words:
        """For each pair of bytes of that row its products with the coefficients of up to four parity rows."""
        k = self._geometry.data_blocks
        # Row `row` as every byte value and the other rows as zeros: what comes out is the table of its coefficient.
        members = [bytes(256)] * k
        members[row] = _BYTES
        products = self._encoder.encode(tuple(members), tuple(k + parity for parity in lane))
        single = np.zeros((256, LANES), dtype="<u2")
        for number, product in enumerate(products):
            single[:, number] = np.frombuffer(product, dtype=np.uint8)
        words: _Words = single.view("<u8")[:, 0]
        pairs: _Words = np.bitwise_or(words[:, None] << np.uint64(8), words[None, :]).reshape(-1)
        return pairs

    def _add(self, sums: _Words, pairs: npt.NDArray[np.uint16], table: _Words) -> None:
        for at in range(0, len(pairs), _PAIRS):
            piece = pairs[at : at + _PAIRS]
            products = self._products[: len(piece)]
            # "clip" only spares the bounds check: 16 bits never leave a table of 65536 words.
            np.take(table, piece, out=products, mode="clip")
            place = sums[at : at + len(piece)]
            np.bitwise_xor(place, products, out=place)


def rows_at_once(geometry: Geometry) -> int:
    """How many parity rows one pass over the pack makes within :data:`SUM_MEMORY`; at least four."""
    return max(LANES, SUM_MEMORY // geometry.row_size // LANES * LANES)


def solve_group(geometry: Geometry, members: dict[int, bytes], parity: dict[int, bytes]) -> dict[int, bytes]:
    """The erased members of a group.

    Args:
        members: the sound ones of its ``data_blocks`` members by row, each of ``block_size`` bytes, those
            behind the end of the pack (zero bytes) included. parity: sound parity blocks, by row.

    Returns:
        every member that ``members`` lacks.

    Raises:
        ValueError: there are fewer parity blocks than erased members.
    """
    k = geometry.data_blocks
    erased = [row for row in range(k) if row not in members]
    if len(erased) > len(parity):
        raise ValueError(f"{len(erased)} erased members, {len(parity)} parity blocks")
    stand_ins = dict(zip(erased, sorted(parity), strict=False))
    # zfec wants each member at its own place, and parity blocks in the places of those that are erased.
    blocks = [parity[stand_ins[row]] if row in stand_ins else members[row] for row in range(k)]
    numbers = [k + stand_ins[row] if row in stand_ins else row for row in range(k)]
    solved = zfec.Decoder(k, k + geometry.parity_blocks).decode(blocks, numbers)
    return {row: solved[row] for row in erased}
