"""Digest lists: where the records of one recovery point lie, kept beside the source (docs/image-format.md §15).

With such a list the next capture of the same disks finds out what is stored already without reading an index of
the repository. A list is a shortcut, no part of the repository: it counts only while everything that it promises
stands there, and it may be lost at any time.
"""

import contextlib
import fcntl
import glob
import os
import stat
import struct
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec

from core.errors import DamagedError, DeviceError, LiferaftError, RefusedError, UsageError
from core.events import Event, Sink, Stage
from core.files import sync_folder
from core.units import MIB
from images.store.backend import MissingFileError
from images.store.index import HEADER_SIZE, Index, IndexBuilder, Location, index_in_memory, index_size
from images.store.index_table import decode_table
from images.store.records import ID_SIZE, chunk_id
from images.store.repository import Repository, pack_name

MAGIC = b"LRDL"
VERSION = 1
#: Entries of one section: 128 GiB of chunks.
SECTION_ENTRIES = 1 << 17
#: Bytes of sections held in memory: 1 TiB of chunks. The others are read where they lie.
HELD_LIMIT = 48 * MIB
SECTION_LIMIT = 64 * MIB
INDEX_FILES_LIMIT = 1 << 20

_HEADER = struct.Struct("<4sI16s32sIIQ24x32s")
_INDEX_FILE = struct.Struct("<16sQ")
#: Bytes of the header that its digest covers.
_PROVEN = _HEADER.size - ID_SIZE


class DigestList:
    """A sound list. Safe from several threads.

    Attributes:
        point: id of the recovery point that it is of.
        packs: the size each pack must have, by id. indexes: names and sizes of the index files with these records.
    """

    def __init__(self, descriptor: int, repository: bytes, name: str) -> None:
        """Read and prove a list; the descriptor stays open as long as the list is used.

        Raises:
            DamagedError: it is not a sound list of that repository. DeviceError: it cannot be read.
        """
        self._descriptor = descriptor
        self._name = name
        self._latest = 0
        self._held = 0
        size = os.fstat(descriptor).st_size
        if size < _HEADER.size:
            raise DamagedError(f"{name}: {size} bytes are too few for a digest list.")
        header = self._read(0, _HEADER.size)
        magic, version, found, point, sections, files, expected, digest = _HEADER.unpack(header)
        if magic != MAGIC or version != VERSION:
            raise DamagedError(f"{name}, offset 0: no digest list of version {VERSION} ({magic.hex()}, {version}).")
        if found != repository:
            raise DamagedError(f"{name}, offset 8: it is of repository {found.hex()}, expected {repository.hex()}.")
        if size != expected or files > INDEX_FILES_LIMIT:
            raise DamagedError(f"{name}, offset 60: {files} index files, {expected} bytes expected, {size} found.")
        self.point: str = point.hex()
        self.packs: dict[bytes, int] = {}
        self._sections: list[Index] = []
        proof = [header[:_PROVEN]]
        at, end = _HEADER.size, size - _INDEX_FILE.size * files
        for _ in range(sections):
            at += self._open_section(at, end, repository, proof)
        if at != end:
            raise DamagedError(f"{name}, offset {at}: the sections end here, expected at {end}.")
        table = self._read(end, _INDEX_FILE.size * files)
        if chunk_id(b"".join((*proof, table))) != digest:
            raise DamagedError(f"{name}: its digest does not match its content.")
        self.indexes = {f"{file.hex()}.index": length for file, length in _INDEX_FILE.iter_unpack(table)}

    def find(self, identifier: bytes) -> Location | None:
        """Where a record lies; None when it does not belong to the recovery point. Raises DeviceError."""
        # Neighbours in a volume are in the same section.
        latest = self._latest
        for number in (latest, *(other for other in range(len(self._sections)) if other != latest)):
            if number < len(self._sections):
                place = self._sections[number].find(identifier)
                if place is not None:
                    self._latest = number
                    return place
        return None

    def doubt(self, repository: Repository) -> str:
        """Why the list does not count (any more); empty when all that it promises stands there.

        Reads one manifest and lists two folders. Whoever asks holds a lock, so that it stays true.
        """
        backend = repository.backend
        try:
            repository.manifest_file(self.point)
        except MissingFileError:
            return f"its recovery point {self.point[:12]} is no longer in the repository"
        except DamagedError as error:
            return error.message.rstrip(".")
        wanted = {pack_name(pack): size for pack, size in self.packs.items()}
        wanted |= {f"indexes/{file}": size for file, size in self.indexes.items()}
        there = backend.sizes("packs") | backend.sizes("indexes")
        for name, size in wanted.items():
            if name not in there:
                return f"{name} is no longer in the repository"
            if there[name] != size:
                return f"{name} has {there[name]} bytes, expected {size}"
        return ""

    def _open_section(self, at: int, end: int, repository: bytes, proof: list[bytes]) -> int:
        """Prove the section at an offset and take it in. Returns its bytes."""
        name = f"{self._name}, section {len(self._sections)} at {at}"
        if at + HEADER_SIZE > end:
            raise DamagedError(f"{name}: it begins behind the last byte for sections, {end}.")
        size = index_size(self._read(at, HEADER_SIZE), name)
        if size > min(SECTION_LIMIT, end - at):
            raise DamagedError(f"{name}: it has {size} bytes, at most {min(SECTION_LIMIT, end - at)} are possible.")
        data = self._read(at, size)
        table = decode_table(data, repository, "", name)
        for pack, length in zip(table.packs, table.sizes.tolist(), strict=True):
            if self.packs.setdefault(pack, length) != length:
                raise DamagedError(f"{name}: pack {pack.hex()} has {length} bytes, {self.packs[pack]} before.")
        proof.append(data[-ID_SIZE:])
        if self._held + size <= HELD_LIMIT:
            self._held += size
            self._sections.append(index_in_memory(data, repository, name))
        else:
            self._sections.append(Index(partial(self._read_at, at), size, repository, name))
        return size

    def _read_at(self, start: int, offset: int, length: int) -> bytes:
        return self._read(start + offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise DeviceError(f"{self._name}, offset {offset}: it cannot be read: {error.strerror}.") from None
        if len(data) != length:
            raise DamagedError(f"{self._name}: it ends at {offset + len(data)}, expected {offset + length}.")
        return data


@contextlib.contextmanager
def open_digest_list(path: Path, repository: bytes) -> Iterator[DigestList | None]:
    """The list in a file, for the length of the block; None when there is no file, or an empty one.

    Raises:
        DamagedError: it is not a sound list of that repository. DeviceError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise DeviceError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        yield DigestList(descriptor, repository, str(path)) if os.fstat(descriptor).st_size else None
    finally:
        os.close(descriptor)


def check_replaceable(path: Path) -> None:
    """A digest list is replaced after each capture: make sure that nothing else is.

    Raises:
        UsageError: the folder is missing. RefusedError: the file is something else than a list, and not empty.
        DeviceError: it cannot be read.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be made: there is no folder {path.parent}.")
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise RefusedError(f"{path} is not a plain file: no digest list can be kept there.")
        with path.open("rb") as stream:
            start = stream.read(len(MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise DeviceError(f"{path} cannot be read: {error.strerror}.") from None
    if start not in (b"", MAGIC):
        raise RefusedError(
            f"{path} is not a digest list, and would be replaced by one.", hint="Name another file, or a new one."
        )


class DigestRecorder:
    """Writes the list of the recovery point that is being taken, section by section, beside the old one.

    Trouble with the file does not stop the capture: it is kept in ``problem``, and the old list stays. Used by one
    thread; :meth:`know` by any.

    Attributes:
        packs: ids of the packs that hold the records. problem: why there is no list; empty when there will be one.
    """

    def __init__(self, path: Path, repository: bytes) -> None:
        """Begin a file.

        Raises:
            RefusedError: none can be made there.
        """
        self._path = path.resolve()
        self._repository = repository
        self._partial = self._path.with_name(f"{self._path.name}.{os.urandom(6).hex()}.partial")
        self._waiting: dict[bytes, Location] = {}
        self._flush_at = SECTION_ENTRIES
        self._sizes: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self._digests: list[bytes] = []
        self._end = _HEADER.size
        self.packs: set[bytes] = set()
        self.problem = ""
        self._remove_leftovers()
        try:
            # It tells nothing without the key of an encrypted repository, but it is nobody else's business either.
            self._descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise RefusedError(f"{path} cannot be written: {error.strerror}.") from None

    def know(self, sizes: Mapping[bytes, int]) -> None:
        """Packs that are complete, with their bytes."""
        with self._lock:
            self._sizes.update(sizes)

    def add(self, identifier: bytes, place: Location) -> None:
        """A record of the recovery point."""
        if self.problem:
            return
        self._waiting[identifier] = place
        self.packs.add(place.pack)
        if len(self._waiting) >= self._flush_at:
            try:
                self._flush()
            except OSError as error:
                self._give_up(error)

    def finish(self, point: str, indexes: Mapping[str, int]) -> None:
        """Complete the file and put it in the place of the old one.

        Args:
            point: id of the recovery point, which is committed. indexes: names and sizes of the files with its records.
        """
        if self.problem:
            return
        try:
            self._flush()
            table = b"".join(_INDEX_FILE.pack(bytes.fromhex(name[:32]), size) for name, size in indexes.items())
            self._append(table)
            head = _HEADER.pack(
                MAGIC, VERSION, self._repository, bytes.fromhex(point), len(self._digests), len(indexes), self._end,
                bytes(ID_SIZE),
            )[:_PROVEN]  # fmt: skip
            self._write(head + chunk_id(b"".join((head, *self._digests, table))), 0)
            os.fsync(self._descriptor)
            self._partial.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Remove what did not become a list."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Half-written files of captures that were killed: their owners hold no lock on them any more."""
        for path in self._path.parent.glob(f"{glob.escape(self._path.name)}.{'[0-9a-f]' * 12}.partial"):
            with contextlib.suppress(OSError), path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _give_up(self, error: OSError) -> None:
        self.problem = f"The digest list {self._path} was not written: {error.strerror}"
        self._waiting.clear()

    def _flush(self) -> None:
        """Write the entries whose packs are complete; those of the open pack wait."""
        with self._lock:
            sizes = {
                pack: self._sizes[pack] for pack in {place.pack for place in self._waiting.values()} & set(self._sizes)
            }
        section = IndexBuilder()
        for pack, size in sizes.items():
            section.close_pack(pack, size)
        for identifier, place in self._waiting.items():
            section.add(identifier, place)
        if sizes:
            data = section.encode(self._repository)
            self._append(data)
            self._digests.append(data[-ID_SIZE:])
        self._waiting = {found: place for found, place in self._waiting.items() if place.pack not in sizes}
        self._flush_at = len(self._waiting) + SECTION_ENTRIES

    def _append(self, data: bytes) -> None:
        self._write(data, self._end)
        self._end += len(data)

    def _write(self, data: bytes, at: int) -> None:
        left = memoryview(data)
        while left:
            done = os.pwrite(self._descriptor, left, at)
            left, at = left[done:], at + done


@contextlib.contextmanager
def recording(path: Path, repository: bytes) -> Iterator[DigestRecorder]:
    """A recorder that leaves no half-written file behind. Raises RefusedError as :class:`DigestRecorder`."""
    recorder = DigestRecorder(path, repository)
    try:
        yield recorder
    finally:
        recorder.close()


class Digests(msgspec.Struct, frozen=True):
    """The two lists of one capture: of the last one, when it counts, and of this one."""

    known: DigestList | None = None
    recorder: DigestRecorder | None = None
    warning: str = ""


@contextlib.contextmanager
def digests_of(path: Path | None, repository: Repository, sink: Sink) -> Iterator[Digests]:
    """Both lists that belong to a file, for the length of the block; neither when there is no path.

    An old list that does not count is left out, and ``sink`` hears why: as a warning when it is damaged.

    Raises:
        RefusedError: no new one can be written there.
    """
    if path is None:
        yield Digests()
        return
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(recording(path, repository.id))
        known, warning = None, ""
        try:
            known = stack.enter_context(open_digest_list(path, repository.id))
        except LiferaftError as error:
            warning = f"{error.message} The digest list is not used, and all indexes are read."
            sink(Event(stage=Stage.CAPTURE, message=warning, warning=True))
        doubt = known.doubt(repository) if known is not None else ""
        if doubt:
            known = None
            sink(Event(stage=Stage.CAPTURE, message=f"The digest list {path} is not used: {doubt}."))
        if known is not None:
            recorder.know(known.packs)
        yield Digests(known, recorder, warning)
