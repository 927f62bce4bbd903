"""Chains of clusters in the FAT of exFAT, and the bytes that lie in them."""

from collections.abc import Iterator

import msgspec
import numpy as np

from core.errors import DamagedError
from images.filesystems.c_exfat import END_OF_CHAIN, BootSector
from images.sources import BlockSource

#: Entries of the FAT read together.
_WINDOW = 1024
#: More pieces than a bitmap that was made in one go ever has; bounds the memory of a damaged chain.
_MAX_RUNS = 1 << 16


class ClusterRun(msgspec.Struct, frozen=True):
    """Clusters ``first`` to ``end``, ``end`` not included."""

    first: int
    end: int


class Chain(msgspec.Struct, frozen=True):
    """The clusters of something, in order."""

    runs: tuple[ClusterRun, ...]

    @property
    def clusters(self) -> int:
        return sum(run.end - run.first for run in self.runs)


def read_chain(source: BlockSource, boot: BootSector, first: int, limit: int, name: str) -> Chain:
    """The chain that begins with cluster ``first``.

    Args:
        limit: the most clusters it may have, which also ends a chain that bites its tail.

    Raises:
        DamagedError: it leaves the cluster heap, does not end, or is in too many pieces.
        DeviceError: the source cannot be read.
    """
    runs: list[ClusterRun] = []
    left, cluster = limit, first
    while cluster != END_OF_CHAIN:
        if not 2 <= cluster < boot.clusters + 2:
            raise DamagedError(f"the chain of {name} leads to cluster {cluster:#x}, but there are {boot.clusters}")
        count = min(_WINDOW, boot.clusters + 2 - cluster)
        entries = np.frombuffer(source.read_at(boot.fat_offset + 4 * cluster, 4 * count), dtype="<u4")
        follows = entries == np.arange(cluster + 1, cluster + 1 + count, dtype=np.int64)
        length = count if follows.all() else int(follows.argmin()) + 1
        if length > left:
            raise DamagedError(f"the chain of {name} does not end after {limit} clusters")
        left -= length
        if runs and runs[-1].end == cluster:
            runs[-1] = ClusterRun(runs[-1].first, cluster + length)
        else:
            runs.append(ClusterRun(cluster, cluster + length))
        if len(runs) > _MAX_RUNS:
            raise DamagedError(f"{name} lies in more than {_MAX_RUNS} pieces")
        cluster = int(entries[length - 1])
    return Chain(tuple(runs))


def read_pieces(source: BlockSource, boot: BootSector, chain: Chain, size: int, piece: int) -> Iterator[bytes]:
    """The first ``size`` bytes in a chain, at most ``piece`` at a time, never over the end of a run."""
    left = size
    for run in chain.runs:
        position, end = boot.offset_of(run.first), boot.offset_of(run.end)
        while position < end and left:
            length = min(piece, end - position, left)
            yield source.read_at(position, length)
            position += length
            left -= length
