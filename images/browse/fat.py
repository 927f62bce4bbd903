"""Files of FAT12, FAT16 and FAT32.

``dissect.fat`` reads the boot sector. Chains and folders are read here, because the library (3.13) takes a cluster
that is followed by the one before it for two in a row, follows a chain that bites its tail for ever, and leaves the
lower-case bits of short names out.

Times of FAT are local without a zone; they are given as if they were UTC. Structures: Microsoft's FAT specification,
version 1.03.
"""

import datetime
import struct
from collections.abc import Iterator

from dissect.fat import FATFS

from core.errors import DamagedError
from images.browse.chains import Clusters, chain
from images.browse.entry import Attribute, Child, Content, Entry, Kind, Segment, clip_segments, stored_content
from images.browse.stream import SourceStream
from images.sources import BlockSource

_ENTRY = struct.Struct("<11sBBBHHHHHHHI")
ENTRY_SIZE = 32
_LONG_NAME, _VOLUME_LABEL, _FOLDER, _READ_ONLY = 0x0F, 0x08, 0x10, 0x01
_LOWER_BASE, _LOWER_EXTENSION = 0x08, 0x10
_DELETED, _LAST = 0xE5, 0x00
#: A folder has at most 65536 entries (FAT specification 6).
_FOLDER_LIMIT = 65536 * ENTRY_SIZE
_PAGE = 1 << 16


class FatFilesystem:
    """See :class:`images.browse.entry.Filesystem`. A node is the place of its entry in the volume; the root is 0."""

    root = 0
    notes: tuple[str, ...] = ()
    ignores_case = True
    default = "/"

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self._fs = FATFS(SourceStream(source))
        self._cluster: int = self._fs.cluster_size
        self._data: int = self._fs.first_data_sector * self._fs.sector_size
        clusters = (self._fs.total_sectors - self._fs.first_data_sector) // self._fs.bpb.BPB_SecPerClus
        if clusters <= 0 or self._data + clusters * self._cluster > source.size:
            raise DamagedError(f"Boot sector: {clusters} clusters of {self._cluster} bytes do not fit the volume.")
        self._clusters: int = clusters
        # As the kernel tells them apart: the library counts clusters alone, and small FAT32 volumes exist.
        self._bits = 32 if not self._fs.bpb.BPB_FATSz16 else 12 if clusters < 4085 else 16
        self.name = f"fat{self._bits}"
        self._root_cluster = int.from_bytes(source.read_at(44, 4), "little")
        self._fat_place: int = self._fs.bpb.BPB_RsvdSecCnt * self._fs.sector_size
        self._fat_size: int = self._fs.fat_size * self._fs.sector_size
        self._page: tuple[int, bytes] = (-1, b"")

    def children(self, node: int) -> Iterator[Child]:
        long_name: list[bytes] = []
        for place, raw in self.records(node):
            if raw[0] == _LAST:
                return
            if raw[0] == _DELETED:
                long_name = []
            elif raw[11] & 0x3F == _LONG_NAME:
                long_name.append(raw)
            else:
                name = _long_name(long_name, raw) or _short_name(raw)
                long_name = []
                if raw[11] & _VOLUME_LABEL or name in (".", ".."):
                    continue
                yield Child(name, place, Kind.FOLDER if raw[11] & _FOLDER else Kind.FILE)

    def entry(self, node: int) -> Entry:
        if node == self.root:
            return Entry(node=node, kind=Kind.FOLDER, size=0, mode=0o755, mtime=0, atime=0, ctime=0, owned=False)
        _, attributes, _, tenths, made, made_day, read_day, _, time, day, _, size = self._fields(node)
        folder = bool(attributes & _FOLDER)
        return Entry(
            node=node,
            kind=Kind.FOLDER if folder else Kind.FILE,
            size=0 if folder else size,
            mode=0o755 if folder else 0o444 if attributes & _READ_ONLY else 0o644,
            mtime=dos_time(day, time),
            atime=dos_time(read_day, 0),
            ctime=dos_time(made_day, made) + tenths * 10_000_000,
            owned=False,
        )

    def attributes(self, node: int) -> tuple[Attribute, ...]:
        return ()

    def content(self, node: int, stream: str = "") -> Content:
        if stream:
            raise DamagedError("FAT has no alternate streams.")
        size = self._fields(node)[11]
        segments = clip_segments(tuple(self._chain(self._first_cluster(node), -(-size // self._cluster))), size)
        if sum(segment.size for segment in segments) != size:
            raise DamagedError(f"The file has {size} bytes, its chain of clusters ends before.")
        return stored_content(self._source, size, segments)

    def records(self, node: int) -> Iterator[tuple[int, bytes]]:
        """The place and the bytes of every entry of a folder: those of long names and deleted ones, too."""
        for segment in self._folder(node):
            data = self._source.read_at(segment.place, segment.size)
            for at in range(0, len(data) - ENTRY_SIZE + 1, ENTRY_SIZE):
                yield segment.place + at, data[at : at + ENTRY_SIZE]

    def _folder(self, node: int) -> Iterator[Segment]:
        bpb = self._fs.bpb
        if node == self.root and self._bits != 32:
            place = (bpb.BPB_RsvdSecCnt + self._fs.fat_size * bpb.BPB_NumFATs) * self._fs.sector_size
            yield Segment(0, bpb.BPB_RootEntCnt * ENTRY_SIZE, place)
            return
        if node != self.root and not self._fields(node)[1] & _FOLDER:
            raise DamagedError(f"The entry at {node} is no folder.")
        first = self._root_cluster if node == self.root else self._first_cluster(node)
        yield from self._chain(first, max(_FOLDER_LIMIT // self._cluster, 1))

    def _fields(self, node: int) -> tuple[bytes, int, int, int, int, int, int, int, int, int, int, int]:
        return _ENTRY.unpack(self._source.read_at(node, ENTRY_SIZE))

    def _first_cluster(self, node: int) -> int:
        fields = self._fields(node)
        return int(fields[10] | (fields[7] << 16 if self._bits == 32 else 0))

    def _chain(self, cluster: int, limit: int) -> Iterator[Segment]:
        """The clusters of a chain in runs; nothing for an empty chain."""
        end = (1 << min(self._bits, 28)) - 8
        clusters = Clusters(count=self._clusters, size=self._cluster, place=self._data, end=end)
        return chain(cluster, limit, clusters, self._next) if cluster else iter(())

    def _next(self, cluster: int) -> int:
        if self._bits == 12:
            pair = int.from_bytes(self._fat(cluster + cluster // 2) + self._fat(cluster + cluster // 2 + 1), "little")
            return pair >> 4 if cluster & 1 else pair & 0xFFF
        width = self._bits // 8
        at = cluster * width
        if self._page[0] != at // _PAGE:
            self._fat(at)
        value = int.from_bytes(self._page[1][at % _PAGE : at % _PAGE + width], "little")
        return value & 0x0FFFFFFF if self._bits == 32 else value

    def _fat(self, at: int) -> bytes:
        """One byte of the first FAT; a page of it is remembered."""
        if self._page[0] != at // _PAGE:
            begin = at // _PAGE * _PAGE
            count = min(_PAGE, self._fat_size - begin)
            if count <= at - begin:
                raise DamagedError(f"The FAT of {self._fat_size} bytes has no entry at {at}.")
            self._page = (at // _PAGE, self._source.read_at(self._fat_place + begin, count))
        return self._page[1][at % _PAGE : at % _PAGE + 1]


def dos_time(day: int, time: int) -> int:
    """Nanoseconds since 1970 of a DOS date and time; 1980 for dates that do not exist."""
    try:
        moment = datetime.datetime(
            1980 + (day >> 9),
            day >> 5 & 0xF,
            day & 0x1F,
            time >> 11,
            time >> 5 & 0x3F,
            min((time & 0x1F) * 2, 59),
            tzinfo=datetime.UTC,
        )
    except ValueError:
        moment = datetime.datetime(1980, 1, 1, tzinfo=datetime.UTC)
    return int(moment.timestamp()) * 1_000_000_000


def _long_name(parts: list[bytes], short: bytes) -> str:
    """The long name in front of a short entry; empty when it belongs to another one (a DOS left it behind)."""
    checksum = 0
    for byte in short[:11]:
        checksum = ((checksum & 1) << 7 | checksum >> 1) + byte & 0xFF
    expected = len(parts)
    for part in parts:
        if part[0] & 0x3F != expected or part[13] != checksum:
            return ""
        expected -= 1
    text = b"".join(part[1:11] + part[14:26] + part[28:32] for part in reversed(parts))
    units = text.decode("utf-16-le", "surrogatepass").split("\0", 1)[0]
    return units.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


def _short_name(raw: bytes) -> str:
    base, extension = (b"\xe5" + raw[1:8] if raw[0] == 0x05 else raw[:8]), raw[8:11]
    name, kind = base.decode("cp437").rstrip(" "), extension.decode("cp437").rstrip(" ")
    name = name.lower() if raw[12] & _LOWER_BASE else name
    kind = kind.lower() if raw[12] & _LOWER_EXTENSION else kind
    return f"{name}.{kind}" if kind else name
