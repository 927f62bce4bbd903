"""Where the files of a repository lie: the narrow interface, and the local folder.

Names are relative, with ``/`` between parts. Whoever reads needs :class:`Reader`; only a writer
needs :class:`Writer`. Reading is safe from several threads.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar, runtime_checkable

import msgspec

from core.errors import DamagedError, DeviceError, RefusedError
from core.files import sync_folder, write_atomically, write_new

#: Files that are being written, or were when the power went.
PARTIAL = ".partial"
#: Where a repository has such files (docs/image-format.md §2); elsewhere below its folder they are somebody else's.
OUR_PARTIAL = re.compile(
    r"(?:packs/(?:[0-9a-f]{2}/)?|indexes/|manifests/|keys/|locks/|liferaft\.json|catalogue\.json)[^/]*\.partial"
)
#: Requests that a network takes at once.
_UNDER_WAY = 8

#: What the kernel answers when a disk, or a user's share of it, is full.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

T = TypeVar("T")
#: Bytes of a new file after which they are sent on to the disk, so that its sync has little left to wait for.
WRITE_EARLY = 32 << 20


#: Takes a sentence for people about what goes on at the backend: a try that failed and will be made again.
Tell = Callable[[str], None]
#: Takes the number of bytes that came, whenever some did.
Heard = Callable[[int], None]


def deaf(count: int) -> None:
    """For a backend whose bytes nobody listens to."""


class MissingFileError(DeviceError):
    """A file of the repository is not there: not the same as damaged."""


class FullError(DeviceError):
    """There is no room left where the repository lies."""


class FileStart(msgspec.Struct, frozen=True):
    """The first bytes of a file that has ``size`` bytes."""

    data: bytes
    size: int


@runtime_checkable
class Hearing(Protocol):
    """A backend that says to ``heard`` whenever something came; called from several threads."""

    heard: Heard


@runtime_checkable
class Telling(Protocol):
    """A backend that waits and tries again by itself, and says so to ``tell``; called from several threads."""

    tell: Tell


class Reader(Protocol):
    """What reading a repository needs."""

    @property
    def location(self) -> str:
        """How the user would name it: a path or a URL."""
        ...

    @property
    def lists(self) -> bool:
        """Whether folders can be listed."""
        ...

    @property
    def distant(self) -> bool:
        """Whether every read is a request over a network, so that few and small ones matter."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """A whole file of at most ``limit`` bytes.

        Raises:
            MissingFileError: there is no such file.
            DeviceError: it is larger than the limit or cannot be read.
        """
        ...

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raises:
            MissingFileError: there is no such file.
            DamagedError: it is shorter. DeviceError: it cannot be read.
        """
        ...

    def read_start(self, name: str, length: int) -> "FileStart":
        """At most ``length`` bytes from the beginning, and how large the whole is: one request instead of two.

        Raises:
            MissingFileError: there is no such file.
            DamagedError: it is empty. DeviceError: it cannot be read.
        """
        ...

    def size(self, name: str) -> int:
        """Bytes of a file. Raises MissingFileError."""
        ...

    def list(self, folder: str) -> tuple[str, ...]:
        """Names in a folder, sorted, without ``.partial`` files; empty when there is no folder."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """Every file below a folder with its bytes, named from the repository's root, without ``.partial`` files.

        Raises:
            DeviceError: this backend cannot list.
        """
        ...


class NewFile(Protocol):
    """A file that is being written, from its beginning to its end.

    An interruption or an error may come at any moment; what :meth:`tell` counts afterwards is whole writes only, and
    the file becomes exactly these.
    """

    def write(self, data: bytes | bytearray | memoryview) -> object:
        """Append all of ``data``; nothing of it when this raises."""
        ...

    def tell(self) -> int:
        """Bytes that the file has by now. Waits for writes that are under way."""
        ...


@runtime_checkable
class Shrinkable(Protocol):
    """A new file whose end can be given up, so that a full disk has room for something smaller."""

    def cut(self, size: int) -> None:
        """The file ends here; what was written behind is given back at once."""
        ...


@runtime_checkable
class Measured(Protocol):
    """A backend that knows how much it can still take."""

    def free(self) -> int | None:
        """Bytes that may still be written; None when the place does not say."""
        ...


@runtime_checkable
class Writer(Reader, Protocol):
    """What writing needs on top."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def foreign(self) -> str:
        """The name of something here that is no repository's, so that none may be made here; empty for none."""
        ...

    def write_new(self, name: str, content: bytes) -> bool:
        """A whole file that must not exist yet. False, and nothing changed, when somebody else made it first."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file, durably; a file that is not there is no error."""
        ...

    def leftovers(self) -> tuple[str, ...]:
        """What writers that were cut off left behind under names that readers ignore; ``remove`` takes them."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """A whole file, complete and synced when this returns; replaces an old one atomically."""
        ...

    def create(self, name: str) -> "contextlib.AbstractContextManager[NewFile]":
        """A new file that gets its name, synced, only when the block ends without an error."""
        ...


def for_each(backend: Reader, work: Callable[[str], T], names: Sequence[str]) -> "list[T]":
    """The results of ``work`` for every name, in order. Over a network several are under way at once: what counts
    there is how often one waits for an answer."""
    if not backend.distant or len(names) < 2:
        return [work(name) for name in names]
    with ThreadPoolExecutor(min(_UNDER_WAY, len(names)), thread_name_prefix="files") as pool:
        return list(pool.map(work, names))


class LocalBackend:
    """A folder: on a disk, a USB stick, NFS or SMB."""

    lists = True
    distant = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: Heard = deaf

    @property
    def location(self) -> str:
        return str(self.folder)

    def read(self, name: str, limit: int) -> bytes:
        with self._open(name) as stream:
            data = stream.read(limit + 1)
        self.heard(len(data))
        if len(data) > limit:
            raise DeviceError(f"{self.folder / name} is larger than the {limit} bytes it may have.")
        return data

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        with self._open(name) as stream:
            try:
                data = os.pread(stream.fileno(), length, offset)
            except OSError as error:
                raise DeviceError(
                    f"{self.folder / name}: {length} bytes at {offset} cannot be read: {error.strerror}."
                ) from None
        self.heard(len(data))
        if len(data) != length:
            raise DamagedError(
                f"{self.folder / name} is truncated: it ends at {offset + len(data)}, expected {offset + length}."
            )
        return data

    def read_start(self, name: str, length: int) -> FileStart:
        size = self.size(name)
        if not size:
            raise DamagedError(f"{self.folder / name} is empty.")
        return FileStart(self.read_range(name, 0, min(length, size)), size)

    def size(self, name: str) -> int:
        try:
            return (self.folder / name).stat().st_size
        except OSError:
            raise self._missing(name) from None

    def write_new(self, name: str, content: bytes) -> bool:
        path = self.folder / name
        with _space_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            return write_new(path, content)

    def list(self, folder: str) -> tuple[str, ...]:
        try:
            names = os.listdir(self.folder / folder)  # noqa: PTH208 - names only
        except FileNotFoundError:
            return ()
        return tuple(sorted(name for name in names if not name.endswith(PARTIAL)))

    def sizes(self, folder: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for place, _, names in os.walk(self.folder / folder, onerror=_raise_unless_gone):
            for name in names:
                path = Path(place, name)
                if not name.endswith(PARTIAL):
                    # A file that somebody removes at this very moment is not there.
                    with contextlib.suppress(FileNotFoundError):
                        found[path.relative_to(self.folder).as_posix()] = path.stat().st_size
        return found

    def exists(self, name: str) -> bool:
        return (self.folder / name).exists()

    def foreign(self) -> str:
        try:
            names = sorted(os.listdir(self.folder))  # noqa: PTH208 - names only
        except FileNotFoundError:
            return ""
        except NotADirectoryError:
            return self.folder.name
        # What a filesystem keeps for itself, and what a power cut left, may lie in a folder that becomes a repository.
        return next((name for name in names if name != "lost+found" and not name.endswith(PARTIAL)), "")

    def free(self) -> int | None:
        place = self.folder.absolute()
        while not place.exists():
            place = place.parent
        try:
            found = os.statvfs(place)
        except OSError:
            return None
        # Some filesystems over FUSE or a network have no sizes at all.
        return found.f_bavail * found.f_frsize if found.f_blocks else None

    def remove(self, name: str) -> None:
        path = self.folder / name
        with _space_named(path):
            path.unlink(missing_ok=True)
            sync_folder(path.parent)

    def leftovers(self) -> tuple[str, ...]:
        found = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob(f"*{PARTIAL}"))
        # A browser calls its downloads so, too, and another repository may lie in a folder of this one.
        return tuple(sorted(name for name in found if OUR_PARTIAL.fullmatch(name)))

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        with _space_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[NewFile]:
        path = self.folder / name
        partial = path.with_name(path.name + PARTIAL)
        with _space_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb", buffering=0) as stream:
                    file = _LocalFile(stream.fileno())
                    yield file
                    # A write that was torn left its beginning behind.
                    os.ftruncate(stream.fileno(), file.tell())
                    os.fsync(stream.fileno())
                partial.rename(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            sync_folder(path.parent)
            sync_folder(path.parent.parent)

    def _open(self, name: str) -> BinaryIO:
        try:
            return (self.folder / name).open("rb", buffering=0)
        except FileNotFoundError:
            raise self._missing(name) from None
        except OSError as error:
            raise DeviceError(f"{self.folder / name} cannot be read: {error.strerror}.") from None

    def _missing(self, name: str) -> MissingFileError:
        return MissingFileError(f"{self.folder / name} is missing.")


class _LocalFile:
    """The writes to a partial file. Records are large, so that a buffer would only add a copy."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = 0
        self._begun = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        at = self._size
        while left:
            done = os.pwrite(self._descriptor, left, at)
            left, at = left[done:], at + done
        self._size = at
        if at - self._begun >= WRITE_EARLY:
            # On Linux this advice begins to write the range's dirty pages and does not wait for them (mm/fadvise.c).
            # Without it they lie until the final sync, up to a tenth of the memory (vm.dirty_background_ratio).
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._descriptor, self._begun, at - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = at

    def tell(self) -> int:
        return self._size

    def cut(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        self._size = size
        self._begun = min(self._begun, size)


def _raise_unless_gone(error: OSError) -> None:
    """A folder that is not there holds nothing; one that cannot be listed may hold anything."""
    if not isinstance(error, FileNotFoundError):
        raise DeviceError(f"{error.filename} cannot be listed: {error.strerror}.") from None


@contextlib.contextmanager
def _space_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(str(path), error) from None


def cannot_write(place: str, error: OSError) -> DeviceError | RefusedError:
    """The error for what the operating system refused to write."""
    text = f"{place} cannot be written: {error.strerror}."
    if error.errno in NO_ROOM:
        return FullError(text, hint="Make room and run the same command again: what is stored already is kept.")
    return RefusedError(text) if error.errno in (errno.EACCES, errno.EROFS) else DeviceError(text)
