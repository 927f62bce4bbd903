"""Whether an NTFS volume was closed: its dirty flag, its journal, a hibernated Windows.

The judge is ntfs-3g as it mounts for writing (libntfs-3g: volume.c, logfile.c), because only then does anybody
build on $Bitmap. ntfsclone and partclone ask for the dirty flag alone: they copy a hibernated Windows, or one
whose journal would still change the map, by a map that may be stale.
"""

import struct
from collections.abc import Iterator

import msgspec

from core.errors import DamagedError
from images.filesystems.bitmap import set_ranges
from images.filesystems.c_ntfs import STRIDE, AttributeType, SystemFile, VolumeFlag, is_protected_size, unprotect
from images.filesystems.ntfs_mft import Mft
from images.filesystems.ntfs_runs import Stream

#: Versions of NTFS: Windows NT 4, 2000, XP and newer.
_VERSIONS = ((1, 2), (3, 0), (3, 1))
_EMPTY = b"\xff\xff\xff\xff"
_RESTART_PAGES = (b"RSTR", b"CHKD")
_NO_CLIENT = 0xFFFF
_LOG_CLEAN = 0x2
_LOG_PAGE = 4096
#: Two restart pages and 48 pages of records (kernel: fs/ntfs3/fslog.c, MinLogRecordPages).
_MIN_LOG = 50 * _LOG_PAGE
_MAX_LOG = 1 << 32
_MAX_SYSTEM_PAGE = 64 << 10
_HIBERFILE = "hiberfil.sys"
_HIBERFILE_HEADER = 4096
_HIBERNATED = (b"hibr", b"HIBR")
#: Bytes of the root directory's index that are searched: more than half a million files.
_MAX_INDEX = 64 << 20
#: Where an index's root keeps its flags, and the flag that the index has blocks besides.
_INDEX_FLAGS = 28
_HAS_BLOCKS = 0x1
_NUMBER = (1 << 48) - 1


class _RestartPage(msgspec.Struct, frozen=True, kw_only=True):
    """What counts in a restart page of $LogFile: the newer of two by ``lsn`` is the one to believe."""

    lsn: int
    version: tuple[int, int]
    clients: int
    flags: int


def doubt_about_closing(mft: Mft, *, marked: bool = False) -> str:
    """Why the volume may not be closed; empty when it is.

    Args:
        marked: the mark that asks for a check is no doubt: the caller knows who set it.

    Raises:
        DamagedError: what has to be looked at is damaged.
        DeviceError: the source cannot be read.
    """
    return _doubt_by_flags(mft, marked) or _doubt_by_log(mft) or _doubt_by_hiberfile(mft)


def _doubt_by_flags(mft: Mft, marked: bool) -> str:
    information = mft.value(SystemFile.VOLUME, AttributeType.VOLUME_INFORMATION)
    if information is None or len(information) < 12:
        raise DamagedError("$Volume says neither version nor flags")
    major, minor, flags = struct.unpack_from("<BBH", information, 8)
    if (major, minor) not in _VERSIONS:
        return f"its version {major}.{minor} is unknown"
    if flags & VolumeFlag.CHKDSK_UNDERWAY:
        return "chkdsk has not finished on it"
    if flags & VolumeFlag.DIRTY and not marked:
        return "it was not cleanly unmounted, or is scheduled for a check: start Windows, or run chkdsk"
    return ""


def _doubt_by_log(mft: Mft) -> str:
    """An emptied journal was clean; of another one the newer restart page says whether it was closed."""
    log = mft.stream(SystemFile.LOG, AttributeType.DATA)
    if log.size < _MIN_LOG:
        raise DamagedError(f"its journal ($LogFile) has only {log.size} bytes")
    pages, empty = [], True
    for offset, block in _log_blocks(log):
        if block[:4] != _EMPTY:
            empty = False
        elif not empty:
            break
        if block[:4] == b"RCRD":
            break
        page = _restart_page(block, offset)
        if page is not None:
            pages.append(page)
            if offset:
                break
    if empty:
        return ""
    if not pages:
        return "its journal ($LogFile) has no valid restart page"
    latest = max(pages, key=lambda page: page.lsn)
    if latest.version[0] >= 2:
        return (
            "Windows keeps a part of it in memory (hibernation or Fast Startup), or it was unplugged without "
            "being ejected: shut Windows down completely"
        )
    if latest.clients != _NO_CLIENT and not latest.flags & _LOG_CLEAN:
        return "it is mounted, or was not cleanly unmounted: its journal ($LogFile) is open"
    return ""


def _log_blocks(log: Stream) -> Iterator[tuple[int, bytes]]:
    """The places where a restart page may begin, the first or the second one, for every page size."""
    yield 0, log.read(0, STRIDE)
    offset = STRIDE
    end = min(log.size, _MAX_LOG) // _LOG_PAGE * _LOG_PAGE
    while offset < end:
        yield offset, log.read(offset, STRIDE)
        offset *= 2


def _restart_page(block: bytes, offset: int) -> _RestartPage | None:
    """The restart page that begins with ``block``; None when none does, or not a valid one.

    All that is read lies before the block's first protected word, so that nothing has to be unprotected.
    """
    if block[:4] not in _RESTART_PAGES:
        return None
    chkdsk_lsn, page_size, log_page_size, area, minor, major = struct.unpack_from("<QIIHhh", block, 8)
    if page_size.bit_count() != 1 or not STRIDE <= page_size <= _MAX_SYSTEM_PAGE:
        return None
    if log_page_size.bit_count() != 1 or log_page_size < STRIDE or offset not in (0, page_size):
        return None
    if area % 8 or not 30 <= area <= STRIDE - 2 - 48 or (major, minor) < (1, 1):
        return None
    checked = block[:4] == b"CHKD"
    if chkdsk_lsn and not checked:
        return None
    lsn, count, free, used, flags = struct.unpack_from("<QHHHH", block, area)
    if any(client != _NO_CLIENT and client >= count for client in (free, used)):
        return None
    return _RestartPage(lsn=chkdsk_lsn if checked else lsn, version=(major, minor), clients=used, flags=flags)


def _doubt_by_hiberfile(mft: Mft) -> str:
    """A hibernated Windows, or Fast Startup, goes on with what it remembers of the volume."""
    for number in sorted(_root_entries(mft)):
        header = mft.stream(number, AttributeType.DATA)
        if header.size < _HIBERFILE_HEADER:
            return f"a Windows on another partition is hibernated: its {_HIBERFILE} has only {header.size} bytes"
        if header.read(0, 4) in _HIBERNATED:
            return "Windows is hibernated on it (or was shut down with Fast Startup): shut it down completely"
    return ""


def _root_entries(mft: Mft) -> set[int]:
    """Numbers of the MFT records to which the root directory refers under the name of the hibernation file."""
    attributes = [item for item in mft.attributes(SystemFile.ROOT) if item.name == "$I30"]
    root = next((item.value for item in attributes if item.type == AttributeType.INDEX_ROOT), None)
    if root is None or len(root) < 32:
        raise DamagedError("the root directory has no index")
    found = set(_matching(root, 16))
    if not any(item.type == AttributeType.INDEX_ALLOCATION for item in attributes):
        if root[_INDEX_FLAGS] & _HAS_BLOCKS:
            raise DamagedError("the blocks of the root directory's index are missing")
        return found
    (index_block,) = struct.unpack_from("<I", root, 8)
    if not is_protected_size(index_block):
        raise DamagedError(f"the index of the root directory has blocks of {index_block} bytes")
    index = mft.stream(SystemFile.ROOT, AttributeType.INDEX_ALLOCATION, "$I30")
    if index.size > _MAX_INDEX:
        raise DamagedError(f"the index of the root directory has {index.size} bytes, too many to search")
    in_use = mft.stream(SystemFile.ROOT, AttributeType.BITMAP, "$I30")
    blocks = index.size // index_block
    if in_use.size * 8 < blocks:
        raise DamagedError(f"the bitmap of the root directory has {in_use.size} bytes for {blocks} blocks")
    bitmap = in_use.read(0, min(in_use.size, -(-blocks // 8)))
    for first, end in set_ranges([bitmap], blocks):
        for number in range(first, end):
            block = index.read(number * index_block, index_block)
            found |= set(_matching(unprotect(block, b"INDX", f"block {number} of the root directory"), 24))
    return found


def _matching(node: bytes, header: int) -> Iterator[int]:
    """MFT record numbers of a node's entries with the name that is looked for. ``header``: where its lengths lie."""
    start, length = struct.unpack_from("<II", node, header)
    offset, end = header + start, header + length
    if end > len(node):
        raise DamagedError(f"a node of the root directory has {length} bytes of entries")
    wanted = _HIBERFILE.encode("utf-16-le")
    if wanted not in node.lower():
        return
    while offset + 16 <= end:
        reference, size, key, flags = struct.unpack_from("<QHHH", node, offset)
        if size < 16 or size % 8 or offset + size > end or key > size - 16:
            raise DamagedError(f"the root directory has an entry of {size} bytes at {offset}")
        if flags & 0x2:  # the last entry of a node has no key
            return
        name = node[offset + 16 + 66 : offset + 16 + key]
        if key >= 66 and name.lower() == wanted:
            yield reference & _NUMBER
        offset += size
