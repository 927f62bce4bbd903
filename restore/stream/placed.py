"""A volume at its place on a target: where each of its chunks goes, and how errors name it. Nothing is read here."""

import msgspec

from images.model.manifest import Volume


class Placed(msgspec.Struct, frozen=True):
    """A volume and where its first byte goes on the target.

    Attributes:
        offset: bytes on the target.
        where: names recovery point and volume, for errors.
        sector_size: of the source disk, bytes.
    """

    volume: Volume
    offset: int
    where: str
    sector_size: int

    def chunks(self, chunk: int) -> int:
        """How many chunks of ``chunk`` bytes the volume has."""
        return -(-self.volume.size // chunk)

    def length(self, number: int, chunk: int) -> int:
        """Bytes of a chunk: the last one of a volume may be shorter."""
        return min(chunk, self.volume.size - number * chunk)

    def lbas(self, number: int, chunk: int) -> str:
        """The sectors of the source disk that a chunk holds."""
        return lba_range(self.volume, number, chunk, self.sector_size)

    def name(self, number: int, chunk: int) -> str:
        """How errors name a chunk."""
        return f"{self.where}, {self.lbas(number, chunk)}"


def lba_range(volume: Volume, number: int, chunk_size: int, sector_size: int) -> str:
    """The sectors of the source disk that a chunk holds, inclusive as people say them."""
    start = volume.offset + number * chunk_size
    end = min(start + chunk_size, volume.offset + volume.size)
    return f"LBA {start // sector_size} to {end // sector_size - 1}"
