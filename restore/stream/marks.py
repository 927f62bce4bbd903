"""Marks: which chunks of a volume something is true of, one bit each.

A volume of 16 TiB has 16 Mi chunks: as a set of numbers they would take a gigabyte, as marks 2 MiB. It knows
nothing of what the marks mean.
"""

from collections.abc import Iterable, Iterator


class Marks:
    """A set of chunk numbers from 0 to ``count``, ``count`` not included. Not safe from several threads."""

    def __init__(self, count: int) -> None:
        self._bits = bytearray(-(-count // 8))
        self.count = count

    def add(self, number: int) -> None:
        """Mark a chunk; IndexError when the volume has none of that number."""
        if not 0 <= number < self.count:
            raise IndexError(f"chunk {number} of {self.count}")
        self._bits[number >> 3] |= 1 << (number & 7)

    def update(self, numbers: Iterable[int]) -> None:
        """Mark several."""
        for number in numbers:
            self.add(number)

    def discard(self, number: int) -> None:
        """Take a mark away; nothing happens where there is none."""
        if 0 <= number < self.count:
            self._bits[number >> 3] &= ~(1 << (number & 7))

    def __contains__(self, number: int) -> bool:
        return 0 <= number < self.count and bool(self._bits[number >> 3] >> (number & 7) & 1)

    def __len__(self) -> int:
        """How many chunks are marked."""
        return int.from_bytes(self._bits, "little").bit_count()

    def join(self, other: "Marks") -> None:
        """Add the marks of another set of the same volume."""
        if other.count != self.count:
            raise ValueError(f"marks of {other.count} and of {self.count} chunks")
        joined = int.from_bytes(self._bits, "little") | int.from_bytes(other._bits, "little")
        self._bits = bytearray(joined.to_bytes(len(self._bits), "little"))

    def runs(self) -> Iterator[tuple[int, int]]:
        """Marked chunks as half-open runs of numbers, in order."""
        start = None
        for number in range(self.count):
            if number in self:
                start = number if start is None else start
            elif start is not None:
                yield start, number
                start = None
        if start is not None:
            yield start, self.count
