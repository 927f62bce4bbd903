"""A source as the binary stream the filesystem library reads from.

Reads stop at the end of the source, as those of a file do; nothing is buffered here, the source remembers its chunks.
"""

import io

from images.model.extents import Extent
from images.sources import BlockSource


class SourceStream(io.RawIOBase):
    """Read-only, seekable.

    Args:
        patches: bytes that are shown instead of those of the source, by offset.
    """

    def __init__(self, source: BlockSource, patches: dict[int, bytes] | None = None) -> None:
        super().__init__()
        self._source = source
        self._patches = patches or {}
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError(f"a position of {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._source.size - self._position, 0)
        count = left if size is None or size < 0 else min(size, left)
        data = self._source.read_at(self._position, count) if count else b""
        for offset, patch in self._patches.items():
            part = Extent(
                max(offset, self._position),
                max(offset, self._position, min(offset + len(patch), self._position + count)),
            )
            if part.size:
                at = part.start - self._position
                data = data[:at] + patch[part.start - offset : part.end - offset] + data[at + part.size :]
        self._position += count
        return data
