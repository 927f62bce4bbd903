"""The reader of NTFS: what a volume is, and whether its $Bitmap can be believed.

It is believed of a volume that Windows has closed (``ntfs_closed.py``), whose MFT agrees with its mirror, and
whose $Bitmap covers every cluster and says of all system files, itself included, that they are in use.
"""

from collections.abc import Iterator

import msgspec

from core.errors import DamagedError, DeviceError
from images.filesystems.bitmap import PIECE, all_set, set_ranges
from images.filesystems.c_ntfs import (
    MAGIC,
    AttributeType,
    BootSector,
    SystemFile,
    parse_boot_sector,
    serial_of,
    unprotect,
)
from images.filesystems.ntfs_closed import doubt_about_closing
from images.filesystems.ntfs_mft import Mft
from images.filesystems.ntfs_runs import Stream
from images.filesystems.used import UsedMap, whole
from images.model.extents import Extent, merge
from images.model.layout import Filesystem, FilesystemKind
from images.sources import BlockSource

#: Records of the MFT kept for the system; those from 9 on were not always there.
_SYSTEM_RECORDS = 12
_ALWAYS_THERE = 9
#: Records that $MFTMirr repeats.
_MIRRORED = 4


def read_ntfs(source: BlockSource, *, marked: bool = False) -> UsedMap | None:
    """Which extents hold data; None when there is no NTFS boot sector.

    $Bitmap is read once here, to be believed, and once more, in pieces, when extents are asked for. Always kept: the
    sectors behind the last cluster and the copy of the boot sector, which lies behind the volume's own sectors and
    in the last sector of the partition. Other space behind the end of the volume belongs to no file.

    Args:
        marked: believe it though it is marked for a check: ntfsresize sets that mark when it has checked all of it.
    """
    if source.size < 512:
        return None
    sector = source.read_at(0, 512)
    if sector[3:11] != MAGIC:
        return None
    filesystem = Filesystem(kind=FilesystemKind.NTFS, detail="ntfs", uuid=serial_of(sector))
    try:
        boot = parse_boot_sector(sector)
        if boot.size > source.size:
            return whole(filesystem, source.size, f"it claims {boot.size} bytes, but the volume has {source.size}")
        filesystem = msgspec.structs.replace(filesystem, block_size=boot.cluster_size, size=_claimed(boot, source))
        mft = Mft(source, boot)
        filesystem = msgspec.structs.replace(filesystem, label=_label(mft))
        doubt = doubt_about_closing(mft, marked=marked)
        bitmap = _bitmap(mft, boot)
        _check_mirror(mft, boot, source)
        _check_system_files(mft, boot, bitmap)
    except (DamagedError, DeviceError) as error:
        return whole(filesystem, source.size, error.message.rstrip("."))
    if doubt:
        return whole(filesystem, source.size, doubt)
    return UsedMap(filesystem=filesystem, trusted=True, extents=lambda: merge(_extents(source, boot, bitmap)))


def _claimed(boot: BootSector, source: BlockSource) -> int:
    """Bytes the volume needs: its sectors and, where there is room for it, the copy of the boot sector."""
    return min(boot.size + boot.sector_size, source.size)


def _label(mft: Mft) -> str:
    name = mft.value(SystemFile.VOLUME, AttributeType.VOLUME_NAME)
    return (name or b"").decode("utf-16-le", errors="replace").split("\0", 1)[0]


def _bitmap(mft: Mft, boot: BootSector) -> Stream:
    """The volume's allocation map, long enough and readable to its end.

    Its size is rounded up to 8 bytes by everything that writes one: a longer one was made for more clusters.

    Raises:
        DamagedError: it does not cover every cluster, or covers more than there are.
        DeviceError: a part of it cannot be read.
    """
    bitmap = mft.stream(SystemFile.BITMAP, AttributeType.DATA)
    needed = -(-boot.clusters // 8)
    if min(bitmap.initialized, bitmap.mapped) < needed:
        found = min(bitmap.initialized, bitmap.mapped)
        raise DamagedError(f"its $Bitmap has {found} bytes, but its {boot.clusters} clusters need {needed}")
    if bitmap.size > -(-needed // 8) * 8:
        raise DamagedError(f"its $Bitmap has {bitmap.size} bytes, too many for the {boot.clusters} clusters it claims")
    if bitmap.has_holes:
        raise DamagedError("its $Bitmap has holes")
    for _ in bitmap.pieces(needed, PIECE):
        pass
    return bitmap


def _check_mirror(mft: Mft, boot: BootSector, source: BlockSource) -> None:
    """Compare the first records with their copies, as ntfs-3g does before it mounts.

    Raises:
        DamagedError: they differ: whoever wrote last was interrupted, or one of them is damaged.
        DeviceError: one of them cannot be read.
    """
    mirror = mft.stream(SystemFile.MIRROR, AttributeType.DATA)
    if not mirror.runs or mirror.runs[0].lcn != boot.mirror_lcn:
        raise DamagedError(f"its $MFTMirr does not begin at cluster {boot.mirror_lcn}, as its boot sector says")
    for number in range(_MIRRORED):
        offset = number * boot.record_size
        ours = unprotect(mft.raw(number), b"FILE", f"MFT record {number}")
        copy = unprotect(mirror.read(offset, boot.record_size), b"FILE", f"the copy of MFT record {number}")
        used = int.from_bytes(ours[24:28], "little")
        if ours[:used] != copy[:used]:
            raise DamagedError(f"its $MFTMirr does not match its MFT (record {number}): run chkdsk")


def _check_system_files(mft: Mft, boot: BootSector, bitmap: Stream) -> None:
    """Compare $Bitmap with where the system's own files lie.

    Raises:
        DamagedError: it says of one of their clusters that it is free.
        DeviceError: a record cannot be read.
    """
    for number in range(_SYSTEM_RECORDS):
        if number >= _ALWAYS_THERE and not mft.is_in_use(number):
            continue
        streams = mft.streams(number)
        if number == SystemFile.BOOT and not any(item.runs and item.runs[0].lcn == 0 for item in streams):
            raise DamagedError("its $Boot does not begin at cluster 0")
        for stream in streams:
            for run in stream.runs:
                if run.lcn is not None and not _is_used(bitmap, run.lcn, run.lcn + run.clusters):
                    place = f"clusters {run.lcn} to {run.lcn + run.clusters}"
                    raise DamagedError(f"its $Bitmap says that {place} of {stream.name} are free")


def _is_used(bitmap: Stream, first: int, end: int) -> bool:
    """Whether every cluster of a range is in use."""
    for start in range(first - first % 8, end, PIECE * 8):
        stop = min(start + PIECE * 8, end)
        content = bitmap.read(start // 8, -(-(stop - start) // 8))
        if not all_set(content, max(first - start, 0), stop - start):
            return False
    return True


def _extents(source: BlockSource, boot: BootSector, bitmap: Stream) -> Iterator[Extent]:
    pieces = bitmap.pieces(-(-boot.clusters // 8), PIECE)
    for start, end in set_ranges(pieces, boot.clusters):
        yield Extent(start * boot.cluster_size, end * boot.cluster_size)
    tail = _claimed(boot, source)
    yield Extent(boot.clusters * boot.cluster_size, tail)
    last = source.size // boot.sector_size * boot.sector_size
    yield Extent(max(last - boot.sector_size, tail), max(last, tail))
