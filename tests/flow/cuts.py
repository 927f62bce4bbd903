"""A folder whose machine loses power at a chosen change of the disk, for any work on a repository."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from images.store.backend import LocalBackend, NewFile


class PowerCutError(BaseException):
    """Not an error that anything may handle."""


class CuttableBackend(LocalBackend):
    """Counts changes: before and after each file that is written or removed, and every write of a stream.

    At the ``cut``-th and ever after it raises; half of what was being written may have arrived, under a name that
    readers ignore. What tidies up meets the same end: the power is gone.

    Attributes:
        named: the files written as streams that got their names, in order.
    """

    def __init__(self, folder: Path, cut: int) -> None:
        super().__init__(folder)
        self.cut = cut
        self.changes = 0
        self.named: list[str] = []
        self._lock = threading.Lock()

    def change(self) -> None:
        with self._lock:
            self.changes += 1
            if self.changes >= self.cut:
                raise PowerCutError

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.change()
        try:
            self.change()
        except PowerCutError:
            path.with_name(f"{path.name}.{os.urandom(3).hex()}.partial").write_bytes(content[: len(content) // 2])
            raise
        super().write(name, content)
        self.change()

    def write_new(self, name: str, content: bytes) -> bool:
        self.change()
        made = super().write_new(name, content)
        self.change()
        return made

    def remove(self, name: str) -> None:
        self.change()
        super().remove(name)
        self.change()

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[NewFile]:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.change()
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("xb", buffering=0) as stream:
            file = _CuttableFile(self, stream.fileno())
            yield file
            os.ftruncate(stream.fileno(), file.tell())
        self.change()
        partial.rename(path)
        self.named.append(name)
        self.change()


class _CuttableFile:
    def __init__(self, backend: CuttableBackend, descriptor: int) -> None:
        self._backend = backend
        self._descriptor = descriptor
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._backend.change()
        except PowerCutError:
            os.pwrite(self._descriptor, memoryview(data)[: len(data) // 2], self._size)
            raise
        self._size += os.pwrite(self._descriptor, data, self._size)

    def tell(self) -> int:
        return self._size


class Unlisting(LocalBackend):
    """The same folder as a web server gives it: no listing, the catalogue is all one knows."""

    lists = False
