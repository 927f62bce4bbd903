"""A tar file that receives files: everything survives without root, and comes back where root unpacks it.

The pax format (POSIX.1-2001): long and non-UTF-8 names, nanoseconds, sizes and owners without bound, extended
attributes as ``SCHILY.xattr.*`` (GNU tar: ``--xattrs --xattrs-include='*'``), holes as GNU tar's sparse format 1.0.
A file of which a part cannot be read has zeros there: its name and size are written before its content.
"""

import tarfile
from typing import BinaryIO

from images.browse.entry import Attribute, Content, Entry, Kind
from images.browse.extract import Pieces

_BLOCK = 512
_RECORD = 10240
#: Holes smaller than this in all are written as zeros.
_WORTH = 64 << 10
_TYPES = {
    Kind.LINK: tarfile.SYMTYPE,
    Kind.CHARACTER: tarfile.CHRTYPE,
    Kind.BLOCK: tarfile.BLKTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
}


class TarReceiver:
    """See :class:`images.browse.extract.Receiver`. Writes in one pass; the stream need not seek.

    Attributes:
        sockets: how many were left out: tar has no place for them.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.sockets = 0
        self._stream = stream
        self._folders: list[str] = []
        self._names: dict[int, str] = {}
        self._written = 0

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self._written % _RECORD))
        self._stream.flush()

    def enter(self, name: str, entry: Entry, attributes: tuple[Attribute, ...]) -> bool:
        self._header(self._path(name) + "/", tarfile.DIRTYPE, entry, attributes)
        self._folders.append(name)
        return True

    def leave(self) -> None:
        self._folders.pop()

    def file(
        self, name: str, entry: Entry, attributes: tuple[Attribute, ...], content: Content, pieces: Pieces
    ) -> None:
        path = self._path(name)
        parts = [(segment.offset, segment.size) for segment in content.segments or ()]
        if content.segments is not None and content.size - sum(size for _, size in parts) >= _WORTH:
            self._sparse_file(path, entry, attributes, content, pieces, parts)
        else:
            self._header(path, tarfile.REGTYPE, entry, attributes, size=content.size)
            for piece in pieces:
                self._data(piece.data, piece.size)
            self._pad(content.size)
        if entry.links > 1 and not pieces.losses:
            self._names[entry.node] = path

    def again(self, name: str, entry: Entry) -> bool:
        if entry.node not in self._names:
            return False
        self._header(self._path(name), tarfile.LNKTYPE, entry, (), target=self._names[entry.node])
        return True

    def other(self, name: str, entry: Entry, attributes: tuple[Attribute, ...]) -> None:
        if entry.kind is Kind.SOCKET:
            self.sockets += 1
            return
        self._header(self._path(name), _TYPES[entry.kind], entry, attributes, target=entry.target)

    def _path(self, name: str) -> str:
        return "/".join((*self._folders, name))

    def _sparse_file(
        self,
        path: str,
        entry: Entry,
        attributes: tuple[Attribute, ...],
        content: Content,
        pieces: Pieces,
        parts: list[tuple[int, int]],
    ) -> None:
        """GNU tar's format 1.0: the map as decimal lines in front of the data that there is."""
        # A last part without bytes gives the file its length, as GNU tar writes it.
        listed = [*parts, (content.size, 0)]
        numbers = [len(listed), *(number for part in listed for number in part)]
        table = "".join(f"{number}\n" for number in numbers).encode()
        table += bytes(-len(table) % _BLOCK)
        stored = len(table) + sum(size for _, size in parts)
        folder, _, name = path.rpartition("/")
        extra = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": path,
            "GNU.sparse.realsize": str(content.size),
        }
        hidden = f"{folder}/GNUSparseFile.0/{name}".lstrip("/")
        self._header(hidden, tarfile.REGTYPE, entry, attributes, size=stored, extra=extra)
        self._write(table)
        ranges = iter(parts)
        current = next(ranges, None)
        for piece in pieces:
            position, end = piece.offset, piece.offset + piece.size
            while current is not None and current[0] < end:
                first, last = max(position, current[0]), min(end, current[0] + current[1])
                if first < last:
                    data = None if piece.data is None else piece.data[first - position : last - position]
                    self._data(data, last - first)
                if current[0] + current[1] > end:
                    break
                current = next(ranges, None)
        self._pad(stored)

    def _header(
        self,
        path: str,
        kind: bytes,
        entry: Entry,
        attributes: tuple[Attribute, ...],
        *,
        size: int = 0,
        target: str = "",
        extra: dict[str, str] | None = None,
    ) -> None:
        info = tarfile.TarInfo(path)
        info.type, info.size, info.linkname = kind, size, target
        info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
        info.devmajor, info.devminor = entry.major, entry.minor
        info.mtime = max(entry.mtime // 1_000_000_000, 0)
        info.pax_headers = {"mtime": _seconds(entry.mtime), "atime": _seconds(entry.atime)} | (extra or {})
        for attribute in attributes:
            # Bytes that are not UTF-8 go through as surrogates; the header then says that it is binary.
            info.pax_headers[f"SCHILY.xattr.{attribute.name}"] = attribute.value.decode("utf-8", "surrogateescape")
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _data(self, data: bytes | None, size: int) -> None:
        if data is not None:
            self._write(data)
            return
        zeros = bytes(min(size, 1 << 20))
        while size > 0:
            self._write(zeros[:size])
            size -= len(zeros)

    def _pad(self, size: int) -> None:
        self._write(bytes(-size % _BLOCK))

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._written += len(data)


def _seconds(nanoseconds: int) -> str:
    """Decimal seconds; before 1970 they are negative, and count down to the second."""
    sign = "-" if nanoseconds < 0 else ""
    return f"{sign}{abs(nanoseconds) // 1_000_000_000}.{abs(nanoseconds) % 1_000_000_000:09d}"
