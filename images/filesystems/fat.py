"""The reader of FAT12, FAT16 and FAT32 (Microsoft's FAT specification 1.03; kernel: fs/fat/inode.c).

The map is the FAT itself: a cluster is in use when its entry is neither free nor marked bad. Boot sector,
reserved sectors, every FAT, the fixed root directory and the sectors too few for a last cluster are always kept.
"""

import struct
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.errors import DeviceError
from images.filesystems.used import UsedMap, whole
from images.model.extents import Extent, merge
from images.model.layout import Filesystem, FilesystemKind
from images.sources import BlockSource

#: Bytes of a FAT looked at together: whole entries of 12, 16 and 32 bits.
_CHUNK = 3 << 18
_DIRTY_BITS = 0x03
#: Clusters of a FAT32 root directory that are searched for the volume label.
_LABEL_CLUSTERS = 64


class _Volume(msgspec.Struct, frozen=True, kw_only=True):
    """The BIOS parameter block. Sizes and offsets in bytes unless named otherwise."""

    sector_size: int
    cluster_size: int
    reserved_size: int
    fat_count: int
    fat_size: int
    root_entries: int
    total_size: int
    media: int
    bits: int
    flags: int
    version: int
    root_cluster: int
    state: int
    serial: int

    @property
    def root_offset(self) -> int:
        """Where the fixed root directory lies, or would lie (FAT32)."""
        return self.reserved_size + self.fat_count * self.fat_size

    @property
    def data_offset(self) -> int:
        """Where cluster 2 lies."""
        root_size = self.root_entries * 32
        return self.root_offset + -(-root_size // self.sector_size) * self.sector_size

    @property
    def clusters(self) -> int:
        return max(self.total_size - self.data_offset, 0) // self.cluster_size

    @property
    def kind(self) -> FilesystemKind:
        return {12: FilesystemKind.FAT12, 16: FilesystemKind.FAT16, 32: FilesystemKind.FAT32}[self.bits]

    @property
    def last_entry(self) -> int:
        """The highest number of an entry: all bits that count (28 of 32)."""
        return (1 << min(self.bits, 28)) - 1

    @property
    def bad(self) -> int:
        """The entry of a bad cluster."""
        return self.last_entry - 8

    @property
    def mirrored(self) -> bool:
        return not (self.bits == 32 and self.flags & 0x80)

    @property
    def active_fat(self) -> int:
        """Which FAT is right: all, then the first; or the one that FAT32 names."""
        return 0 if self.mirrored else self.flags & 0x0F


def read_fat(source: BlockSource) -> UsedMap | None:
    """Which extents hold data; None when this is no FAT boot sector.

    The FATs are read once here, to be believed, and the active one again when extents are asked for. Space behind the
    end of the filesystem belongs to no file and is not yielded.
    """
    if source.size < 512:
        return None
    volume = _parse(source.read_at(0, 512))
    if volume is None:
        return None
    filesystem = Filesystem(
        kind=volume.kind,
        detail="vfat",
        uuid=f"{volume.serial >> 16:04X}-{volume.serial & 0xFFFF:04X}" if volume.serial else "",
        block_size=volume.cluster_size,
        size=volume.total_size,
    )
    damage = _damage(source, volume)
    if damage:
        return whole(filesystem, source.size, f"{damage}")
    try:
        filesystem = msgspec.structs.replace(filesystem, label=_label(source, volume))
        doubt = _doubt(source, volume)
    except DeviceError as error:
        doubt = error.message.rstrip(".")
    if doubt:
        return whole(filesystem, source.size, f"{doubt}")
    return UsedMap(filesystem=filesystem, trusted=True, extents=lambda: merge(_extents(source, volume)))


def _parse(sector: bytes) -> _Volume | None:
    """The boot sector's fields; None when it is not one of FAT.

    Whoever has 16-bit FAT sizes zero is FAT32, as for Linux and Windows; between FAT12 and FAT16 the
    number of clusters decides.
    """
    sector_size, per_cluster, reserved, fat_count, root_entries = struct.unpack_from("<HBHBH", sector, 11)
    sectors16, media, fat16_sectors = struct.unpack_from("<HBH", sector, 19)
    sectors32, fat32_sectors, flags, version, root_cluster = struct.unpack_from("<IIHHI", sector, 32)
    wide = fat16_sectors == 0
    extended = 64 if wide else 36
    sane = (
        sector[0] in (0xEB, 0xE9)
        and (sector[510:512] == b"\x55\xaa" or sector[extended + 18 : extended + 21] == b"FAT")
        and sector[3:11] not in (b"NTFS    ", b"EXFAT   ")
        and sector_size in (512, 1024, 2048, 4096)
        and per_cluster.bit_count() == 1
        and reserved > 0
        and 0 < fat_count <= 4
        and (media == 0xF0 or media >= 0xF8)
        and (sectors16 or sectors32)
        and (fat32_sectors if wide else root_entries)
    )
    if not sane:
        return None
    state, signature, serial = struct.unpack_from("<xBBI", sector, extended)
    volume = _Volume(
        sector_size=sector_size,
        cluster_size=per_cluster * sector_size,
        reserved_size=reserved * sector_size,
        fat_count=fat_count,
        fat_size=(fat32_sectors if wide else fat16_sectors) * sector_size,
        root_entries=0 if wide else root_entries,
        total_size=(sectors16 or sectors32) * sector_size,
        media=media,
        bits=32 if wide else 16,
        flags=flags if wide else 0,
        version=version if wide else 0,
        root_cluster=root_cluster if wide else 0,
        state=state,
        serial=serial if signature in (0x28, 0x29) else 0,
    )
    narrow = not wide and volume.clusters < 4085
    return msgspec.structs.replace(volume, bits=12) if narrow else volume


def _damage(source: BlockSource, volume: _Volume) -> str:
    """What makes the boot sector unbelievable; empty when nothing does, and then all arithmetic stays in bounds."""
    if volume.total_size > source.size:
        return f"it claims {volume.total_size} bytes, but the volume has {source.size}"
    if not 0 < volume.clusters < volume.bad - 2:
        return f"its boot sector is damaged: it has {volume.clusters} clusters"
    if volume.fat_size < -(-(volume.clusters + 2) * volume.bits // 8):
        return f"its boot sector is damaged: a FAT of {volume.fat_size} bytes for {volume.clusters} clusters"
    if volume.version:
        return f"its version {volume.version:#x} is unknown"
    if volume.active_fat >= volume.fat_count:
        return f"its boot sector is damaged: FAT {volume.active_fat} of {volume.fat_count} is the active one"
    return ""


def _doubt(source: BlockSource, volume: _Volume) -> str:
    """Why the FAT is not believed; empty when it is. Looks at every entry once, and at the other copies."""
    if volume.state & _DIRTY_BITS:
        return "it is mounted, or was not cleanly unmounted"
    for first, content in _fat_chunks(source, volume, volume.active_fat):
        entries = _entries(content, volume)
        if first == 0:
            doubt = _doubt_about_first(volume, entries)
            if doubt:
                return doubt
            entries = entries[2:]
        outside = (entries >= volume.clusters + 2) & (entries < volume.bad)
        if outside.any():
            return "an entry of its FAT points outside it"
    if volume.mirrored:
        for copy in range(1, volume.fat_count):
            pairs = zip(_fat_chunks(source, volume, 0), _fat_chunks(source, volume, copy), strict=True)
            if any(ours != theirs for ours, theirs in pairs):
                return "its FATs differ from each other"
    return ""


def _doubt_about_first(volume: _Volume, entries: NDArray[np.uint32]) -> str:
    """Entry 0 repeats the media byte; entry 1 says whether the volume was unmounted, and free of disk errors."""
    if int(entries[0]) & 0xFF != volume.media:
        return "its FAT does not begin with the media byte of its boot sector"
    if volume.bits == 12:
        return ""
    clean, sound = (1 << 15, 1 << 14) if volume.bits == 16 else (1 << 27, 1 << 26)
    if not int(entries[1]) & clean:
        return "it is mounted, or was not cleanly unmounted"
    if not int(entries[1]) & sound:
        return "it has recorded disk errors: run fsck"
    return ""


def _extents(source: BlockSource, volume: _Volume) -> Iterator[Extent]:
    yield Extent(0, volume.data_offset)
    for first, content in _fat_chunks(source, volume, volume.active_fat):
        entries = _entries(content, volume)
        used = (entries != 0) & (entries != volume.bad)
        if first == 0:
            used[:2] = False
        edges = np.flatnonzero(np.diff(used.view(np.uint8), prepend=np.uint8(0), append=np.uint8(0)))
        offsets = (edges.astype(np.int64) + (first - 2)) * volume.cluster_size + volume.data_offset
        for start, end in offsets.reshape(-1, 2).tolist():
            yield Extent(start, end)
    yield Extent(volume.data_offset + volume.clusters * volume.cluster_size, volume.total_size)


def _fat_chunks(source: BlockSource, volume: _Volume, copy: int) -> Iterator[tuple[int, bytes]]:
    """The meaningful bytes of one FAT in chunks: the number of the first entry, and the bytes."""
    size = -(-(volume.clusters + 2) * volume.bits // 8)
    base = volume.reserved_size + copy * volume.fat_size
    for offset in range(0, size, _CHUNK):
        yield offset * 8 // volume.bits, source.read_at(base + offset, min(_CHUNK, size - offset))


def _entries(content: bytes, volume: _Volume) -> NDArray[np.uint32]:
    """The entries in a chunk, those bits that count. A FAT12 chunk may end in half a pair."""
    if volume.bits == 32:
        return np.frombuffer(content, dtype="<u4") & np.uint32(0x0FFFFFFF)
    if volume.bits == 16:
        return np.frombuffer(content, dtype="<u2").astype(np.uint32)
    triples = np.frombuffer(content + bytes(-len(content) % 3), dtype=np.uint8).reshape(-1, 3).astype(np.uint32)
    even = triples[:, 0] | (triples[:, 1] & 0x0F) << 8
    odd = triples[:, 1] >> 4 | triples[:, 2] << 4
    return np.stack([even, odd], axis=1).reshape(-1)[: volume.clusters + 2]


def _label(source: BlockSource, volume: _Volume) -> str:
    """The volume label: the root directory's entry for it. The boot sector's copy goes stale and counts for nobody."""
    for content in _root_directory(source, volume):
        for offset in range(0, len(content) - 31, 32):
            if content[offset] == 0:
                return ""
            if content[offset] != 0xE5 and content[offset + 11] & 0x3F in (0x08, 0x28):
                return _text(content[offset : offset + 11])
    return ""


def _root_directory(source: BlockSource, volume: _Volume) -> Iterator[bytes]:
    if volume.bits != 32:
        yield source.read_at(volume.root_offset, volume.root_entries * 32)
        return
    cluster = volume.root_cluster
    for _ in range(_LABEL_CLUSTERS):
        if not 2 <= cluster < volume.clusters + 2:
            return
        yield source.read_at(volume.data_offset + (cluster - 2) * volume.cluster_size, volume.cluster_size)
        entry = source.read_at(volume.reserved_size + volume.active_fat * volume.fat_size + 4 * cluster, 4)
        cluster = struct.unpack("<I", entry)[0] & 0x0FFFFFFF


def _text(name: bytes) -> str:
    """A label in the code page DOS was born with, without the spaces that fill it up."""
    return name.decode("cp437").split("\0", 1)[0].rstrip()
