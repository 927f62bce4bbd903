"""A pack as it was when its parity was made: erased blocks are solved from the others on the way.

Nothing is written here. Every block that is handed out has matched its checksum. For a restore that
goes on although the pack is damaged, and for the repair that writes it anew.
"""

from core.errors import DamagedError
from core.units import MIB
from images.model.extents import Extent
from images.store.parity_code import solve_group
from images.store.parity_file import BlockFile
from images.store.parity_head import Geometry, Head, checksum

#: Bytes of members read to solve neighbouring groups together, and of solved blocks that are kept.
_MEMBERS_MEMORY = 24 * MIB
_SOLVED_MEMORY = 32 * MIB


def groups_at_once(geometry: Geometry) -> int:
    """How many neighbouring groups fit into memory together; at least one."""
    return max(1, _MEMBERS_MEMORY // (geometry.data_blocks * geometry.block_size))


class PackSolver:
    """The content of a damaged pack.

    Args:
        together: neighbouring groups to solve at once: 1 to read little, more to seek less.
    """

    def __init__(self, pack: BlockFile, parity: BlockFile, head: Head, *, together: int = 1) -> None:
        self._pack = pack
        self._parity = parity
        self._head = head
        self._geometry = head.geometry
        self._together = min(together, groups_at_once(head.geometry))
        self._solved: dict[int, bytes] = {}

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes of the pack from ``offset``.

        Raises:
            DamagedError: more of it is damaged than its parity can bring back, or it ends before.
        """
        if offset < 0 or length < 0 or offset + length > self._geometry.pack_size:
            raise DamagedError(
                f"{self._pack.place} has {self._geometry.pack_size} bytes, expected {offset + length} or more."
            )
        size = self._geometry.block_size
        first = offset // size
        parts = [self._sound(number) for number in range(first, -(-(offset + length) // size))]
        return b"".join(parts)[offset - first * size :][:length]

    def block(self, number: int) -> bytes:
        """An erased block of the pack, solved.

        Raises:
            DamagedError: its group has lost more blocks than parity can bring back.
        """
        found = self._solved.get(number)
        if found is None:
            group = number % self._geometry.groups
            self._solve(group, min(self._together, self._geometry.groups - group), number)
            found = self._solved[number]
        return found

    def _sound(self, number: int) -> bytes:
        found = self._pack.read(self._geometry.block(number))
        if found is not None and checksum(found) == self._head.block_checksum(number):
            return found
        return self.block(number)

    def _solve(self, first: int, count: int, wanted: int) -> None:
        """Solve the groups from ``first`` on; that ``wanted`` is solved is what counts."""
        members = self._members(first, count)
        erased = [self._geometry.data_blocks - len(found) for found in members]
        parity = self._parity_blocks(first, erased)
        for index, (sound, helping) in enumerate(zip(members, parity, strict=True)):
            group = first + index
            if not erased[index]:
                continue
            if erased[index] > len(helping):
                if wanted % self._geometry.groups == group:
                    raise self._lost(wanted, erased[index], len(helping))
                continue
            for row, block in solve_group(self._geometry, sound, helping).items():
                self._keep(row * self._geometry.groups + group, block, wanted)

    def _keep(self, number: int, block: bytes, wanted: int) -> None:
        size = self._geometry.block(number).size
        block = block[:size]
        if checksum(block) != self._head.block_checksum(number):
            raise DamagedError(
                f"{self._pack.place}, offset {number * self._geometry.block_size}: what parity brings back does not "
                f"match its checksum; nothing of it is used."
            )
        self._solved[number] = block
        while len(self._solved) * self._geometry.block_size > _SOLVED_MEMORY:
            oldest = next(found for found in self._solved if found != wanted)
            del self._solved[oldest]

    def _members(self, first: int, count: int) -> list[dict[int, bytes]]:
        """The sound members of ``count`` groups by row, read row after row."""
        geometry = self._geometry
        found: list[dict[int, bytes]] = [{} for _ in range(count)]
        nothing = bytes(geometry.block_size)
        for row in range(geometry.data_blocks):
            numbers = range(row * geometry.groups + first, row * geometry.groups + first + count)
            there = [number for number in numbers if number < geometry.blocks]
            if there:
                extent = Extent(geometry.block(there[0]).start, geometry.block(there[-1]).end)
                for index, block in enumerate(self._pack.blocks(extent, geometry.block_size)):
                    if block is not None and checksum(block) == self._head.block_checksum(there[index]):
                        found[index][row] = bytes(block).ljust(geometry.block_size, b"\0")
            for index in range(len(there), count):
                found[index][row] = nothing
        return found

    def _parity_blocks(self, first: int, wanted: list[int]) -> list[dict[int, bytes]]:
        """Sound parity blocks of neighbouring groups by row, as many as each wants, where there are so many."""
        geometry = self._geometry
        found: list[dict[int, bytes]] = [{} for _ in wanted]
        for row in range(geometry.parity_blocks):
            for index, many in enumerate(wanted):
                if len(found[index]) < many:
                    number = row * geometry.groups + first + index
                    block = self._parity.read(geometry.parity_block(number))
                    if block is not None and checksum(block) == self._head.parity_checksum(number):
                        found[index][row] = block
        return found

    def _lost(self, number: int, erased: int, helping: int) -> DamagedError:
        return DamagedError(
            f"{self._pack.place}, offset {number * self._geometry.block_size}: {erased} blocks of one group are "
            f"damaged, and {helping} of its {self._geometry.parity_blocks} parity blocks are sound."
        )
