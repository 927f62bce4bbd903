"""The second try: a chunk that was damaged where it was read first, brought from wherever else it can come from.

From the same place once more, past every cache on the way; from another place that holds the same chunk; from its
pack read through parity. What comes is proven by its id like everything else. It writes nothing: mending the
repository is ``liferaft check --repair``. Only who needs the data at any price sets it: ``check`` must see the damage.
"""

import itertools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from core.errors import DamagedError, DeviceError
from images.store.backend import Reader
from images.store.index import Location
from images.store.records import RECORD_HEADER_SIZE
from images.store.repository import Repository, pack_name

if TYPE_CHECKING:
    # Loaded when something is damaged: parity brings numpy, which takes longer to load than a small restore runs.
    from images.store.parity_solver import PackSolver

#: Places of one chunk that are tried: a repository with more copies of it would be strange.
_PLACES = 8
#: Packs that are read through their parity at once; each remembers the blocks it has solved.
_SOLVERS = 2


@runtime_checkable
class Cached(Protocol):
    """A backend with caches between it and the files."""

    def uncached(self) -> Reader:
        """The same, asking every cache to ask again."""
        ...


class SecondTry:
    """Brings chunks of one repository that were damaged at the first try. Safe from several threads.

    Attributes:
        count: chunks that were brought. warnings: a sentence for each pack about which there is something to say.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._solvers: dict[bytes, PackSolver] = {}
        self._warnings: dict[tuple[bytes, str], str] = {}
        self.count = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._warnings.values())

    def readmit(self, bad: dict[bytes, str]) -> None:
        """Believe packs that are missing or truncated where their parity brings all of them back.

        Args:
            bad: as :meth:`Repository.check_packs` gives it.
        """
        from images.store.parity import examine

        sizes = self._repository.indexes().pack_sizes()
        for pack, problem in bad.items():
            condition = examine(self._repository.backend, self._repository.id, pack, size=sizes[pack])
            if condition.repairable:
                self._repository.readmit(pack)
                with self._lock:
                    self._warnings[pack, "bad"] = f"{problem}; it is read through its parity. {_MEND}"

    def read(self, identifier: bytes, where: str, damage: DamagedError | DeviceError) -> bytes:
        """The proven content of a record.

        Raises:
            damage: nothing brings it; what was wrong at the first try.
            UnreachableError: a server does not answer any more.
        """
        places = tuple(itertools.islice(self._repository.indexes().places(identifier), _PLACES))
        for place, data, how in itertools.chain(self._again(places), self._solved(places)):
            try:
                plain = self._repository.decode(identifier, place, data, where)
            except DamagedError:
                continue
            self._say(place.pack, how)
            return plain
        raise damage

    def _again(self, places: tuple[Location, ...]) -> Iterator[tuple[Location, bytes, str]]:
        """Every place, past the caches."""
        backend = self._repository.backend
        backend = backend.uncached() if isinstance(backend, Cached) else backend
        for place in places:
            try:
                data = backend.read_range(pack_name(place.pack), place.offset, _length(place))
            except (DamagedError, DeviceError):
                continue
            yield place, data, "came damaged at first and was right when it was read again. Look at the way to it."

    def _solved(self, places: tuple[Location, ...]) -> Iterator[tuple[Location, bytes, str]]:
        """Every place, through the parity of its pack."""
        for place in places:
            with self._lock:
                try:
                    data = self._solver(place.pack).read(place.offset, _length(place))
                except (DamagedError, DeviceError):
                    continue
            yield place, data, f"is damaged and is read through its parity. {_MEND}"

    def _solver(self, pack: bytes) -> "PackSolver":
        from images.store.parity import read_repaired

        solver = self._solvers.pop(pack, None)
        if solver is None:
            solver = read_repaired(self._repository.backend, self._repository.id, pack)
        self._solvers[pack] = solver
        while len(self._solvers) > _SOLVERS:
            del self._solvers[next(iter(self._solvers))]
        return solver

    def _say(self, pack: bytes, how: str) -> None:
        """Count a chunk; what is to be said of its pack is said once."""
        with self._lock:
            self.count += 1
            if (pack, "bad") not in self._warnings:
                self._warnings[pack, how] = f"{self._repository.backend.location}/{pack_name(pack)} {how}"


_MEND = "Mend it with liferaft check --repair."


def _length(place: Location) -> int:
    return RECORD_HEADER_SIZE + place.payload_length
