"""A repository's files in memory, some of whose bytes cannot be read."""

import contextlib
import io
from collections.abc import Iterator
from typing import BinaryIO

from core.errors import DamagedError, DeviceError
from images.model.extents import Extent
from images.store.backend import PARTIAL, FileStart, MissingFileError


class MemoryBackend:
    """Files by name.

    Attributes:
        unreadable: extents of files that give an input/output error until the file is written anew.
        writes: names in the order in which files got them. read: bytes read.
    """

    lists = True
    distant = False
    location = "memory"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.unreadable: dict[str, list[Extent]] = {}
        self.writes: list[str] = []
        self.bytes_read = 0

    def read(self, name: str, limit: int) -> bytes:
        data = self._file(name)
        if len(data) > limit:
            raise DeviceError(f"memory/{name} is larger than {limit}.")
        return self.read_range(name, 0, len(data))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        data = self._file(name)[offset : offset + length]
        for extent in self.unreadable.get(name, ()):
            if offset < extent.end and extent.start < offset + length:
                raise DeviceError(f"memory/{name}: {length} bytes at {offset} cannot be read: Input/output error.")
        if len(data) != length:
            raise DamagedError(f"memory/{name} is truncated.")
        self.bytes_read += length
        return data

    def read_start(self, name: str, length: int) -> FileStart:
        size = self.size(name)
        return FileStart(self.read_range(name, 0, min(length, size)), size)

    def size(self, name: str) -> int:
        return len(self._file(name))

    def exists(self, name: str) -> bool:
        return name in self.files

    def list(self, folder: str) -> tuple[str, ...]:
        names = (name[len(folder) + 1 :] for name in self.files if name.startswith(f"{folder}/"))
        return tuple(sorted(name for name in names if "/" not in name and not name.endswith(PARTIAL)))

    def sizes(self, folder: str) -> dict[str, int]:
        return {name: len(data) for name, data in self.files.items() if name.startswith(f"{folder}/")}

    def foreign(self) -> str:
        return next(iter(self.files), "")

    def write_new(self, name: str, content: bytes) -> bool:
        if name in self.files:
            return False
        self.write(name, content)
        return True

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def leftovers(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if name.endswith(PARTIAL))

    def write(self, name: str, content: bytes) -> None:
        self.files[name] = content
        self.unreadable.pop(name, None)
        self.writes.append(name)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        stream = io.BytesIO()
        yield stream
        self.write(name, stream.getvalue())

    def _file(self, name: str) -> bytes:
        if name not in self.files:
            raise MissingFileError(f"memory/{name} is missing.")
        return self.files[name]
