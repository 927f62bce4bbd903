"""The repository: reading side. Opening, listing recovery points, fetching proven chunks.

Where folders cannot be listed, the catalogue is the list (``catalogue.py``). Writing is in ``writer.py``; the byte
structures are in ``records.py``, ``pages.py`` and ``index.py``.
"""

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Protocol

import zstandard

from core.documents import decode_stored
from core.errors import DamagedError, DeviceError, RefusedError, UnreachableError, UsageError
from core.units import MIB
from images.model.manifest import MANIFEST_VERSION, Manifest, Volume
from images.model.soundness import check_manifest
from images.store.access import Access
from images.store.backend import MissingFileError, Reader, for_each
from images.store.catalogue import (
    PointSummary,
    catalogued_points,
    index_names,
    key_names,
    manifest_ids,
    named_point,
    summarize,
)
from images.store.document import read_document
from images.store.index import Location
from images.store.indexes import IndexSet
from images.store.keyring import unlock
from images.store.keys import RepositoryKeys
from images.store.pages import Change, Slot, diff_trees, find_slot, height_for, read_tree
from images.store.records import (
    RECORD_HEADER_SIZE,
    RecordHeader,
    chunk_id,
    decode_record,
    decompress,
    decompress_into,
    unseal,
)
from images.store.sealed import open_file
from images.store.signature import check_signature
from images.store.xaes import XaesKey

_ROOT = re.compile(r"[0-9a-f]{64}")
#: Pages remembered for random access; each has at most 8 KiB and covers 256 MiB of a volume.
_PAGES_KEPT = 1024
_MANIFEST_LIMIT = 64 * MIB
_SIGNATURE_LIMIT = MIB


class Otherwise(Protocol):
    """Where a chunk comes from that was damaged where it was read first (``second_try.py``)."""

    def read(self, identifier: bytes, where: str, damage: DamagedError | DeviceError) -> bytes:
        """Its proven content; raises ``damage`` when nothing brings it."""
        ...

    def readmit(self, bad: dict[bytes, str]) -> None:
        """:meth:`Repository.readmit` those packs that can be read all the same."""
        ...


class Repository:
    """An open repository.

    Attributes:
        backend: where its files lie.
        document: its parameters.
        otherwise: set by whoever needs the data at any price; others see every damage.
    """

    def __init__(self, backend: Reader, access: Access | None = None) -> None:
        """Open, and unlock where it is encrypted.

        Raises:
            UsageError: there is nothing there. RefusedError: it is not a repository, or from the future, or no
                passphrase opens it. UnreachableError: the server does not answer.
            DamagedError: the document is damaged.
        """
        self.backend = backend
        self.access = access or Access()
        self.document = read_document(backend)
        self._indexes: IndexSet | None = None
        self._bad_packs: dict[bytes, str] = {}
        self.otherwise: Otherwise | None = None
        self.keys: RepositoryKeys | None = None
        if self.document.encryption is None:
            _refuse_plain(backend, self.access)
        else:
            self.keys = unlock(backend, self.id, self.access, key_names(backend))
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
        return chunk_id(plain) if self.keys is None else self.keys.identify(plain)

    @property
    def record_key(self) -> XaesKey | None:
        """What seals records; None in a repository that is not encrypted."""
        return self.keys.records if self.keys else None

    def points(self) -> tuple[PointSummary, ...]:
        """The recovery points whose manifests are sound, oldest first."""
        return self.read_points()[0]

    def read_points(self) -> tuple[tuple[PointSummary, ...], tuple[str, ...]]:
        """Those, reading every manifest once, and a sentence for each that cannot be listed; none of these over HTTP,
        where the catalogue is the list."""
        found: list[PointSummary] = []
        problems: list[str] = []
        if self.backend.lists or self.access.trusted:
            # A catalogue is not signed: when signatures are required it only says where to look.
            results = for_each(self.backend, self._summary, self.manifest_ids())
            found = [result for result in results if isinstance(result, PointSummary)]
            problems = [result for result in results if isinstance(result, str)]
        else:
            found = list(self.catalogued_points())
        return tuple(sorted(found, key=lambda point: (point.created, point.id))), tuple(problems)

    def _summary(self, identifier: str) -> PointSummary | str:
        """A recovery point, or what is wrong with it. A server that does not answer says nothing of it: that raises."""
        try:
            return summarize(identifier, self.manifest(identifier))
        except UnreachableError:
            raise
        except (DamagedError, RefusedError, MissingFileError) as error:
            return error.message

    def resolve(self, text: str) -> str:
        """The id of the recovery point a person named: a prefix of its id, its name, or ``latest``.

        Raises:
            UsageError: none or several match. DamagedError, RefusedError: none, and there are some that are damaged,
                or not signed as required.
        """
        points, problems = self.read_points()
        if not points and not problems:
            raise UsageError(f"{self.backend.location} holds no recovery points.", hint="Take one: liferaft capture.")
        found = named_point(text, points, self.manifest_ids())
        if found is not None:
            return found
        hint = f"There are: {', '.join(f'{point.id[:12]} ({point.name})' for point in points[-5:])}." if points else ""
        if problems:
            # The one that is meant may be among those that cannot be read: then the name is not known.
            sort = RefusedError if self.access.trusted else DamagedError
            raise sort(f"No recovery point {text} among those that may be read: {problems[0]}", hint=hint)
        raise UsageError(f"No recovery point {text} in {self.backend.location}.", hint=hint)

    def manifest(self, identifier: str) -> Manifest:
        """The manifest with that full id, proven by it.

        Raises:
            DamagedError: its bytes do not hash to its id.
        """
        data = self.manifest_file(identifier)
        shown = f"{self.backend.location}/manifests/{identifier}.json"
        if self.access.trusted:
            check_signature(self.signature(identifier), identifier, self.access.trusted, f"{shown[:-5]}.sig")
        if self.keys is not None:
            data = open_file(self.keys, "manifest", self.id, data, shown)
        manifest = decode_stored(data, Manifest, name=shown)
        if manifest.version > MANIFEST_VERSION:
            raise RefusedError(f"Recovery point {identifier[:12]} needs manifest version {manifest.version}.")
        check_manifest(manifest, shown)
        return manifest

    def manifest_file(self, identifier: str) -> bytes:
        """The manifest's bytes as they lie there, sealed or not, proven by the id. Raises DamagedError."""
        name = f"manifests/{identifier}.json"
        data = self.backend.read(name, _MANIFEST_LIMIT)
        found = chunk_id(data).hex()
        if found != identifier:
            raise DamagedError(f"{self.backend.location}/{name}: its digest is {found[:16]}…, not its name.")
        return data

    def signature(self, identifier: str) -> bytes | None:
        """The signature file of a recovery point; None when it has none."""
        try:
            return self.backend.read(f"manifests/{identifier}.sig", _SIGNATURE_LIMIT)
        except MissingFileError:
            return None

    def locate(self, identifier: bytes) -> Location | None:
        """Where the record with that id lies; None when no index knows it in a pack that is not known to be bad."""
        return next((place for place in self.indexes().places(identifier) if place.pack not in self._bad_packs), None)

    def missing(self, identifier: bytes, where: str) -> DamagedError:
        """The error for a chunk that :meth:`locate` does not find, with what is known of the reason."""
        places = self.indexes().places(identifier)
        known = [self._bad_packs[place.pack] for place in places if place.pack in self._bad_packs]
        reason = "; ".join(dict.fromkeys((*known, *self.indexes().problems)))
        text = f"{where}: chunk {identifier.hex()[:16]}… is missing from the repository"
        return DamagedError(f"{text} ({reason})." if reason else f"{text}.")

    def check_packs(self) -> dict[bytes, str]:
        """Compare every pack's size with what the indexes say.

        From then on :meth:`locate` does not point into those that are missing or truncated.

        Returns:
            a sentence for each bad pack.
        """
        bad: dict[bytes, str] = {}
        listed = self.backend.sizes("packs") if self.backend.lists else None
        for pack, size in self.indexes().pack_sizes().items():
            name = f"{self.backend.location}/{pack_name(pack)}"
            found = self._size(pack) if listed is None else listed.get(pack_name(pack))
            if found is None:
                bad[pack] = f"{name} is missing"
            elif found != size:
                bad[pack] = f"{name} has {found} bytes, expected {size}: it is truncated or altered"
        self._bad_packs = dict(bad)
        if bad and self.otherwise is not None:
            self.otherwise.readmit(bad)
        return bad

    def readmit(self, pack: bytes) -> None:
        """Point into a bad pack all the same: whoever reads it has another way to its content."""
        self._bad_packs.pop(pack, None)

    def indexes(self) -> IndexSet:
        """All indexes, opened once."""
        with self._lock:
            if self._indexes is None:
                self._indexes = IndexSet(self.backend, self.id, self.index_names())
            return self._indexes

    def reload(self) -> None:
        """Forget the indexes: a writer has added or removed some."""
        with self._lock:
            self._indexes = None

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
        try:
            data = self.read_pack(place.pack, place.offset, RECORD_HEADER_SIZE + place.payload_length, where)
            return self.decode(identifier, place, data, where)
        except (DamagedError, DeviceError) as error:
            if self.otherwise is None:
                raise
            return self.otherwise.read(identifier, where, error)

    def read_pack(self, pack: bytes, offset: int, length: int, where: str) -> bytes:
        """Bytes of a pack; a missing pack is damage of what needs it."""
        try:
            return self.backend.read_range(pack_name(pack), offset, length)
        except MissingFileError as error:
            raise DamagedError(f"{where}: {error.message}") from None

    def decode(self, identifier: bytes, place: Location, data: bytes | memoryview, where: str) -> bytes:
        """Prove a record read from ``place``: header, lengths, digest. Returns the plain content."""
        header, spot = self._promised(identifier, place, data, where)
        return self.prove(header, data, spot)

    def decode_into(
        self, identifier: bytes, place: Location, data: bytes | memoryview, room: memoryview, where: str
    ) -> int:
        """As :meth:`decode`, into the beginning of ``room``; gives the bytes of the plain content.

        After an error ``room`` holds anything.
        """
        header, spot = self._promised(identifier, place, data, where)
        payload = unseal(data, header, self.record_key, spot)
        plain = decompress_into(header, payload, self._decompressor(), room, spot)
        self._check(header, plain, spot)
        return len(plain)

    def _promised(
        self, identifier: bytes, place: Location, data: bytes | memoryview, where: str
    ) -> tuple[RecordHeader, str]:
        """The header of the record at ``place``, and how errors name the spot."""
        spot = f"{where}: {pack_name(place.pack)}, offset {place.offset}"
        header = decode_record(data, spot)
        if header.id != identifier or header.payload_length != place.payload_length:
            raise DamagedError(f"{spot}: the record is not the one the index promises.")
        return header, spot

    def prove(self, header: RecordHeader, data: bytes | memoryview, where: str) -> bytes:
        """The plain content of the record that ``data`` begins with, proven by its id.

        Raises:
            DamagedError: it was altered, does not decompress to the promised length, or its digest is not its id.
        """
        payload = unseal(data, header, self.record_key, where)
        plain = decompress(header, payload, self._decompressor(), where)
        self._check(header, plain, where)
        return plain

    def _check(self, header: RecordHeader, plain: bytes | memoryview, where: str) -> None:
        found = self.identify(plain)
        if found != header.id:
            raise DamagedError(f"{where}: the chunk's digest is {found.hex()[:16]}…, expected {header.id.hex()[:16]}….")

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

    def manifest_ids(self) -> list[str]:
        """The ids of all manifests, sound or not; those of the catalogue where folders cannot be listed."""
        return manifest_ids(self.backend, self.keys, self.id)

    def index_names(self) -> tuple[str, ...]:
        """The names of all index files. Raises DamagedError."""
        return index_names(self.backend)

    def catalogued_points(self) -> tuple[PointSummary, ...]:
        """The recovery points that the catalogue lists. Raises DamagedError."""
        return catalogued_points(self.backend, self.keys, self.id)

    def _size(self, pack: bytes) -> int | None:
        with contextlib.suppress(MissingFileError):
            return self.backend.size(pack_name(pack))
        return None


def pack_name(pack: bytes) -> str:
    """The file of a pack."""
    return f"packs/{pack.hex()[:2]}/{pack.hex()}.pack"


def _refuse_plain(backend: Reader, access: Access) -> None:
    if access.encrypted_only:
        raise RefusedError(
            f"{backend.location} is not encrypted, and a passphrase was given for it.",
            hint="Is it the right repository? Leave the passphrase out if it is.",
        )
