"""The reader of swap areas: nothing in them outlives a reboot, except the header and a hibernated system.

Format: kernel include/linux/swap.h (union swap_header); signatures of hibernated systems as libblkid knows them.
"""

import struct
from uuid import UUID

from images.filesystems.used import UsedMap, whole
from images.model.extents import Extent
from images.model.layout import Filesystem, FilesystemKind
from images.sources import BlockSource

#: Page sizes of the machines Linux runs on; the signature ends the first page.
_PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
_HEADER_OFFSET = 1024
_SWAP = b"SWAPSPACE2"
_OLD_SWAP = b"SWAP-SPACE"
_HIBERNATED = (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001", b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c")


def read_swap(source: BlockSource) -> UsedMap | None:
    """Which extents hold data: the header page alone. None when this is no swap area.

    A hibernated system's memory lies in the area and would be lost: then all of it is kept.
    """
    for page_size in _PAGE_SIZES:
        if source.size < page_size:
            return None
        signature = source.read_at(page_size - 10, 10)
        if signature in (_SWAP, _OLD_SWAP) or signature.startswith(_HIBERNATED):
            return _judge(source, page_size, signature)
    return None


def _judge(source: BlockSource, page_size: int, signature: bytes) -> UsedMap:
    header = source.read_at(_HEADER_OFFSET, 44)
    order = "<" if struct.unpack_from("<I", header)[0] == 1 else ">"
    version, last_page = struct.unpack_from(f"{order}II", header)
    filesystem = Filesystem(
        kind=FilesystemKind.SWAP,
        detail="swap",
        uuid=str(UUID(bytes=header[12:28])) if any(header[12:28]) else "",
        label=header[28:44].split(b"\0", 1)[0].decode(errors="replace"),
        block_size=page_size,
        size=(last_page + 1) * page_size if version == 1 else 0,
    )
    if signature == _OLD_SWAP:
        old = Filesystem(kind=FilesystemKind.SWAP, detail="swap", block_size=page_size)
        return whole(old, source.size, "its format is older than Linux 2.2")
    if signature != _SWAP:
        return whole(filesystem, source.size, "it holds the memory of a hibernated system")
    if version != 1:
        return whole(filesystem, source.size, "its header is damaged: its version is not 1")
    if filesystem.size > source.size:
        reason = f"it claims {filesystem.size} bytes, but the volume has {source.size}"
        return whole(filesystem, source.size, reason)
    return UsedMap(filesystem=filesystem, trusted=True, extents=lambda: iter((Extent(0, page_size),)))
