"""Proof that a FAT volume made anew holds what the stored one does: every entry, and every file's digest.

Both volumes are read by the reader of images, folder by folder; how the copy was made plays no part.
"""

from collections.abc import Callable, Iterator

from blake3 import blake3

from core.errors import DeviceError
from images.browse.entry import Child
from images.browse.fat import ENTRY_SIZE, FatFilesystem
from images.browse.tree import join, shown

_DELETED, _LAST = 0xE5, 0x00
#: The bytes of an entry that name its first cluster, or for FAT12 and FAT16 an older thing that is kept.
_CLUSTER_LOW, _CLUSTER_HIGH = slice(26, 28), slice(20, 22)


def prove_equal(stored: FatFilesystem, made: FatFilesystem, advance: Callable[[int], None]) -> int:
    """Compare two volumes.

    Args:
        advance: told of bytes of files that were compared.

    Returns:
        bytes of files that were read back.

    Raises:
        DeviceError: something differs; the message names the path.
    """
    compared = 0
    waiting: list[tuple[str, int, int]] = [("/", stored.root, made.root)]
    while waiting:
        path, one, other = waiting.pop()
        if list(_records(stored, one)) != list(_records(made, other)):
            raise DeviceError(f"{shown(path)}: the folder does not read back as it was written.")
        for left, right in _pairs(path, list(stored.children(one)), list(made.children(other))):
            place = join(path, left.name)
            if stored.entry(left.node).kind == "folder":
                waiting.append((place, left.node, right.node))
                continue
            size, digest = _digest(stored, left.node)
            if (size, digest) != _digest(made, right.node):
                raise DeviceError(f"{shown(place)}: its {size} bytes do not read back as they were written.")
            compared += size
            advance(size)
    return compared


def _records(filesystem: FatFilesystem, node: int) -> Iterator[bytes]:
    """What a folder says of its files, without deleted ones and without where they lie."""
    for _, raw in filesystem.records(node):
        if raw[0] == _LAST:
            return
        if raw[0] != _DELETED:
            record = bytearray(raw)
            if record[11] & 0x3F != 0x0F:
                record[_CLUSTER_LOW] = record[_CLUSTER_HIGH] = b"\0\0"
            assert len(record) == ENTRY_SIZE
            yield bytes(record)


def _pairs(path: str, ours: list[Child], theirs: list[Child]) -> list[tuple[Child, Child]]:
    if [child.name for child in ours] != [child.name for child in theirs]:
        raise DeviceError(f"{shown(path)}: the names in the folder do not read back as they were written.")
    return list(zip(ours, theirs, strict=True))


def _digest(filesystem: FatFilesystem, node: int) -> tuple[int, bytes]:
    digest = blake3()
    content = filesystem.content(node)
    for piece in content.pieces():
        digest.update(bytes(piece.size) if piece.data is None else piece.data)
    return content.size, digest.digest()
