"""Repairing what an inspection found: from parity, from packs that no index names, by new indexes and catalogue.

What cannot be repaired is taken out of the indexes, so that nobody counts on it and the next capture of the same
content stores it again. Whoever repairs holds the exclusive lock. Packs are never written in place.
"""

import os

import numpy as np

from core.errors import DamagedError, DeviceError, LiferaftError
from core.events import Event, Sink, Stage
from images.store.catalogue import CATALOGUE, read_catalogue
from images.store.index import ENTRIES_WRITTEN, IndexBuilder
from images.store.index_table import Entries, IndexTable, Mask, encode_table
from images.store.inspection import Inspection
from images.store.locks import Lock
from images.store.parity import protect, repair
from images.store.parity_judge import keep_sound_records, promises_of
from images.store.records import PACK_HEADER_SIZE
from images.store.repository import Repository, pack_name
from images.store.scan import FoundRecord, scan_pack
from images.store.writer import writable, write_catalogue

#: Places of one record that are entered. Machines that store it at the same time make a few; more are an attacker's.
_COPIES = 16


class Repairer:
    """Repairs one inspected repository.

    Attributes:
        done: a sentence for each thing that was repaired. failed: for each that could not be.
        touched: packs whose content or index changed, which should be looked at again.
    """

    def __init__(self, inspection: Inspection, lock: Lock, sink: Sink) -> None:
        self._inspection = inspection
        self._repository = inspection.repository
        self._backend = writable(inspection.repository.backend)
        self._lock = lock
        self._sink = sink
        self.done: list[str] = []
        self.failed: list[str] = []
        self.touched: set[bytes] = set()

    def repair_packs(self) -> None:
        """Bring packs and parity files back from parity, byte for byte."""
        sizes = self._inspection.tables.pack_sizes()
        for pack in sorted(self._inspection.bad_packs | set(self._inspection.conditions)):
            if pack not in self._inspection.parity_files:
                continue
            self._lock.check()
            try:
                promises = promises_of(self._inspection.tables, pack)
                accept = keep_sound_records(self._repository, promises)
                before = repair(self._backend, self._repository.id, pack, size=sizes.get(pack, 0), accept=accept)
            except (DamagedError, DeviceError) as error:
                self.failed.append(error.message)
                continue
            if not before.sound:
                places = len(before.damaged) + len(before.damaged_parity)
                self._say(f"{pack_name(pack)}: {places} damaged places brought back from parity")
                self.touched.add(pack)

    def protect_packs(self, proven: frozenset[bytes]) -> None:
        """Give parity to packs that have none, or one that says nothing, and whose records were all proven just now."""
        parity = self._repository.document.parity
        if parity is None:
            return
        unusable = {pack for pack, found in self._inspection.conditions.items() if not found.known}
        for pack in sorted((proven - self._inspection.parity_files) | (proven & unusable)):
            self._lock.check()
            protect(self._backend, self._repository.id, pack, parity)
            self._say(f"{pack_name(pack)}: parity made")
            self.touched.add(pack)
            self._inspection.parity_files.add(pack)

    def index_unnamed_packs(self) -> None:
        """Enter what lies in packs and no sound index names: what a damaged index knew, or what it lost."""
        wanted = self._not_covered()
        if not wanted:
            return
        records, files = index_packs(self._repository, wanted, self._sink, prove=True)
        if records:
            self._say(f"{records} records of {len(wanted)} packs entered into {len(files)} new indexes")
            self.touched |= set(wanted)

    def _not_covered(self) -> dict[bytes, int]:
        """Packs that hold more than the entries of the sound indexes, with the size they have."""
        covered = dict.fromkeys(self._inspection.pack_files, PACK_HEADER_SIZE)
        for table in self._inspection.tables:
            sums = np.bincount(table.entries["pack"], weights=table.lengths(), minlength=len(table.packs))
            for pack, size in zip(table.packs, sums.tolist(), strict=True):
                if pack in covered:
                    covered[pack] += int(size)
        return {pack: size for pack, size in self._inspection.pack_files.items() if covered[pack] < size}

    def replace_indexes(self) -> None:
        """Take entries that cannot be read out of the indexes, and damaged indexes out of the folder."""
        replaced = [found.file for found in self._inspection.tables.damaged]
        for number, file in enumerate(self._inspection.tables.files):
            bad = self._inspection.bad[number]
            wrong = self._wrong_sizes(number)
            if not bad.any() and not wrong:
                continue
            table = self._inspection.tables.read(file)
            left = self._without(table, bad, wrong)
            if left is not None:
                self._backend.write(f"indexes/{os.urandom(16).hex()}.index", left)
            gone = int(bad.sum())
            what = (
                f"{gone} records that cannot be read taken out" if gone else "made anew with the sizes that packs have"
            )
            self._say(f"indexes/{file}: {what}")
            replaced.append(file)
        if not replaced:
            return
        self._repository.reload()
        write_catalogue(self._repository, without_indexes=frozenset(replaced))
        self._lock.check()
        for file in replaced:
            self._backend.remove(f"indexes/{file}")
        for found in self._inspection.tables.damaged:
            self._say(f"indexes/{found.file}: damaged, removed")
        self._repository.reload()

    def renew_catalogue(self) -> None:
        """Write the catalogue anew when it does not say what the folders say."""
        problem = catalogue_problem(self._repository)
        if problem:
            write_catalogue(self._repository)
            self._say(f"{CATALOGUE}: made anew")

    def _wrong_sizes(self, number: int) -> dict[bytes, int]:
        """Packs of that index which have another size than it says, with the size they have; 0 for missing ones."""
        files = self._inspection.pack_files
        named = self._inspection.tables.packs[number]
        return {pack: files.get(pack, 0) for pack, size in named.items() if files.get(pack, 0) != size}

    def _without(self, table: IndexTable, bad: Mask, wrong: dict[bytes, int]) -> bytes | None:
        entries = table.entries[~bad]
        if not len(entries):
            return None
        sizes = {pack: wrong.get(pack, int(size)) for pack, size in zip(table.packs, table.sizes, strict=True)}
        return pack_index(self._repository.id, sizes, table.packs, entries)

    def _say(self, text: str) -> None:
        self.done.append(text)
        self._sink(Event(stage=Stage.CHECK, message=text))


def pack_index(repository: bytes, sizes: dict[bytes, int], order: tuple[bytes, ...], entries: Entries) -> bytes:
    """An index of ``entries``, whose pack numbers count in ``order``; packs without an entry are left out."""
    numbers = np.unique(entries["pack"])
    renumbered = entries.copy()
    renumbered["pack"] = np.searchsorted(numbers, entries["pack"])
    return encode_table(repository, {order[number]: sizes[order[number]] for number in numbers.tolist()}, renumbered)


class _Shelf:
    """Indexes that are filled together: a record that lies in several places stands in as many of them.

    Of copies whose content was not proven any may have rotted, so each must be known.
    """

    def __init__(self) -> None:
        self.builders: list[IndexBuilder] = []
        self._open: list[IndexBuilder] = []

    def __len__(self) -> int:
        return sum(len(builder) for builder in self.builders)

    def add(self, found: FoundRecord) -> bool:
        """Enter a record; False when there are :data:`_COPIES` of it already."""
        builder = next((one for one in self.builders if one.find(found.id) is None), None)
        if builder is None:
            if len(self.builders) == _COPIES:
                return False
            builder = IndexBuilder()
            self.builders.append(builder)
        builder.add(found.id, found.place)
        if not any(builder is one for one in self._open):
            self._open.append(builder)
        return True

    def close_pack(self, pack: bytes, size: int) -> None:
        """The pack was looked through, to its end or to here."""
        for builder in self._open:
            builder.close_pack(pack, size)
        self._open = []

    def drop_pack(self, pack: bytes) -> None:
        """Forget what was entered of it."""
        for builder in self._open:
            builder.drop_pack(pack)
        self._open = []
        self.builders = [builder for builder in self.builders if len(builder)]


def index_packs(
    repository: Repository, packs: dict[bytes, int], sink: Sink, *, prove: bool
) -> tuple[int, tuple[str, ...]]:
    """Write indexes of what packs hold, found by scanning them.

    Args:
        packs: bytes of each file as it is now, by id.
        prove: hash every record; else headers are believed, except behind damage.

    Returns:
        number of records, names of the new index files. A pack that is not one of ours, and what lies between its
        sound records, is told as a warning.
    """
    backend = writable(repository.backend)
    shelf, records, files = _Shelf(), 0, list[str]()

    def write() -> None:
        nonlocal shelf
        for builder in shelf.builders:
            files.append(f"{os.urandom(16).hex()}.index")
            backend.write(f"indexes/{files[-1]}", builder.encode(repository.id))
        shelf = _Shelf()

    for pack, size in sorted(packs.items()):
        try:
            for found in scan_pack(repository, pack, size, prove=prove):
                if not isinstance(found, FoundRecord):
                    text = f"Passed over {found.extent.size} bytes: {found.reason}"
                    sink(Event(stage=Stage.CHECK, message=text, warning=True))
                    continue
                if len(shelf) >= ENTRIES_WRITTEN:
                    # One pack may stand in several indexes.
                    shelf.close_pack(pack, size)
                    write()
                if shelf.add(found):
                    records += 1
                else:
                    text = f"Passed over: {pack_name(pack)}, offset {found.place.offset}: one more copy of a record"
                    sink(Event(stage=Stage.CHECK, message=text, warning=True))
        except DamagedError as error:
            sink(Event(stage=Stage.CHECK, message=f"Left out: {error.message}", warning=True))
            shelf.drop_pack(pack)
            continue
        shelf.close_pack(pack, size)
    write()
    repository.reload()
    return records, tuple(files)


def catalogue_problem(repository: Repository) -> str:
    """In what the catalogue does not say what the folders say; empty when it does, or when nobody can list them."""
    backend = repository.backend
    if not backend.lists:
        return ""
    try:
        catalogue, points = read_catalogue(backend), repository.catalogued_points()
    except LiferaftError as error:
        return error.message
    shown = f"{backend.location}/{CATALOGUE}"
    there = {point.id: point for point in repository.points()}
    if {point.id for point in points} != there.keys():
        return f"{shown}: lists {len(points)} recovery points, others than the {len(there)} there are."
    for point in points:
        if point != there[point.id]:
            return f"{shown}: what it says of recovery point {point.id[:12]} is not what its manifest says."
    if set(catalogue.indexes) != set(repository.index_names()):
        return f"{shown}: lists {len(catalogue.indexes)} indexes, others than there are."
    if repository.keys is not None and set(catalogue.keys) != set(backend.list("keys")):
        return f"{shown}: its list of key slots is not that of the folder."
    return ""
