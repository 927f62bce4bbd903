"""One look at a whole repository: its documents, indexes, packs and trees, and if asked for every record.

It changes nothing and stops at nothing: every damage becomes a finding. Memory is bounded by the census (about 1 byte
for each record of the repository on top of some 150 MiB) and by the limits of ``findings.py``.
"""

import math
import random
from collections.abc import Iterator

import numpy as np

from core.errors import DamagedError, DeviceError, RefusedError, UnreachableError
from core.events import Event, Meter, Sink, Stage, ticking
from images.model.manifest import Manifest
from images.store.backend import MissingFileError
from images.store.catalogue import INDEX_NAME, MANIFEST_NAME, key_names, read_catalogue
from images.store.census import Census
from images.store.findings import FINDINGS_LIMIT, Damage, DamageKind, Hit
from images.store.hits import HitFinder
from images.store.index_table import IndexTable, Mask, sort_keys
from images.store.index_tables import IndexTables
from images.store.keyring import read_slots
from images.store.parity import PackCondition, ParityState, examine, parity_name
from images.store.proof import Promise, promise_of, prove_all
from images.store.records import PACK_HEADER_SIZE, check_pack_header
from images.store.repository import Repository, pack_name
from images.store.trees import LostPage, TreeWalk

#: Packs looked into by a check that does not read data, when every look is a request over a network.
_SPOTS_DISTANT = 64
#: Lost ids whose recovery points are looked for.
_LOST_LIMIT = 100_000


class Inspection:
    """What is known of a repository so far. Methods are called in the order in which they stand here.

    Attributes:
        manifests: sound recovery points, by id.
        tables: sound indexes. bad: for each of them, which entries cannot be read.
        pack_files: bytes of each pack that is there. bad_packs: ids of those with any damage.
        proven_packs: whose every record was read and is sound.
        conditions: of packs whose parity was looked at and is not sound, or shows damage.
        damages, damage_count: findings.
    """

    def __init__(self, repository: Repository, sink: Sink) -> None:
        self.repository = repository
        self.sink = sink
        self.damages: list[Damage] = []
        self.damage_count = 0
        self.serious = 0
        self.manifests: dict[str, Manifest] = {}
        self.pack_files: dict[bytes, int] = {}
        self.parity_files: set[bytes] = set()
        self.bad_packs: set[bytes] = set()
        self.conditions: dict[bytes, PackCondition] = {}
        self.proven_packs: set[bytes] = set()
        self.proven_records = 0
        self.proven_bytes = 0
        self.lost: set[bytes] = set()
        self.pages = 0
        repository.reload()

    def add(self, damage: Damage) -> None:
        """Note a damage."""
        self.damage_count += 1
        self.serious += not damage.harmless
        if len(self.damages) < FINDINGS_LIMIT:
            self.damages.append(damage)

    # -- documents ---------------------------------------------------------------------------------------------------

    def read_documents(self) -> None:
        """Key slots and manifests."""
        repository, backend = self.repository, self.repository.backend
        if repository.keys is not None:
            for problem in read_slots(backend, key_names(backend))[1]:
                self.add(Damage(kind=DamageKind.KEY, message=problem))
        for identifier in self._point_ids():
            try:
                self.manifests[identifier] = repository.manifest(identifier)
            except UnreachableError:
                raise
            except (DamagedError, RefusedError, DeviceError) as error:
                file = f"manifests/{identifier}.json"
                self.add(Damage(kind=DamageKind.MANIFEST, file=file, message=error.message))

    def _point_ids(self) -> list[str]:
        if self.repository.backend.lists:
            return self.repository.manifest_ids()
        found = [point.id for point in self.repository.points()]
        return [identifier for identifier in found if MANIFEST_NAME.fullmatch(f"{identifier}.json")]

    # -- indexes and packs -------------------------------------------------------------------------------------------

    def read_indexes(self) -> None:
        """Every index, whole, and the sizes of the packs they name."""
        backend = self.repository.backend
        names = backend.list("indexes") if backend.lists else read_catalogue(backend).indexes
        files = tuple(name for name in names if INDEX_NAME.fullmatch(name))
        self.tables = IndexTables(backend, self.repository.id, files)
        self.bad: tuple[Mask, ...] = tuple(np.zeros(count, dtype=np.bool_) for count in self.tables.counts)
        self.census = Census(self.tables, self.repository.chunk_size)
        for damaged in self.tables.damaged:
            self.add(Damage(kind=DamageKind.INDEX, file=f"indexes/{damaged.file}", message=damaged.reason))
        self._list_packs()
        for number, table in enumerate(self.tables):
            for place, pack in enumerate(table.packs):
                problem = self._size_problem(pack, int(table.sizes[place]))
                if problem:
                    self.bad[number][table.entries["pack"] == place] = True
                    if pack not in self.bad_packs:
                        self.add(Damage(kind=DamageKind.PACK, file=pack_name(pack), message=problem))
                    self.bad_packs.add(pack)

    def _list_packs(self) -> None:
        backend = self.repository.backend
        if backend.lists:
            for name, size in backend.sizes("packs").items():
                stem, _, kind = name.rpartition("/")[2].partition(".")
                pack = _pack_id(stem)
                if pack is not None and name == pack_name(pack):
                    self.pack_files[pack] = size
                elif pack is not None and kind == "parity" and name == parity_name(pack):
                    self.parity_files.add(pack)
            return
        for pack in self.tables.pack_sizes():
            try:
                self.pack_files[pack] = backend.size(pack_name(pack))
            except MissingFileError:
                continue

    def _size_problem(self, pack: bytes, expected: int) -> str:
        found = self.pack_files.get(pack)
        name = f"{self.repository.backend.location}/{pack_name(pack)}"
        if found is None:
            return f"{name} is missing."
        if found != expected:
            return f"{name} has {found} bytes, expected {expected}: it is truncated or altered."
        return ""

    def look_into_packs(self) -> None:
        """The header of packs and of one record in each: whether files are what they are called."""
        backend = self.repository.backend
        for number, table in enumerate(self.tables):
            packs = list(enumerate(table.packs))
            if backend.distant and len(packs) > _SPOTS_DISTANT // max(len(self.tables), 1):
                packs = packs[:: max(1, len(packs) * len(self.tables) // _SPOTS_DISTANT)]
            for place, pack in packs:
                if pack not in self.bad_packs:
                    self._look_into(number, table, place, pack)

    def _look_into(self, number: int, table: IndexTable, place: int, pack: bytes) -> None:
        shown = f"{self.repository.backend.location}/{pack_name(pack)}"
        try:
            header = self.repository.backend.read_range(pack_name(pack), 0, PACK_HEADER_SIZE)
            check_pack_header(header, self.repository.id, pack, shown)
        except UnreachableError:
            raise
        except (DamagedError, DeviceError) as error:
            self.add(
                Damage(
                    kind=DamageKind.PACK, file=pack_name(pack), offset=0, length=PACK_HEADER_SIZE, message=error.message
                )
            )
            self.bad_packs.add(pack)
        rows = table.of_pack(place)
        if len(rows):
            self._prove(number, table, iter([promise_of(table, int(rows[-1]))]))

    # -- trees -------------------------------------------------------------------------------------------------------

    def walk_trees(self) -> None:
        """Every page of every recovery point, once; then which records are used, and which are missing."""
        walk = TreeWalk(self.repository, self._page_lost)
        for identifier, manifest in self.manifests.items():
            self.sink(Event(stage=Stage.CHECK, message=f"Reading the maps of {manifest.name} ({identifier[:12]})"))
            for volume in manifest.volumes:
                where = f"recovery point {identifier[:12]}, {volume.id}"
                try:
                    self.census.count(walk, volume, where)
                except DamagedError as error:
                    file = f"manifests/{identifier}.json"
                    self.add(Damage(kind=DamageKind.MANIFEST, file=file, message=error.message))
        self.census.settle()
        self.pages = walk.pages
        for identifier_ in self.census.missing:
            self.lost.add(identifier_)
            text = f"Chunk {identifier_.hex()} is used, and no index knows it."
            self.add(Damage(kind=DamageKind.CHUNK, record=identifier_.hex(), message=text))
        self.damage_count += self.census.missing_count - len(self.census.missing)
        self.serious += self.census.missing_count - len(self.census.missing)
        for wrong in self.census.wrong:
            text = (
                f"indexes/{wrong.file}: {wrong.id.hex()[:16]}… has {wrong.found} bytes, its tree says {wrong.expected}."
            )
            self.add(Damage(kind=DamageKind.INDEX, file=f"indexes/{wrong.file}", record=wrong.id.hex(), message=text))
            self.lost.add(wrong.id)

    def _page_lost(self, page: LostPage) -> None:
        self.lost.add(page.id)
        place = self.repository.locate(page.id)
        self.add(
            Damage(
                kind=DamageKind.PAGE,
                file=pack_name(place.pack) if place else "",
                offset=place.offset if place else None,
                record=page.id.hex(),
                message=page.error.message,
            )
        )
        for number, table in enumerate(self.tables):
            ids = np.frombuffer(page.id, dtype="V32")
            at = int(table.find(ids, sort_keys(ids))[0])
            if at >= 0:
                self.bad[number][at] = True
                self.bad_packs.add(table.packs[int(table.entries["pack"][at])])

    # -- data --------------------------------------------------------------------------------------------------------

    def read_data(self, percent: float, only: frozenset[bytes] | None = None) -> None:
        """Every record and every parity block of packs that are there.

        Args:
            percent: of the packs, drawn at random; 100 for all.
            only: these packs; None for all.
        """
        known = [pack for pack in self.tables.pack_sizes() if pack in self.pack_files]
        if only is not None:
            known = [pack for pack in known if pack in only]
        chosen = set(random.sample(known, math.ceil(len(known) * percent / 100)))
        meter = Meter(self.sink, Stage.CHECK, sum(self.pack_files[pack] for pack in chosen))
        done: set[bytes] = set()
        with ticking(meter):
            for number, table in enumerate(self.tables):
                for place, pack in enumerate(table.packs):
                    if pack not in chosen:
                        continue
                    # A pack that lost its tail is read, too: what lies before the cut may be sound.
                    self._prove(number, table, self._promises(table, place, pack), meter)
                    if pack not in done:
                        self._examine(pack, int(table.sizes[place]))
                    done.add(pack)
        self.proven_packs |= done - self.bad_packs

    def _promises(self, table: IndexTable, place: int, pack: bytes) -> Iterator[Promise]:
        """The records of a pack; where an index cannot say the size right, those that lie inside the file."""
        return (promise_of(table, int(row)) for row in table.of_pack(place))

    def _prove(self, number: int, table: IndexTable, promises: Iterator[Promise], meter: Meter | None = None) -> None:
        for proven in prove_all(self.repository, promises):
            row, place = proven.promise.row, proven.promise.place
            size = proven.promise.end - place.offset
            if meter is not None:
                meter.advance(size)
                self.proven_records += 1
                self.proven_bytes += size
            if proven.error is None:
                if meter is not None and self.pack_files.get(place.pack) != int(
                    table.sizes[table.entries["pack"][row]]
                ):
                    # Sound, in a pack whose size is wrong: repair keeps it.
                    self.bad[number][row] = False
                continue
            if not self.bad[number][row]:
                self.add(
                    Damage(
                        kind=DamageKind.RECORD,
                        file=pack_name(place.pack),
                        offset=place.offset,
                        length=size,
                        record=proven.promise.id.hex(),
                        message=proven.error.message,
                    )
                )
            self.bad[number][row] = True
            self.bad_packs.add(place.pack)

    def _examine(self, pack: bytes, size: int) -> None:
        if pack not in self.parity_files:
            return
        condition = examine(self.repository.backend, self.repository.id, pack, size=size)
        if condition.sound:
            return
        self.conditions[pack] = condition
        if condition.state is not ParityState.SOUND or not condition.known:
            text = condition.problem or f"{parity_name(pack)} is damaged in {len(condition.damaged_parity)} places."
            self.add(Damage(kind=DamageKind.PARITY, file=parity_name(pack), message=text))
        if condition.damaged and pack not in self.bad_packs:
            first = condition.damaged[0]
            shown = f"{self.repository.backend.location}/{pack_name(pack)}, offset {first.start}"
            text = f"{shown}: not what parity was made of, though every record in it that an index knows is sound."
            self.add(
                Damage(
                    kind=DamageKind.PARITY, file=pack_name(pack), offset=first.start, length=first.size, message=text
                )
            )

    # -- what is lost ------------------------------------------------------------------------------------------------

    def find_lost(self) -> tuple[Hit, ...]:
        """Which used records have no sound copy, and what they hit. At most 10000 hits."""
        for number, table in enumerate(self.tables):
            (rows,) = np.nonzero(self.census.used[number] & self.bad[number])
            rows = rows[: max(_LOST_LIMIT - len(self.lost), 0)]
            if not len(rows):
                continue
            ids = table.entries["id"][rows]
            keys, sound = sort_keys(ids), np.zeros(len(ids), dtype=np.bool_)
            for other, elsewhere in enumerate(self.tables):
                at = elsewhere.find(ids, keys)
                (hit,) = np.nonzero(at >= 0)
                sound[hit] |= ~self.bad[other][at[hit]]
            self.lost.update(bytes(identifier) for identifier in ids[~sound])
        if not self.lost:
            return ()
        finder = HitFinder(self.repository, frozenset(list(self.lost)[:_LOST_LIMIT]))
        hits: list[Hit] = []
        for identifier, manifest in self.manifests.items():
            for hit_ in finder.hits(identifier, manifest):
                hits.append(hit_)
                if len(hits) >= FINDINGS_LIMIT:
                    return tuple(hits)
        return tuple(hits)


def _pack_id(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text) if len(text) == 32 else None
    except ValueError:
        return None
