"""The repository: reading side. Opening, listing recovery points, fetching proven chunks.

Writing is in ``writer.py``; the byte structures are in ``records.py``, ``pages.py`` and ``index.py``.
"""

import os
import re
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zstandard

from core.documents import decode_stored
from core.errors import DamagedError, RefusedError, UsageError
from core.units import KIB, MIB
from images.model.manifest import MANIFEST_VERSION, Manifest, Volume
from images.store.backend import LocalBackend, MissingFileError, Reader
from images.store.http import HttpBackend
from images.store.index import Index, Location
from images.store.pages import FAN_OUT, Change, Slot, diff_trees, find_slot, height_for, read_tree
from images.store.records import RECORD_HEADER_SIZE, chunk_id, decode_payload, decode_record

DOCUMENT = "liferaft.json"
CATALOGUE = "catalogue.json"
FORMAT = "liferaft repository"
VERSION = 1
CHUNK_SIZE = MIB

#: Names of our own files; what else lies beside them (macOS leaves ``._`` files) is not ours.
_MANIFEST_NAME = re.compile(r"[0-9a-f]{64}\.json")
INDEX_NAME = re.compile(r"[0-9a-f]{32}\.index")
_REPOSITORY_ID = re.compile(r"[0-9a-f]{32}")
_ROOT = re.compile(r"[0-9a-f]{64}")
#: Pages remembered for random access; each has at most 8 KiB and covers 256 MiB of a volume.
_PAGES_KEPT = 1024
_DOCUMENT_LIMIT = 64 * KIB
_MANIFEST_LIMIT = 64 * MIB
_INDEX_LIMIT = 64 * MIB


class RepositoryDocument(msgspec.Struct, frozen=True, kw_only=True):
    """``liferaft.json`` (docs/image-format.md §3)."""

    format: str
    version: int
    id: str
    chunk_size: int
    fan_out: int
    hash: str
    encryption: msgspec.Raw | None = None
    parity: msgspec.Raw | None = None


class PointSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A recovery point in a list. Sizes in bytes."""

    id: str
    name: str
    created: str
    origin: str
    disk_size: int
    allocated: int


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """``catalogue.json`` (§8)."""

    version: int = 1
    indexes: tuple[str, ...]
    points: tuple[PointSummary, ...]


def connect(location: str) -> Reader:
    """The backend for what the user named: a path, ``file:`` or ``http(s):``.

    Raises:
        UsageError: a scheme liferaft does not know.
    """
    scheme, colon, rest = location.partition(":")
    if not colon or "/" in scheme:
        return LocalBackend(Path(location).absolute())
    if scheme in ("http", "https"):
        return HttpBackend(location)
    if scheme == "file":
        return LocalBackend(Path(urllib.parse.unquote(urllib.parse.urlparse(location).path or rest)).absolute())
    raise UsageError(f"{location} is not a repository address.", hint="Give a folder, file:… or http(s)://….")


class Repository:
    """An open repository.

    Attributes:
        backend: where its files lie.
        document: its parameters.
    """

    def __init__(self, backend: Reader) -> None:
        """Open.

        Raises:
            UsageError: there is nothing there. RefusedError: it is not a repository, or from the future.
            UnreachableError: the server does not answer. DamagedError: the document is damaged.
        """
        self.backend = backend
        self.document = _read_document(backend)
        self._indexes: tuple[Index, ...] | None = None
        self._bad_packs: dict[bytes, str] = {}
        self._index_problems: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._pages: dict[bytes, bytes] = {}

    @property
    def id(self) -> bytes:
        """16 bytes."""
        return bytes.fromhex(self.document.id)

    @property
    def chunk_size(self) -> int:
        """Bytes."""
        return self.document.chunk_size

    def identify(self, plain: bytes | bytearray | memoryview) -> bytes:
        """The 32-byte id of plain content in this repository."""
        return chunk_id(plain)

    def points(self) -> tuple[PointSummary, ...]:
        """The recovery points whose manifests are sound, oldest first; :meth:`damaged_points` has the others."""
        return self.read_points()[0]

    def damaged_points(self) -> tuple[str, ...]:
        """A sentence for each recovery point that cannot be listed; none over HTTP, where the catalogue is the list."""
        return self.read_points()[1]

    def read_points(self) -> tuple[tuple[PointSummary, ...], tuple[str, ...]]:
        """Both of the above, reading every manifest once."""
        found: list[PointSummary] = []
        problems: list[str] = []
        if self.backend.lists:
            for identifier in self._manifest_ids():
                try:
                    found.append(summarize(identifier, self.manifest(identifier)))
                except (DamagedError, RefusedError) as error:
                    problems.append(error.message)
        else:
            found = list(self._catalogue().points)
        return tuple(sorted(found, key=lambda point: (point.created, point.id))), tuple(problems)

    def resolve(self, text: str) -> str:
        """The id of the recovery point a person named: a prefix of its id, its name, or ``latest``.

        Raises:
            UsageError: none or several match.
        """
        points, problems = self.read_points()
        if not points and not problems:
            raise UsageError(f"{self.backend.location} holds no recovery points.", hint="Take one: liferaft capture.")
        if text == "latest" and points:
            return points[-1].id
        known = self._manifest_ids() if self.backend.lists else [point.id for point in points]
        matches = [identifier for identifier in known if len(text) >= 4 and identifier.startswith(text.lower())]
        matches = matches or [point.id for point in points if point.name == text][-1:]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UsageError(f"{text} is the beginning of {len(matches)} recovery points.", hint="Give more digits.")
        if problems and not points:
            raise DamagedError(problems[0])
        hint = f"There are: {', '.join(f'{point.id[:12]} ({point.name})' for point in points[-5:])}."
        raise UsageError(f"No recovery point {text} in {self.backend.location}.", hint=hint)

    def manifest(self, identifier: str) -> Manifest:
        """The manifest with that full id, proven by it.

        Raises:
            DamagedError: its bytes do not hash to its id.
        """
        name = f"manifests/{identifier}.json"
        data = self.backend.read(name, _MANIFEST_LIMIT)
        found = chunk_id(data).hex()
        if found != identifier:
            raise DamagedError(f"{self.backend.location}/{name}: its digest is {found[:16]}…, not its name.")
        manifest = decode_stored(data, Manifest, name=f"{self.backend.location}/{name}")
        if manifest.version > MANIFEST_VERSION:
            raise RefusedError(f"Recovery point {identifier[:12]} needs manifest version {manifest.version}.")
        return manifest

    def locate(self, identifier: bytes) -> Location | None:
        """Where the record with that id lies; None when no index knows it in a pack that is not known to be bad."""
        for index in self.indexes():
            place = index.find(identifier)
            if place is not None and place.pack not in self._bad_packs:
                return place
        return None

    def missing(self, identifier: bytes, where: str) -> DamagedError:
        """The error for a chunk that :meth:`locate` does not find, with what is known of the reason."""
        places = (index.find(identifier) for index in self.indexes())
        known = [self._bad_packs[place.pack] for place in places if place and place.pack in self._bad_packs]
        reason = "; ".join(dict.fromkeys((*known, *self._index_problems)))
        text = f"{where}: chunk {identifier.hex()[:16]}… is missing from the repository"
        return DamagedError(f"{text} ({reason})." if reason else f"{text}.")

    def check_packs(self) -> dict[bytes, str]:
        """Compare every pack's size with what the indexes say.

        From then on :meth:`locate` does not point into those that are missing or truncated.

        Returns:
            a sentence for each bad pack.
        """
        bad: dict[bytes, str] = {}
        for pack, size in self.pack_sizes().items():
            try:
                found = self.backend.size(pack_name(pack))
            except MissingFileError as error:
                bad[pack] = error.message.rstrip(".")
                continue
            if found != size:
                name = f"{self.backend.location}/{pack_name(pack)}"
                bad[pack] = f"{name} has {found} bytes, expected {size}: it is truncated or altered"
        self._bad_packs = bad
        return bad

    def indexes(self) -> tuple[Index, ...]:
        """All indexes, read once."""
        with self._lock:
            if self._indexes is None:
                self._indexes, self._index_problems = self._read_indexes()
            return self._indexes

    def reload(self) -> None:
        """Forget the indexes: a writer has added some."""
        with self._lock:
            self._indexes = None

    def pack_sizes(self) -> dict[bytes, int]:
        """The size every pack must have, by id."""
        return {pack: size for index in self.indexes() for pack, size in index.packs.items()}

    def read_chunk(self, identifier: bytes, where: str) -> bytes:
        """The proven content of one record.

        Args:
            where: names what it belongs to, for errors.

        Raises:
            DamagedError: it is missing or damaged; the message names the pack and offset.
        """
        place = self.locate(identifier)
        if place is None:
            raise self.missing(identifier, where)
        data = self.read_pack(place.pack, place.offset, RECORD_HEADER_SIZE + place.payload_length, where)
        return self.decode(identifier, place, data, where)

    def read_pack(self, pack: bytes, offset: int, length: int, where: str) -> bytes:
        """Bytes of a pack; a missing pack is damage of what needs it."""
        try:
            return self.backend.read_range(pack_name(pack), offset, length)
        except MissingFileError as error:
            raise DamagedError(f"{where}: {error.message}") from None

    def decode(self, identifier: bytes, place: Location, data: bytes | memoryview, where: str) -> bytes:
        """Prove a record read from ``place``: header, lengths, digest. Returns the plain content."""
        spot = f"{where}: {pack_name(place.pack)}, offset {place.offset}"
        header = decode_record(data, spot)
        if header.id != identifier or header.payload_length != place.payload_length:
            raise DamagedError(f"{spot}: the record is not the one the index promises.")
        payload = memoryview(data)[RECORD_HEADER_SIZE : RECORD_HEADER_SIZE + header.payload_length]
        return decode_payload(header, payload, self._decompressor(), spot)

    def slots(self, volume: Volume, where: str) -> Iterator[Slot]:
        """The map of a volume: its allocated chunks, sorted by number; pages are read as it goes.

        Raises:
            DamagedError: a page is missing, damaged or does not fit the volume.
        """
        root, chunks = self.tree_of(volume, where)
        return read_tree(root, chunks, lambda page: self.read_chunk(page, where), where)

    def slot(self, volume: Volume, number: int, where: str) -> Slot | None:
        """One chunk of a volume, for random access; None when it is not allocated. Pages are remembered."""
        root, chunks = self.tree_of(volume, where)
        return find_slot(root, chunks, number, lambda page: self._page(page, where), where)

    def changes(self, old: Volume, new: Volume, where: str) -> Iterator[Change]:
        """The chunks in which two volumes of this repository differ; the time is that of the difference."""
        trees = self.tree_of(old, where), self.tree_of(new, where)
        return diff_trees(*trees, lambda page: self.read_chunk(page, where), where)

    def tree_of(self, volume: Volume, where: str) -> tuple[bytes | None, int]:
        """Root and number of chunks of a volume.

        Raises:
            DamagedError: the manifest's height or root does not fit.
        """
        chunks = -(-volume.size // self.chunk_size)
        if volume.height != height_for(chunks) or not _ROOT.fullmatch(volume.root or "0" * 64):
            raise DamagedError(f"{where}: height {volume.height} or root does not fit {chunks} chunks.")
        return (bytes.fromhex(volume.root) if volume.root else None), chunks

    def _page(self, identifier: bytes, where: str) -> bytes:
        """A page's bytes, of which the latest are kept: neighbours in a volume share them."""
        with self._lock:
            found = self._pages.pop(identifier, None)
        if found is None:
            found = self.read_chunk(identifier, where)
        with self._lock:
            self._pages[identifier] = found
            while len(self._pages) > _PAGES_KEPT:
                del self._pages[next(iter(self._pages))]
        return found

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        found = getattr(self._local, "decompressor", None)
        if found is None:
            found = self._local.decompressor = zstandard.ZstdDecompressor()
        assert isinstance(found, zstandard.ZstdDecompressor)
        return found

    def _manifest_ids(self) -> list[str]:
        names = self.backend.list("manifests")
        return [name.removesuffix(".json") for name in names if _MANIFEST_NAME.fullmatch(name)]

    def _index_names(self) -> tuple[str, ...]:
        if self.backend.lists:
            return tuple(name for name in self.backend.list("indexes") if INDEX_NAME.fullmatch(name))
        return self._catalogue().indexes

    def _catalogue(self) -> Catalogue:
        try:
            data = self.backend.read(CATALOGUE, _MANIFEST_LIMIT)
        except MissingFileError as error:
            raise DamagedError(
                f"{error.message} Without it a server that does not list folders cannot be read.",
                hint="Serve the whole folder; any capture into it writes the catalogue anew.",
            ) from None
        return decode_stored(data, Catalogue, name=f"{self.backend.location}/{CATALOGUE}")

    def _read_indexes(self) -> tuple[tuple[Index, ...], tuple[str, ...]]:
        """All indexes that can be believed. What the others knew is missing, and the error for it says why."""
        good: list[Index] = []
        problems: list[str] = []
        for name in self._index_names():
            try:
                good.append(self._read_index(name))
            except (DamagedError, MissingFileError) as error:
                problems.append(error.message.rstrip("."))
        return tuple(good), tuple(problems)

    def _read_index(self, name: str) -> Index:
        if not INDEX_NAME.fullmatch(name):
            raise DamagedError(f"{self.backend.location}/{CATALOGUE}: {name!r} is not the name of an index.")
        data = self.backend.read(f"indexes/{name}", _INDEX_LIMIT)
        return Index(data, self.id, f"{self.backend.location}/indexes/{name}")


def pack_name(pack: bytes) -> str:
    """The file of a pack."""
    return f"packs/{pack.hex()[:2]}/{pack.hex()}.pack"


def summarize(identifier: str, manifest: Manifest) -> PointSummary:
    """What a list shows of a recovery point."""
    return PointSummary(
        id=identifier,
        name=manifest.name,
        created=manifest.created,
        origin=manifest.origin,
        disk_size=sum(disk.size for disk in manifest.layout.disks),
        allocated=sum(volume.allocated for volume in manifest.volumes),
    )


def new_document() -> RepositoryDocument:
    """The document of a new repository."""
    return RepositoryDocument(
        format=FORMAT,
        version=VERSION,
        id=os.urandom(16).hex(),
        chunk_size=CHUNK_SIZE,
        fan_out=FAN_OUT,
        hash="blake3-256",
    )


def _read_document(backend: Reader) -> RepositoryDocument:
    where = backend.location
    try:
        data = backend.read(DOCUMENT, _DOCUMENT_LIMIT)
    except MissingFileError:
        if isinstance(backend, LocalBackend) and not backend.folder.exists():
            raise UsageError(
                f"There is no repository at {where}: the folder does not exist.",
                hint="Is the disk mounted? liferaft capture makes a new repository.",
            ) from None
        raise RefusedError(
            f"{where} is not a liferaft repository: it has no {DOCUMENT}.",
            hint="Name the folder that holds liferaft.json.",
        ) from None
    document = decode_stored(data, RepositoryDocument, name=f"{where}/{DOCUMENT}")
    if document.format != FORMAT:
        raise RefusedError(f"{where}/{DOCUMENT} says {document.format!r}: not a liferaft repository.")
    if document.version > VERSION:
        raise RefusedError(
            f"{where} has repository version {document.version}; this liferaft reads up to {VERSION}.",
            hint="Use a newer liferaft.",
        )
    if document.encryption is not None and bytes(document.encryption) != b"null":
        raise RefusedError(f"{where} is encrypted; this liferaft cannot read it.", hint="Use a newer liferaft.")
    size = document.chunk_size
    if not 64 * KIB <= size <= 16 * MIB or size & (size - 1) or document.fan_out != FAN_OUT:
        raise DamagedError(f"{where}/{DOCUMENT}: chunk_size {size} or fan_out {document.fan_out} is out of bounds.")
    if document.hash != "blake3-256" or not _REPOSITORY_ID.fullmatch(document.id):
        raise DamagedError(f"{where}/{DOCUMENT}: hash or id is not what version 1 has.")
    return document
