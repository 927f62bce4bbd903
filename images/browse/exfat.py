"""Files of exFAT.

``dissect.fat`` describes the boot sector. Folders and chains are read here, because the library (3.13) reads every
folder of the volume when it is opened, follows loops for ever, and cuts unfragmented folders after one cluster.

Structures: Microsoft's exFAT specification, sections 3, 4, 6 and 7.
"""

import struct
from collections.abc import Iterator

from dissect.fat.c_exfat import c_exfat

from core.errors import DamagedError
from images.browse.chains import Clusters, chain
from images.browse.entry import Attribute, Child, Content, Entry, Kind, Segment, clip_segments, stored_content
from images.browse.fat import dos_time
from images.sources import BlockSource

_ENTRY_SIZE = 32
_FILE, _STREAM, _NAME = 0x85, 0xC0, 0xC1
_FOLDER, _READ_ONLY = 0x10, 0x01
_CONTIGUOUS = 0x02
_END = 0xFFFFFFF8
#: A folder has at most 256 MiB (exFAT specification 7.6.7).
_FOLDER_LIMIT = 256 << 20
_PAGE = 1 << 16


class ExfatFilesystem:
    """See :class:`images.browse.entry.Filesystem`. A node is the place of its first entry; the root is 0."""

    root = 0
    name = "exfat"
    notes: tuple[str, ...] = ()
    ignores_case = True
    default = "/"

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        header = c_exfat.EXFAT_HEADER(source.read_at(0, 512))
        sector, per_cluster = header.bytes_per_sector_exp, header.sectors_per_cluster_exp
        if not 9 <= sector <= 12 or not 0 <= per_cluster <= 25 - sector:
            raise DamagedError(f"Boot sector: sectors of 2^{sector} bytes, clusters of 2^{per_cluster} sectors.")
        self._cluster: int = 1 << sector + per_cluster
        self._heap: int = header.cluster_heap_sector << sector
        self._clusters: int = header.cluster_heap_count
        # The second FAT is in use when the volume's flags say so (TexFAT).
        second = header.volume_flags & 1 and header.number_of_fats == 2
        self._fat_size: int = header.fat_sector_count << sector
        self._fat_place: int = (header.fat_sector << sector) + (self._fat_size if second else 0)
        if (
            self._heap + self._clusters * self._cluster > source.size
            or self._fat_place + self._fat_size > source.size
            or self._fat_size < 4 * (self._clusters + 2)
        ):
            raise DamagedError(
                f"Boot sector: {self._clusters} clusters of {self._cluster} bytes do not fit the volume."
            )
        self._first: int = header.root_dir_cluster
        self._page: tuple[int, bytes] = (-1, b"")
        #: Entry sets that lie in two clusters apart from each other, by node.
        self._split: dict[int, bytes] = {}

    def children(self, node: int) -> Iterator[Child]:
        waiting, place, wanted = b"", 0, 0
        for at, raw in self._raw_entries(node):
            if wanted:
                waiting += raw
                wanted -= 1
            elif raw[0] == 0:
                return
            elif raw[0] == _FILE:
                waiting, place, wanted = raw, at, raw[1]
            if waiting and not wanted:
                _check_set(waiting)
                if at != place + len(waiting) - _ENTRY_SIZE:
                    self._split[place] = waiting
                yield Child(_name(waiting), place, Kind.FOLDER if waiting[4] & _FOLDER else Kind.FILE)
                waiting = b""
        if waiting:
            raise DamagedError(f"The folder ends inside the entry at {place}.")

    def entry(self, node: int) -> Entry:
        if node == self.root:
            return Entry(node=node, kind=Kind.FOLDER, size=0, mode=0o755, mtime=0, atime=0, ctime=0, owned=False)
        raw = self._set(node)
        folder = bool(raw[4] & _FOLDER)
        return Entry(
            node=node,
            kind=Kind.FOLDER if folder else Kind.FILE,
            size=0 if folder else int.from_bytes(raw[56:64], "little"),
            mode=0o755 if folder else 0o444 if raw[4] & _READ_ONLY else 0o644,
            mtime=_time(raw[12:16], raw[21], raw[23]),
            atime=_time(raw[16:20], 0, raw[24]),
            ctime=_time(raw[8:12], raw[20], raw[22]),
            owned=False,
        )

    def attributes(self, node: int) -> tuple[Attribute, ...]:
        return ()

    def content(self, node: int, stream: str = "") -> Content:
        if stream:
            raise DamagedError("exFAT has no alternate streams.")
        raw = self._set(node)
        valid, size = (int.from_bytes(raw[at : at + 8], "little") for at in (40, 56))
        if valid > size:
            raise DamagedError(f"A file of {size} bytes of which {valid} are valid.")
        segments = tuple(self._stream(raw, size))
        if sum(segment.size for segment in segments) < size:
            raise DamagedError(f"The file has {size} bytes, its chain of clusters ends before.")
        return stored_content(self._source, size, clip_segments(segments, valid))

    def _set(self, node: int) -> bytes:
        if node in self._split:
            return self._split[node]
        first = self._source.read_at(node, _ENTRY_SIZE)
        raw = self._source.read_at(node, _ENTRY_SIZE * (1 + first[1]))
        _check_set(raw)
        return raw

    def _raw_entries(self, node: int) -> Iterator[tuple[int, bytes]]:
        if node == self.root:
            segments = self._chain(self._first, _FOLDER_LIMIT // self._cluster)
        else:
            raw = self._set(node)
            size = int.from_bytes(raw[56:64], "little")
            if not raw[4] & _FOLDER or size > _FOLDER_LIMIT:
                raise DamagedError(f"The entry at {node} is no folder, or one of {size} bytes.")
            segments = self._stream(raw, size)
        for segment in segments:
            for start in range(0, segment.size, self._cluster):
                data = self._source.read_at(segment.place + start, self._cluster)
                for at in range(0, len(data), _ENTRY_SIZE):
                    yield segment.place + start + at, data[at : at + _ENTRY_SIZE]

    def _stream(self, raw: bytes, size: int) -> Iterator[Segment]:
        first, count = int.from_bytes(raw[52:56], "little"), -(-size // self._cluster)
        if not count:
            return
        if raw[33] & _CONTIGUOUS:
            if first < 2 or first + count > self._clusters + 2:
                raise DamagedError(f"Clusters {first} to {first + count} of {self._clusters}.")
            yield Segment(0, count * self._cluster, self._heap + (first - 2) * self._cluster)
        else:
            yield from self._chain(first, count)

    def _chain(self, first: int, limit: int) -> Iterator[Segment]:
        clusters = Clusters(count=self._clusters, size=self._cluster, place=self._heap, end=_END)
        return chain(first, limit, clusters, self._next)

    def _next(self, cluster: int) -> int:
        page, at = divmod(cluster * 4, _PAGE)
        if self._page[0] != page:
            count = min(_PAGE, self._fat_size - page * _PAGE)
            self._page = (page, self._source.read_at(self._fat_place + page * _PAGE, count))
        return int.from_bytes(self._page[1][at : at + 4], "little")


def _check_set(raw: bytes) -> None:
    """A file's entry set: file, stream, names; and its checksum (specification 6.3.3)."""
    names = len(raw) // _ENTRY_SIZE - 2
    kinds = raw[::_ENTRY_SIZE]
    checksum = 0
    for at, byte in enumerate(raw):
        if at not in (2, 3):
            checksum = ((checksum & 1) << 15 | checksum >> 1) + byte & 0xFFFF
    (found,) = struct.unpack_from("<H", raw, 2)
    if len(kinds) < 3 or kinds[0] != _FILE or kinds[1] != _STREAM or raw[35] > 15 * names or found != checksum:
        raise DamagedError(f"An entry set of kinds {kinds.hex()} with checksum {found:#06x}, expected {checksum:#06x}.")


def _name(raw: bytes) -> str:
    parts = (raw[at + 2 : at + 32] for at in range(64, len(raw), _ENTRY_SIZE) if raw[at] == _NAME)
    text = b"".join(parts)[: 2 * raw[35]].decode("utf-16-le", "surrogatepass")
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


def _time(stamp: bytes, hundredths: int, zone: int) -> int:
    """Nanoseconds since 1970; the zone counts quarters of an hour, and no zone is taken as UTC."""
    time, day = struct.unpack("<HH", stamp)
    quarters = (zone & 0x7F) - (128 if zone & 0x40 else 0) if zone & 0x80 else 0
    return dos_time(day, time) + min(hundredths, 199) * 10_000_000 - quarters * 900 * 1_000_000_000
