"""The reader of exFAT (Microsoft's exFAT file system specification): the allocation bitmap, and whether to believe it.

It is believed of a volume that was unmounted cleanly, whose main boot region matches its checksum, and whose bitmap
covers every cluster and says of itself, the up-case table and the root directory that they are in use. The count
of PercentInUse is not compared: drivers need not keep it up to date, and Linux does not.
"""

import itertools
import struct
from collections.abc import Iterator

import msgspec
import numpy as np

from core.errors import DamagedError, DeviceError
from images.filesystems.bitmap import PIECE, set_ranges
from images.filesystems.c_exfat import (
    BOOT_SECTORS,
    MAGIC,
    BootSector,
    Entry,
    EntryType,
    VolumeFlag,
    checksum,
    parse_boot_sector,
    sector_size_of,
    serial_of,
)
from images.filesystems.exfat_chains import Chain, ClusterRun, read_chain, read_pieces
from images.filesystems.used import UsedMap, whole
from images.model.extents import Extent, merge
from images.model.layout import Filesystem, FilesystemKind
from images.sources import BlockSource

_ENTRY = 32
#: The largest directory (specification 7.4.9).
_MAX_DIRECTORY = 256 << 20
#: An up-case table says of at most 65536 characters what they become.
_MAX_UPCASE = 2 << 16
#: Characters of a volume label (specification 7.3.2).
_MAX_LABEL = 11


class _Root(msgspec.Struct, frozen=True):
    """What the root directory says of the volume."""

    bitmaps: tuple[Entry, ...]
    upcases: tuple[Entry, ...]
    label: str


class _Volume(msgspec.Struct, frozen=True):
    """A volume whose boot region and root directory were read.

    Attributes:
        owned: clusters of the root directory, the up-case table and the bitmap.
    """

    boot: BootSector
    label: str
    bitmap: Chain
    owned: tuple[ClusterRun, ...]


def read_exfat(source: BlockSource) -> UsedMap | None:
    """Which extents hold data; None when there is no exFAT boot sector.

    The bitmap is read once here, to be believed, and once more, in pieces, when extents are asked for. Always kept:
    both boot regions, the FATs, the sectors behind the last cluster. Space behind the volume's end is not yielded.
    """
    if source.size < BOOT_SECTORS * 512:
        return None
    sector = source.read_at(0, 512)
    if sector[3:11] != MAGIC:
        return None
    filesystem = Filesystem(kind=FilesystemKind.EXFAT, detail="exfat", uuid=serial_of(sector))
    try:
        _check_boot_region(source, sector)
        boot = parse_boot_sector(sector)
        filesystem = msgspec.structs.replace(filesystem, block_size=boot.cluster_size, size=boot.size)
        if boot.size > source.size:
            return whole(filesystem, source.size, f"it claims {boot.size} bytes, but the volume has {source.size}")
        volume = _read_volume(source, boot)
        filesystem = msgspec.structs.replace(filesystem, label=volume.label)
        doubt = _doubt(boot)
        if not doubt:
            _check_bitmap(source, volume)
    except (DamagedError, DeviceError) as error:
        return whole(filesystem, source.size, error.message.rstrip("."))
    if doubt:
        return whole(filesystem, source.size, doubt)
    return UsedMap(filesystem=filesystem, trusted=True, extents=lambda: merge(_extents(source, volume)))


def _check_boot_region(source: BlockSource, sector: bytes) -> None:
    """Compare the main boot region with its checksum. The backup would be no better: whole it is then, and said.

    Raises:
        DamagedError: it does not match.
        DeviceError: it cannot be read.
    """
    size = sector_size_of(sector)
    if source.size < 2 * BOOT_SECTORS * size:
        raise DamagedError(f"its boot regions have {2 * BOOT_SECTORS * size} bytes, but the volume has {source.size}")
    problems = []
    for name, first in (("main", 0), ("backup", BOOT_SECTORS)):
        region = source.read_at(first * size, BOOT_SECTORS * size)
        found = checksum(region[:-size])
        if region[-size:] == struct.pack("<I", found) * (size // 4):
            break
        problems.append(name)
    if problems:
        state = "; neither does its backup" if len(problems) == 2 else ", its backup does: run fsck.exfat or chkdsk"
        raise DamagedError(f"its main boot region does not match its checksum{state}")


def _doubt(boot: BootSector) -> str:
    """Why the bitmap of a sound volume is not believed; empty when it is."""
    if boot.flags & VolumeFlag.DIRTY:
        return "it is mounted, or was not cleanly unmounted"
    if boot.flags & VolumeFlag.MEDIA_FAILURE:
        return "it has recorded failures of its medium: run fsck.exfat or chkdsk"
    return ""


def _read_volume(source: BlockSource, boot: BootSector) -> _Volume:
    """Root directory, up-case table and bitmap.

    Raises:
        DamagedError: one of them is missing, there twice, or leaves the volume.
        DeviceError: one of them cannot be read.
    """
    if boot.fats != 1 or boot.flags & VolumeFlag.ACTIVE_FAT:
        raise DamagedError("it has two FATs (TexFAT), which liferaft does not know")
    limit = min(-(-_MAX_DIRECTORY // boot.cluster_size), boot.clusters)
    directory = read_chain(source, boot, boot.root_cluster, limit, "its root directory")
    root = _read_root(source, boot, directory)
    if len(root.bitmaps) != 1 or len(root.upcases) != 1:
        found = f"{len(root.bitmaps)} allocation bitmaps and {len(root.upcases)} up-case tables"
        raise DamagedError(f"its root directory names {found} instead of one each")
    needed = -(-boot.clusters // 8)
    if root.bitmaps[0].size < needed:
        raise DamagedError(f"its bitmap has {root.bitmaps[0].size} bytes, but {boot.clusters} clusters need {needed}")
    if not 0 < root.upcases[0].size <= _MAX_UPCASE:
        raise DamagedError(f"its up-case table has {root.upcases[0].size} bytes")
    bitmap = _read_owned(source, boot, root.bitmaps[0], "its allocation bitmap")
    upcase = _read_owned(source, boot, root.upcases[0], "its up-case table")
    return _Volume(boot, root.label, bitmap, (*directory.runs, *upcase.runs, *bitmap.runs))


def _read_owned(source: BlockSource, boot: BootSector, entry: Entry, name: str) -> Chain:
    """The chain of an entry, which must be as long as the entry says."""
    expected = -(-entry.size // boot.cluster_size)
    chain = read_chain(source, boot, entry.first_cluster, min(expected, boot.clusters), name)
    if chain.clusters != expected:
        raise DamagedError(f"{name} has {chain.clusters} clusters, its {entry.size} bytes need {expected}")
    return chain


def _read_root(source: BlockSource, boot: BootSector, directory: Chain) -> _Root:
    """The entries of the root directory that describe the volume; files are passed over."""
    owned: dict[int, list[Entry]] = {EntryType.BITMAP: [], EntryType.UPCASE: []}
    label = ""
    size = directory.clusters * boot.cluster_size
    for content in read_pieces(source, boot, directory, size, PIECE):
        types = np.frombuffer(content, dtype=np.uint8)[::_ENTRY]
        wanted = np.isin(types, np.array(list(EntryType), dtype=np.uint8))
        for index in np.flatnonzero(wanted).tolist():
            entry = content[index * _ENTRY : (index + 1) * _ENTRY]
            if entry[0] == EntryType.END:
                return _Root(tuple(owned[EntryType.BITMAP]), tuple(owned[EntryType.UPCASE]), label)
            if entry[0] == EntryType.LABEL:
                length = 2 * min(entry[1], _MAX_LABEL)
                label = entry[2 : 2 + length].decode("utf-16-le", errors="replace")
            else:
                owned[entry[0]].append(Entry(*struct.unpack_from("<IQ", entry, 20)))
                if len(owned[entry[0]]) > 2:
                    raise DamagedError("its root directory names more than two bitmaps or up-case tables")
    return _Root(tuple(owned[EntryType.BITMAP]), tuple(owned[EntryType.UPCASE]), label)


def _check_bitmap(source: BlockSource, volume: _Volume) -> None:
    """Read the bitmap to its end; what describes the volume must be in use by it.

    Raises:
        DamagedError: the bitmap says that it is free.
        DeviceError: a part of the bitmap cannot be read.
    """
    missing = sum(run.end - run.first for run in volume.owned)
    bounds = sorted((run.first - 2, run.end - 2) for run in volume.owned)
    if any(second[0] < first[1] for first, second in itertools.pairwise(bounds)):
        raise DamagedError("its root directory, up-case table and bitmap share clusters")
    index = 0
    for start, end in _used_clusters(source, volume):
        while index < len(bounds) and bounds[index][1] <= start:
            index += 1
        position = index
        while position < len(bounds) and bounds[position][0] < end:
            missing -= min(end, bounds[position][1]) - max(start, bounds[position][0])
            position += 1
    if missing:
        raise DamagedError(f"its bitmap says that {missing} clusters of itself or of the root directory are free")


def _used_clusters(source: BlockSource, volume: _Volume) -> Iterator[tuple[int, int]]:
    """Half-open ranges of clusters in use, counted from 0."""
    size = -(-volume.boot.clusters // 8)
    pieces = read_pieces(source, volume.boot, volume.bitmap, size, PIECE)
    return set_ranges(pieces, volume.boot.clusters)


def _extents(source: BlockSource, volume: _Volume) -> Iterator[Extent]:
    boot = volume.boot
    yield Extent(0, boot.heap_offset)
    for start, end in _used_clusters(source, volume):
        yield Extent(boot.offset_of(start + 2), boot.offset_of(end + 2))
    yield Extent(boot.offset_of(boot.clusters + 2), boot.size)
