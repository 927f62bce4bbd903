"""Files of NTFS.

``dissect.ntfs`` reads MFT records, attribute lists, index buffers and LZNT1. Folders are walked here along their
B-tree, because the library passes over damaged index buffers in silence and shows stale names from freed ones; content
is read here, because the library shows what lies behind the valid length of a file instead of zeros.

Windows' permissions are not turned into modes: files are 0o644 (0o444 when read-only), folders 0o755. The files of the
filesystem itself ($MFT …) are not listed. The journal ($LogFile) is not played.
"""

import io
from collections.abc import Iterator

from dissect.ntfs import NTFS
from dissect.ntfs.attr import Attribute as RecordAttribute
from dissect.ntfs.c_ntfs import ATTRIBUTE_TYPE_CODE, IO_REPARSE_TAG
from dissect.ntfs.index import Index, IndexEntry
from dissect.ntfs.mft import MftRecord
from dissect.util import lznt1

from core.errors import DamagedError
from core.units import MIB
from images.browse.entry import (
    Attribute,
    Child,
    Content,
    Entry,
    Kind,
    Piece,
    Segment,
    UnreadableError,
    clip_segments,
    inline_content,
    stored_content,
)
from images.browse.stream import SourceStream
from images.model.extents import Extent
from images.sources import BlockSource

_ROOT = 5
#: Records below this one belong to the filesystem itself.
_FIRST_OWN = 16
_IN_USE, _DIRECTORY = 0x1, 0x2
_INDEX_NODE, _INDEX_END = 0x1, 0x2
_NAME_DOS = 2
_ATTRIBUTE_FOLDER, _ATTRIBUTE_REPARSE, _ATTRIBUTE_READ_ONLY = 0x10000000, 0x400, 0x1
_COMPRESSED, _ENCRYPTED = 0x00FF, 0x4000
_UNIT_LIMIT = 16 * MIB
_SEGMENT_BITS = 48


class NtfsFilesystem:
    """See :class:`images.browse.entry.Filesystem`. A node is a file reference: record number and sequence number."""

    root = _ROOT
    name = "ntfs"
    notes: tuple[str, ...] = ()
    ignores_case = True
    default = "/"

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        # Security descriptors and the change journal are not needed; given empty, they are not looked for.
        self._fs = NTFS(SourceStream(source), usnjrnl=io.BytesIO(), sds=io.BytesIO())
        cluster, record = self._fs.cluster_size, self._fs._record_size
        if not 512 <= cluster <= 2 * MIB or cluster & (cluster - 1) or not 256 <= record <= 65536:
            raise DamagedError(f"Boot sector: clusters of {cluster} bytes, records of {record}.")
        self._cluster: int = cluster

    def children(self, node: int) -> Iterator[Child]:
        record = self._record(node)
        if not record.header.Flags & _DIRECTORY:
            raise DamagedError(f"MFT record {record.segment} is no folder.")
        index = Index(record, "$I30")
        if not 512 <= index.root.bytes_per_index_buffer <= 65536:
            raise DamagedError(f"Index buffers of {index.root.bytes_per_index_buffer} bytes.")
        seen: set[int] = set()
        for entry in self._walk(index, index.root.entries(), seen):
            child = _child(entry)
            if child is not None:
                yield child

    def _walk(self, index: Index, entries: Iterator[IndexEntry], seen: set[int]) -> Iterator[IndexEntry]:
        """The entries of a B-tree in order: below each comes what sorts before it."""
        for entry in entries:
            flags = int(entry.header.Flags)
            if entry.length < 16 or (not flags & _INDEX_END and entry.key_length < 66):
                raise DamagedError(f"An index entry of {entry.length} bytes with a key of {entry.key_length}.")
            if flags & _INDEX_NODE:
                buffer = int(entry.node_vcn)
                if buffer in seen:
                    raise DamagedError(f"Index buffer {buffer} stands in its tree twice.")
                seen.add(buffer)
                yield from self._walk(index, index.index_buffer(buffer).entries(), seen)
            if flags & _INDEX_END:
                return
            yield entry
        raise DamagedError("A list of index entries has no end.")

    def entry(self, node: int) -> Entry:
        record = self._record(node)
        facts = record.attributes[ATTRIBUTE_TYPE_CODE.STANDARD_INFORMATION]
        if not facts:
            raise DamagedError(f"MFT record {record.segment} has no $STANDARD_INFORMATION.")
        folder = bool(record.header.Flags & _DIRECTORY)
        target = self._target(record)
        kind = Kind.LINK if target is not None else Kind.FOLDER if folder else Kind.FILE
        names = record.attributes[ATTRIBUTE_TYPE_CODE.FILE_NAME]
        read_only = int(facts[0].file_attributes) & _ATTRIBUTE_READ_ONLY
        return Entry(
            node=node,
            kind=kind,
            size=self._size(record) if kind is Kind.FILE else 0,
            mode=0o755 if folder else 0o444 if read_only else 0o644,
            mtime=facts[0].last_modification_time_ns,
            atime=facts[0].last_access_time_ns,
            ctime=facts[0].last_change_time_ns,
            links=max(1, sum(1 for name in names if int(name.flags) != _NAME_DOS)),
            target=target or "",
            streams=_streams(record),
            owned=False,
        )

    def attributes(self, node: int) -> tuple[Attribute, ...]:
        return ()

    def content(self, node: int, stream: str = "") -> Content:
        record = self._record(node)
        if not stream:
            self._refuse_filtered(record)
        parts = record.attributes.find(stream, ATTRIBUTE_TYPE_CODE.DATA)
        if not parts:
            if stream:
                raise DamagedError(f"MFT record {record.segment} has no stream {stream!r}.")
            return inline_content(b"")
        if parts[0].header.resident:
            return inline_content(parts[0].header.data())
        return self._nonresident(parts)

    def _record(self, node: int) -> MftRecord:
        number, sequence = node & (1 << _SEGMENT_BITS) - 1, node >> _SEGMENT_BITS
        record = self._fs.mft.get(number)
        if not record.header.Flags & _IN_USE or (sequence and record.header.SequenceNumber != sequence):
            raise DamagedError(
                f"MFT record {number} is not the one its folder names: sequence {record.header.SequenceNumber}, "
                f"expected {sequence}, in use {bool(record.header.Flags & _IN_USE)}."
            )
        return record

    def _size(self, record: MftRecord) -> int:
        parts = record.attributes.find("", ATTRIBUTE_TYPE_CODE.DATA)
        return int(parts.size()) if parts else 0

    def _target(self, record: MftRecord) -> str | None:
        """Where a symbolic link or junction points; None for everything else."""
        points = record.attributes[ATTRIBUTE_TYPE_CODE.REPARSE_POINT]
        if not points:
            return None
        tag = points[0].tag
        if tag in (IO_REPARSE_TAG.SYMLINK, IO_REPARSE_TAG.MOUNT_POINT):
            target = str(points[0].print_name or points[0].substitute_name)
            # Relative targets work where they are put; those with a drive letter are kept as Windows spells them.
            return _text(target.replace("\\", "/") if points[0].relative else target)
        if tag == IO_REPARSE_TAG.LX_SYMLINK:
            return bytes(points[0].buffer[4:]).decode("utf-8", "surrogateescape")
        return None

    def _refuse_filtered(self, record: MftRecord) -> None:
        """Content that a filter driver of Windows keeps elsewhere would read as zeros."""
        points = record.attributes[ATTRIBUTE_TYPE_CODE.REPARSE_POINT]
        if points and points[0].tag == IO_REPARSE_TAG.WOF:
            raise UnreadableError("it is compressed by Windows' overlay filter (CompactOS)")
        if points and points[0].tag == IO_REPARSE_TAG.DEDUP:
            raise UnreadableError("its content is kept by Windows' data deduplication")

    def _nonresident(self, parts: list[RecordAttribute]) -> Content:
        parts = sorted(parts, key=lambda part: int(part.header.lowest_vcn))
        header = parts[0].header
        size, valid = int(header.size), int(header.header.Form.Nonresident.ValidDataLength)
        if not 0 <= valid <= size:
            raise DamagedError(f"A stream of {size} bytes of which {valid} are valid.")
        if header.flags & _ENCRYPTED:
            raise UnreadableError("it is encrypted by Windows (EFS)")
        runs = tuple(self._runs(parts))
        if header.flags & _COMPRESSED:
            return self._compressed(runs, size, valid, int(header.compression_unit))
        segments = clip_segments(tuple(run for run in runs if run.place >= 0), valid)
        return stored_content(self._source, size, segments)

    def _runs(self, parts: list[RecordAttribute]) -> Iterator[Segment]:
        """The runs of a stream in order; a hole has the place -1."""
        cluster, expected = self._cluster, 0
        for part in parts:
            if part.header.resident or int(part.header.lowest_vcn) != expected:
                raise DamagedError(f"A part of a stream begins at cluster {part.header.lowest_vcn}, not {expected}.")
            for place, count in part.header.dataruns():
                if count <= 0 or (place is not None and place < 0):
                    raise DamagedError(f"A run of {count} clusters at {place}.")
                yield Segment(expected * cluster, count * cluster, -1 if place is None else place * cluster)
                expected += count

    def _compressed(self, runs: tuple[Segment, ...], size: int, valid: int, unit: int) -> Content:
        length = self._cluster << unit
        if not 0 < unit <= 8 or length > _UNIT_LIMIT:
            raise DamagedError(f"Compression units of 2^{unit} clusters of {self._cluster} bytes.")

        def read(start: int, end: int) -> Iterator[Piece]:
            first = 0
            for at in range(start // length * length, end, length):
                while first < len(runs) and runs[first].offset + runs[first].size <= at:
                    first += 1
                data = self._unit(runs, first, at, length)
                begin, stop = max(at, start), min(at + length, end)
                if data is None or begin >= valid:
                    yield Piece(begin, stop - begin, None)
                else:
                    data = data[: max(valid - at, 0)].ljust(length, b"\0")
                    yield Piece(begin, stop - begin, data[begin - at : stop - at])

        extents = tuple(Extent(run.place, run.place + run.size) for run in runs if run.place >= 0)
        return Content(size, segments=None, extents=extents, read=read, recipe=f"{unit} {valid} {runs}")

    def _unit(self, runs: tuple[Segment, ...], first: int, at: int, length: int) -> bytes | None:
        """One compression unit: all there, or its beginning compressed and the rest a hole; None for a hole."""
        stored: list[bytes] = []
        for run in runs[first:]:
            if run.offset >= at + length:
                break
            begin, end = max(run.offset, at), min(run.offset + run.size, at + length)
            if run.place >= 0 and begin < end:
                place = run.place + begin - run.offset
                if place + end - begin > self._source.size:
                    raise DamagedError(f"A run at {place} lies outside the volume.")
                stored.append(self._source.read_at(place, end - begin))
        data = b"".join(stored)
        if not data:
            return None
        if len(data) == length:
            return data
        # Two zero bytes end the last block when it does not fill its clusters.
        return bytes(lznt1.decompress(io.BytesIO(data + bytes(2)))[:length]).ljust(length, b"\0")


def _child(entry: IndexEntry) -> Child | None:
    """What an index entry names; None for short DOS names and for the filesystem's own files."""
    key = entry.buf[: entry.header.KeyLength]
    if len(key) < 66 or len(key) < 66 + 2 * key[64]:
        raise DamagedError(f"A name of {key[64] if len(key) > 64 else 0} characters in a key of {len(key)} bytes.")
    reference = entry.header.FileReference
    number = reference.SegmentNumberLowPart | reference.SegmentNumberHighPart << 32
    if key[65] == _NAME_DOS or number < _FIRST_OWN:
        return None
    name = _text(key[66 : 66 + 2 * key[64]].decode("utf-16-le", "surrogatepass"))
    flags = int.from_bytes(key[56:60], "little")
    kind = None if flags & _ATTRIBUTE_REPARSE else Kind.FOLDER if flags & _ATTRIBUTE_FOLDER else Kind.FILE
    return Child(name, number | reference.SequenceNumber << _SEGMENT_BITS, kind)


def _streams(record: MftRecord) -> tuple[str, ...]:
    """Names of the alternate streams, each once; the one behind CompactOS is not for people."""
    names = {str(part.header.name) for part in record.attributes[ATTRIBUTE_TYPE_CODE.DATA]}
    return tuple(sorted(_text(name) for name in names if name and name != "WofCompressedData"))


def _text(name: str) -> str:
    """A name from UTF-16: half a surrogate pair, which Windows allows, becomes bytes as on Linux."""
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
