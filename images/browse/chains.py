"""Chains of clusters: how FAT and exFAT say where the content of a file lies."""

from collections.abc import Callable, Iterator

import msgspec

from core.errors import DamagedError
from images.browse.entry import Segment


class Clusters(msgspec.Struct, frozen=True, kw_only=True):
    """The clusters of a volume, numbered from 2.

    Attributes:
        count: how many there are. size: bytes of each. place: byte of the volume where number 2 lies.
        end: entries of the table from this number on end a chain.
    """

    count: int
    size: int
    place: int
    end: int


def chain(first: int, limit: int, clusters: Clusters, following: Callable[[int], int]) -> Iterator[Segment]:
    """The clusters of a chain in runs, at most ``limit`` of them.

    Args:
        following: the table's entry for a cluster.

    Raises:
        DamagedError: it leads out of the volume, or in a circle.
    """
    cluster, start, count, done = first, first, 0, 0
    while done + count < limit:
        if not 2 <= cluster < clusters.count + 2:
            raise DamagedError(f"A chain names cluster {cluster}, the volume has {clusters.count} from 2.")
        count += 1
        if done + count > clusters.count:
            raise DamagedError(f"A chain of more clusters than the volume's {clusters.count} bites its tail.")
        after = following(cluster)
        if after != cluster + 1 or done + count == limit:
            yield Segment(done * clusters.size, count * clusters.size, clusters.place + (start - 2) * clusters.size)
            done, start, count = done + count, after, 0
        if after >= clusters.end:
            return
        cluster = after
