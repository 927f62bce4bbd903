"""The master file table of NTFS: records by number, attributes by type and name, wherever their segments lie."""

import struct
from collections.abc import Iterator

from core.errors import DamagedError
from images.filesystems.c_ntfs import (
    Attribute,
    AttributeType,
    BootSector,
    ListEntry,
    parse_attributes,
    parse_list,
    unprotect,
)
from images.filesystems.ntfs_runs import Stream, decode_runs
from images.sources import BlockSource

_IN_USE = 0x1
_NUMBER = (1 << 48) - 1
#: Windows lets no attribute list grow beyond 256 KiB.
_MAX_LIST = 256 << 10
#: Bytes of all records of one file that are held together.
_MAX_RECORDS = 32 << 20
#: Attributes whose content is not what lies in their clusters: compressed, encrypted, sparse.
ENCODED = 0xC0FF


class Mft:
    """Reads records through the MFT's own runs.

    Raises:
        DamagedError: a record, an attribute or a run contradicts the format.
        DeviceError: the source cannot be read.
    """

    def __init__(self, source: BlockSource, boot: BootSector) -> None:
        self._source = source
        self._boot = boot
        content = source.read_at(boot.mft_lcn * boot.cluster_size, boot.record_size)
        attributes = list(self._attributes(content, 0, 0))
        self.data = self._bootstrap(attributes)
        own_place = self.data.runs[0].lcn if self.data.runs else None
        if own_place != boot.mft_lcn:
            raise DamagedError(f"its MFT begins at cluster {own_place}, its boot sector says {boot.mft_lcn}")
        if self.data.mapped < self.data.size or self.data.has_holes:
            raise DamagedError(f"its MFT has {self.data.size} bytes, but clusters for {self.data.mapped}")

    def is_in_use(self, number: int) -> bool:
        """Whether a record holds a file."""
        return bool(struct.unpack_from("<H", self.raw(number), 22)[0] & _IN_USE)

    def raw(self, number: int) -> bytes:
        """A record as it lies on disk."""
        return self.data.read(number * self._boot.record_size, self._boot.record_size)

    def attributes(self, number: int) -> list[Attribute]:
        """All attributes of a file, those in its extension records included."""
        found = list(self._attributes(self.raw(number), number, 0))
        total = self._boot.record_size
        records = {entry.reference for entry in self._list(found, number)}
        for reference in sorted(records):
            if reference & _NUMBER == number:
                continue
            total += self._boot.record_size
            if total > _MAX_RECORDS:
                raise DamagedError(f"MFT record {number} has more than {len(records) - 1} extension records")
            found.extend(self._extension(reference, number))
        return found

    def streams(self, number: int) -> list[Stream]:
        """Every attribute of a file that lies in clusters."""
        attributes = self.attributes(number)
        keys = {(item.type, item.name) for item in attributes if item.value is None}
        return [self._join(attributes, kind, name, number) for kind, name in sorted(keys)]

    def stream(self, number: int, kind: AttributeType, name: str = "") -> Stream:
        """The content of one attribute, which must not be compressed, encrypted or sparse."""
        attributes = [item for item in self.attributes(number) if (item.type, item.name) == (kind, name)]
        if not attributes:
            raise DamagedError(f"MFT record {number} has no attribute {kind.name} {name}".rstrip())
        if any(item.flags & ENCODED for item in attributes):
            raise DamagedError(f"attribute {kind.name} of MFT record {number} is compressed, encrypted or sparse")
        return self._join(attributes, kind, name, number)

    def value(self, number: int, kind: AttributeType, name: str = "") -> bytes | None:
        """The content of a resident attribute; None when the file has none of that kind."""
        for item in self.attributes(number):
            if (item.type, item.name) == (kind, name):
                if item.value is None:
                    raise DamagedError(f"attribute {kind.name} of MFT record {number} is not resident")
                return item.value
        return None

    def _attributes(self, content: bytes, number: int, base: int) -> Iterator[Attribute]:
        """The attributes in one record; ``base``: the reference it must carry, 0 for a base record."""
        record = unprotect(content, b"FILE", f"MFT record {number}")
        flags = struct.unpack_from("<H", record, 22)[0]
        (own_base,) = struct.unpack_from("<Q", record, 32)
        if not flags & _IN_USE:
            raise DamagedError(f"MFT record {number} is not in use")
        if own_base & _NUMBER != base:
            raise DamagedError(f"MFT record {number} belongs to record {own_base & _NUMBER}, not to {base}")
        return parse_attributes(record, f"MFT record {number}")

    def _extension(self, reference: int, base: int) -> Iterator[Attribute]:
        """The attributes in an extension record, which must still be the one that was meant."""
        number = reference & _NUMBER
        content = self.raw(number)
        sequence = struct.unpack_from("<H", content, 16)[0]
        if sequence != reference >> 48:
            raise DamagedError(f"MFT record {number} was used again since record {base} refers to it")
        return self._attributes(content, number, base)

    def _list(self, attributes: list[Attribute], number: int) -> list[ListEntry]:
        """The entries of a file's attribute list; empty when it has none."""
        for item in attributes:
            if item.type != AttributeType.LIST:
                continue
            if item.size > _MAX_LIST:
                raise DamagedError(f"the attribute list of MFT record {number} has {item.size} bytes")
            stream = self._join([item], AttributeType.LIST, item.name, number)
            return list(parse_list(stream.read(0, stream.size), f"MFT record {number}"))
        return []

    def _join(self, attributes: list[Attribute], kind: int, name: str, number: int) -> Stream:
        """One stream of all segments of an attribute."""
        segments = sorted(
            (item for item in attributes if (item.type, item.name) == (kind, name)), key=lambda item: item.first_vcn
        )
        first = segments[0]
        title = f"attribute {kind:#x} of MFT record {number}"
        stream = Stream(self._source, self._boot.cluster_size, first.size, first.initialized, title, first.value)
        if first.value is not None and len(segments) > 1:
            raise DamagedError(f"{title} is there more than once")
        for segment in segments:
            self._append(stream, segment)
        return stream

    def _append(self, stream: Stream, segment: Attribute) -> None:
        """Append the runs of a segment, which must map the clusters it claims. A resident one has none."""
        if segment.value is not None:
            return
        for run in decode_runs(segment.pairs, segment.first_vcn, self._boot.clusters, stream.name):
            stream.extend(run)
        end = stream.runs[-1].vcn + stream.runs[-1].clusters if stream.runs else 0
        if segment.last_vcn + 1 != end:
            raise DamagedError(f"a segment of {stream.name} ends at cluster {end}, it claims {segment.last_vcn + 1}")

    def _bootstrap(self, attributes: list[Attribute]) -> Stream:
        """The MFT's own content. Its extension records lie in what the segments before them map."""
        data = [item for item in attributes if item.type == AttributeType.DATA and not item.name]
        if len(data) != 1 or data[0].value is not None or data[0].flags & ENCODED:
            raise DamagedError("its MFT has no clusters")
        self.data = self._join(data, AttributeType.DATA, "", 0)
        entries = [
            entry
            for entry in self._list(attributes, 0)
            if entry.type == AttributeType.DATA and not entry.name and entry.reference & _NUMBER
        ]
        if len(entries) * self._boot.record_size > _MAX_RECORDS:
            raise DamagedError(f"its MFT has {len(entries)} extension records")
        for entry in sorted(entries, key=lambda entry: entry.first_vcn):
            for item in self._extension(entry.reference, 0):
                if item.type == AttributeType.DATA and not item.name and item.first_vcn == entry.first_vcn:
                    self._append(self.data, item)
        return self.data
