"""Where the content of an NTFS attribute lies: run lists, and reading through them."""

import bisect
from collections.abc import Iterator

import msgspec

from core.errors import DamagedError
from images.sources import BlockSource

#: More runs than any real system file has; bounds the memory of a damaged one.
_MAX_RUNS = 1 << 18


class Run(msgspec.Struct, frozen=True):
    """Clusters of an attribute that lie behind each other.

    Attributes:
        vcn: number of the first one, counted from the attribute's start.
        lcn: where it lies, counted from the volume's start; None for a hole.
    """

    vcn: int
    clusters: int
    lcn: int | None


def decode_runs(pairs: bytes, first_vcn: int, volume_clusters: int, name: str) -> Iterator[Run]:
    """The runs in mapping pairs: a byte with the widths of two signed numbers, a length and a step, again and again.

    Raises:
        DamagedError: a run lies outside the volume, or the pairs do not end.
    """
    offset, vcn, lcn = 0, first_vcn, 0
    while offset < len(pairs) and pairs[offset]:
        length_width, step_width = pairs[offset] & 0x0F, pairs[offset] >> 4
        middle = offset + 1 + length_width
        end = middle + step_width
        clusters = int.from_bytes(pairs[offset + 1 : middle], "little", signed=True)
        if end > len(pairs) or max(length_width, step_width) > 8 or not 0 < clusters < 1 << 62 or vcn >= 1 << 62:
            raise DamagedError(f"{name} has damaged mapping pairs at {offset}")
        if step_width:
            lcn += int.from_bytes(pairs[middle:end], "little", signed=True)
            if not 0 <= lcn <= volume_clusters - clusters:
                raise DamagedError(
                    f"{name} has a run of {clusters} clusters at {lcn}, but the volume has {volume_clusters}"
                )
        yield Run(vcn, clusters, lcn if step_width else None)
        vcn += clusters
        offset = end
    if offset >= len(pairs):
        raise DamagedError(f"the mapping pairs of {name} do not end")


class Stream:
    """The content of an attribute, read as if it were contiguous.

    Args:
        runs: in order, from the first cluster on, without gaps; more may follow with ``extend``.
        size, initialized: bytes; what lies behind ``initialized``, and holes, read as zeros.
        value: the content of a resident attribute, which has no runs.
    """

    def __init__(
        self, source: BlockSource, cluster_size: int, size: int, initialized: int, name: str, value: bytes | None = None
    ) -> None:
        self.size = size
        self.initialized = min(initialized, size)
        self.name = name
        self.runs: list[Run] = []
        self._source = source
        self._cluster_size = cluster_size
        self._value = value

    @property
    def mapped(self) -> int:
        """Bytes the runs, holes included, account for."""
        if self._value is not None:
            return self.size
        return (self.runs[-1].vcn + self.runs[-1].clusters) * self._cluster_size if self.runs else 0

    @property
    def has_holes(self) -> bool:
        return any(run.lcn is None for run in self.runs)

    def extend(self, run: Run) -> None:
        """Append the next run.

        Raises:
            DamagedError: it does not continue the last one, or there are too many.
        """
        expected = self.runs[-1].vcn + self.runs[-1].clusters if self.runs else 0
        if run.vcn != expected:
            raise DamagedError(f"{self.name} continues with its cluster {run.vcn} instead of {expected}")
        if len(self.runs) >= _MAX_RUNS:
            raise DamagedError(f"{self.name} lies in more than {_MAX_RUNS} pieces")
        self.runs.append(run)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``; the caller bounds both.

        Raises:
            DamagedError: the range is outside the attribute or not mapped.
            DeviceError: the source cannot be read.
        """
        if offset < 0 or offset + length > min(self.size, self.mapped):
            raise DamagedError(f"{self.name} has {self.size} bytes and no {length} at {offset}")
        meaningful = max(min(length, self.initialized - offset), 0)
        if self._value is not None:
            return self._value[offset : offset + meaningful] + bytes(length - meaningful)
        parts, position, end = [], offset, offset + meaningful
        index = bisect.bisect_right(self.runs, offset // self._cluster_size, key=lambda run: run.vcn) - 1
        while position < end:
            run = self.runs[index]
            inside = position - run.vcn * self._cluster_size
            size = min(end - position, run.clusters * self._cluster_size - inside)
            if run.lcn is None:
                parts.append(bytes(size))
            else:
                parts.append(self._source.read_at(run.lcn * self._cluster_size + inside, size))
            position += size
            index += 1
        return b"".join(parts) + bytes(length - meaningful)

    def pieces(self, size: int, piece: int) -> Iterator[bytes]:
        """The first ``size`` bytes, ``piece`` at a time."""
        for offset in range(0, size, piece):
            yield self.read(offset, min(piece, size - offset))
