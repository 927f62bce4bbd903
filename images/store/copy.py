"""Copy recovery points from one repository into another.

Between two plain repositories records travel as they are, and only missing ones: the recovery point keeps its id and
its signature. Where one of them is encrypted, ids differ: every chunk is read, and gets new pages and a new manifest.
Either way each record is proven before it is stored, and payloads are not compressed again.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import msgspec

from core.documents import encode
from core.errors import DamagedError, RefusedError
from core.events import Event, Meter, Sink, Stage, ticking
from images.model.manifest import Manifest, Volume
from images.store.pages import Page, decode_page, encode_page, height_for
from images.store.proof import Promise, Proven, prove_all
from images.store.records import Codec, RecordHeader, RecordKind, chunk_id, unseal
from images.store.repair import catalogue_problem
from images.store.repository import Repository, pack_name
from images.store.signature import SigningKey
from images.store.trees import TreeWalk
from images.store.writer import RepositoryWriter, write_catalogue, writing


class CopiedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A recovery point: its id there, its id here; ``already``: it was here; ``problem``: it could not be copied."""

    source: str
    id: str = ""
    name: str = ""
    already: bool = False
    problem: str = ""


class CopyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was copied.

    Attributes:
        records: stored in the target; stored: their bytes. same: whether records travelled as they are.
    """

    points: tuple[CopiedPoint, ...]
    records: int
    stored: int
    same: bool


def copy_points(
    source: Repository, target: Repository, ids: tuple[str, ...], *, sink: Sink, sign: SigningKey | None = None
) -> CopyResult:
    """Copy recovery points, oldest first.

    Args:
        ids: full ids in ``source``.
        sign: signs those that come without a signature or lose it.

    Raises:
        RefusedError: the two do not fit, or somebody works exclusively in the target.
        DeviceError, UnreachableError: what is stored stays; the same command goes on.
        DamagedError never: a recovery point that is damaged is told in the result, and the others are copied.
    """
    if source.id == target.id:
        raise RefusedError(
            f"{target.backend.location} is the repository to copy from, or a copy of its files.",
            hint="Name another repository; two copies of the same files have the same id.",
        )
    if source.chunk_size != target.chunk_size:
        raise RefusedError(
            f"{source.backend.location} has chunks of {source.chunk_size} bytes, {target.backend.location} of "
            f"{target.chunk_size}: they cannot share them.",
            hint=f"Make the target with liferaft init --chunk-size {source.chunk_size}.",
        )
    same = source.keys is None and target.keys is None
    with writing(target, "copy", sink) as writer:
        one = _Verbatim(source, writer, sign) if same else _Translation(source, writer, sign)
        meter = Meter(sink, Stage.COPY, one.count(ids, sink))
        with ticking(meter):
            points = tuple(_copy_one(one, identifier, meter, sink) for identifier in ids)
        if all(point.already for point in points) and catalogue_problem(target):
            # An earlier copy was cut off between its last manifest and the catalogue.
            write_catalogue(target)
        return CopyResult(points=points, records=writer.records, stored=writer.stored, same=same)


def _copy_one(one: "_Verbatim | _Translation", identifier: str, meter: Meter, sink: Sink) -> CopiedPoint:
    try:
        manifest = one.source.manifest(identifier)
        known = one.already(identifier, manifest)
        if known:
            return CopiedPoint(source=identifier, id=known, name=manifest.name, already=True)
        sink(Event(stage=Stage.COPY, message=f"Copying {manifest.name} ({identifier[:12]})"))
        return CopiedPoint(source=identifier, id=one.copy(identifier, manifest, meter), name=manifest.name)
    except DamagedError as error:
        sink(Event(stage=Stage.COPY, message=f"{identifier[:12]} is not copied: {error.message}", warning=True))
        return CopiedPoint(source=identifier, problem=error.message)


class _Copying(ABC):
    """What both ways have in common."""

    def __init__(self, source: Repository, writer: RepositoryWriter, sign: SigningKey | None) -> None:
        self.source = source
        self.writer = writer
        self.sign = sign

    @abstractmethod
    def _wanted(self, identifier: bytes) -> bool:
        """Whether a chunk of the source has to be read."""

    @abstractmethod
    def already(self, identifier: str, manifest: Manifest) -> str:
        """The id under which the target has the recovery point; empty when it has not."""

    def count(self, ids: tuple[str, ...], sink: Sink) -> int:
        """Plain bytes that have to be read, by a walk over the maps."""
        sink(Event(stage=Stage.COPY, message="Reading the maps"))
        walk = TreeWalk(self.source, lambda lost: None)
        chunks = 0
        for identifier in ids:
            try:
                manifest = self.source.manifest(identifier)
                if self.already(identifier, manifest):
                    continue
                for volume in manifest.volumes:
                    for page in walk.visit(volume, volume.id):
                        if page.page.level == 0:
                            chunks += sum(self._wanted(chunk) for chunk in page.page.ids.values())
            except DamagedError:
                # Told when it is copied.
                continue
        return chunks * self.source.chunk_size

    def _promise(self, identifier: bytes, where: str, row: int = 0) -> Promise:
        place = self.source.locate(identifier)
        if place is None:
            raise self.source.missing(identifier, where)
        return Promise(row, identifier, place)


class _Verbatim(_Copying):
    """Plain to plain: the same bytes under the same ids."""

    def __init__(self, source: Repository, writer: RepositoryWriter, sign: SigningKey | None) -> None:
        super().__init__(source, writer, sign)
        self._walk = TreeWalk(source)
        self._there = set(writer.repository.manifest_ids())

    def _wanted(self, identifier: bytes) -> bool:
        return not self.writer.knows(identifier)

    def already(self, identifier: str, manifest: Manifest) -> str:
        if identifier not in self._there:
            return ""
        try:
            self.writer.repository.manifest_file(identifier)
        except DamagedError:
            # Written once more, it is whole again.
            return ""
        return identifier

    def copy(self, identifier: str, manifest: Manifest, meter: Meter) -> str:
        """Missing records, then the manifest and its signature as they are."""
        try:
            for volume in manifest.volumes:
                where = f"recovery point {identifier[:12]}, {volume.id}"
                for proven in prove_all(self.source, self._missing(volume, where), self._payload):
                    self._store(proven, meter)
        except DamagedError:
            # What this walk has seen is not all stored: the next recovery point looks for itself.
            self._walk = TreeWalk(self.source)
            raise
        data = self.source.manifest_file(identifier)
        signature = self.source.signature(identifier)
        if signature is None and self.sign is not None:
            signature = self.sign.sign(identifier)
        return self.writer.commit_file(data, signature)

    def _missing(self, volume: Volume, where: str) -> Iterator[Promise]:
        """Records the target has not, in the order of the volume."""
        for visited in self._walk.visit(volume, where):
            if visited.page.level == 0:
                for slot in sorted(visited.page.ids):
                    if self._wanted(visited.page.ids[slot]):
                        yield self._promise(visited.page.ids[slot], where)
            if self._wanted(visited.id):
                yield self._promise(visited.id, where)

    def _payload(self, promise: Promise, header: RecordHeader, data: memoryview, plain: bytes) -> Proven:
        payload = unseal(data, header, None, pack_name(promise.place.pack))
        return Proven(promise, None, header, bytes(payload), header.id)

    def _store(self, proven: Proven, meter: Meter) -> None:
        if proven.error is not None:
            raise proven.error
        assert proven.header is not None
        head = proven.header
        self.writer.put(head.kind, head.id, head.plain_length, head.codec, proven.payload)
        if head.kind is RecordKind.CHUNK:
            meter.advance(head.plain_length)


class _Translation(_Copying):
    """One of the two is encrypted: new ids, new pages, a new manifest."""

    def __init__(self, source: Repository, writer: RepositoryWriter, sign: SigningKey | None) -> None:
        super().__init__(source, writer, sign)
        # Equal pages give equal pages, so what recovery points share is read once.
        self._pages: dict[bytes, bytes] = {}
        self._there: dict[bytes, str] = {}
        for identifier in writer.repository.manifest_ids():
            try:
                self._there[_essence(writer.repository.manifest(identifier))] = identifier
            except DamagedError:
                continue

    def _wanted(self, identifier: bytes) -> bool:
        return True

    def already(self, identifier: str, manifest: Manifest) -> str:
        return self._there.get(_essence(manifest), "")

    def copy(self, identifier: str, manifest: Manifest, meter: Meter) -> str:
        """Every chunk under its new id; then the new manifest."""
        volumes: list[Volume] = []
        for volume in manifest.volumes:
            where = f"recovery point {identifier[:12]}, {volume.id}"
            root, chunks = self.source.tree_of(volume, where)
            new = None if root is None else self._page(root, height_for(chunks), where, meter).hex()
            volumes.append(msgspec.structs.replace(volume, root=new))
        translated = msgspec.structs.replace(manifest, volumes=tuple(volumes))
        found = self.writer.commit(translated, self.sign)
        self._there[_essence(translated)] = found
        return found

    def _page(self, identifier: bytes, level: int, where: str, meter: Meter) -> bytes:
        """The new id of a page, below which everything is stored."""
        if identifier in self._pages:
            return self._pages[identifier]
        if level == 0:
            self._leaves([identifier], where, meter)
        else:
            page = self._read(identifier, level, where)
            children = [page.ids[slot] for slot in sorted(page.ids)]
            if level == 1:
                self._leaves(children, where, meter)
            new = {slot: self._page(child, level - 1, where, meter) for slot, child in page.ids.items()}
            self._pages[identifier] = self._store_page(Page(level, new, page.zeros))
        return self._pages[identifier]

    def _leaves(self, wanted: list[bytes], where: str, meter: Meter) -> None:
        """Level-0 pages: their chunks flow through the threads without a stop between pages."""
        waiting: list[tuple[bytes, Page]] = []
        done: dict[int, bytes] = {}

        def promises() -> Iterator[Promise]:
            for identifier in wanted:
                if identifier not in self._pages:
                    page = self._read(identifier, 0, where)
                    waiting.append((identifier, page))
                    for slot in sorted(page.ids):
                        yield self._promise(page.ids[slot], where, slot)

        def finish() -> None:
            """Pages whose chunks are all stored; results come in order."""
            while waiting and len(done) == len(waiting[0][1].ids):
                identifier, page = waiting.pop(0)
                self._pages[identifier] = self._store_page(Page(0, dict(done), page.zeros))
                done.clear()

        for proven in prove_all(self.source, promises(), self._renamed):
            finish()
            if proven.error is not None:
                raise proven.error
            assert proven.header is not None
            head = proven.header
            if proven.payload:
                self.writer.put(RecordKind.CHUNK, proven.id, head.plain_length, head.codec, proven.payload)
            done[proven.promise.row] = proven.id
            meter.advance(head.plain_length)
        finish()

    def _renamed(self, promise: Promise, header: RecordHeader, data: memoryview, plain: bytes) -> Proven:
        """The id in the target, and the payload when the target has it not."""
        identifier = self.writer.repository.identify(plain)
        if self.writer.knows(identifier):
            return Proven(promise, None, header, b"", identifier)
        payload = unseal(data, header, self.source.record_key, pack_name(promise.place.pack))
        return Proven(promise, None, header, bytes(payload), identifier)

    def _store_page(self, page: Page) -> bytes:
        data = encode_page(page)
        identifier = self.writer.repository.identify(data)
        # Pages are ids, which do not compress.
        self.writer.put(RecordKind.PAGE, identifier, len(data), Codec.STORED, data)
        return identifier

    def _read(self, identifier: bytes, level: int, where: str) -> Page:
        shown = f"{where}, page {identifier.hex()[:16]}…"
        return decode_page(self.source.read_chunk(identifier, shown), level, shown)


def _essence(manifest: Manifest) -> bytes:
    """What stays of a manifest when ids change: equal for a recovery point and its copy."""
    volumes = tuple(msgspec.structs.replace(volume, root=None) for volume in manifest.volumes)
    return chunk_id(encode(msgspec.structs.replace(manifest, volumes=volumes)))
