"""Rates: how fast this repository and these targets are, measured in under a second, and what earlier restores reached.

Nothing is written to a target here: how fast it can be written is known from a restore, or assumed and said so. The
book of earlier rates is a small file of this user on this machine; losing it costs nothing but better figures.
"""

import contextlib
import datetime
import logging
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from core.documents import decode_stored, encode
from core.errors import DamagedError, LiferaftError
from core.files import write_atomically
from core.units import KIB, MIB, align_down, format_size
from images.model.layout import DiskIdentity
from images.model.manifest import Manifest, Volume
from images.store.repository import Repository
from restore.plan.estimate import Rate, Work
from restore.planning.matching import is_same_identity
from restore.target.candidates import Candidate

Clock = Callable[[], float]

#: Seconds that each measurement takes at most, and bytes it reads at most.
_PATIENCE = 0.4
_SAMPLE = 64 * MIB
#: Places of the recovery point, or of the target, that are read.
_PLACES = 16
_RUN = 4
_REQUEST = 4 * MIB
#: Bytes below which a measurement is mostly its own beginning.
_SHORT = 16 * MIB
#: Bytes below which a restore says nothing about a disk: its cache takes them.
_TELLING = 256 * MIB
_ENTRIES = 200
_BOOK_LIMIT = 256 * KIB

#: What disks that were never measured can do, in MiB/s, from slow to fast, by how they are attached: an old stick, a
#: laptop's hard disk, and the interface's own limit.
_BY_TRANSPORT = {"usb": (10, 400), "sata": (60, 520), "ata": (30, 130), "nvme": (300, 5000), "mmc": (10, 250)}
_ASSUMED = (30, 1500)

_log = logging.getLogger(__name__)


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore reached. ``write``: bytes in a second on a disk of this identity. ``day``: ISO 8601."""

    identity: DiskIdentity
    write: float
    day: str


class RateBook(msgspec.Struct, frozen=True, kw_only=True):
    """Earlier restores, the latest last. ``seconds``: what steps took the last time, by the name of their kind."""

    version: int = 1
    disks: tuple[Reached, ...] = ()
    seconds: dict[str, float] = {}

    def latest(self, identity: DiskIdentity) -> tuple[Reached, bool] | None:
        """What was reached on that disk (True), else on the last one of the same model (False)."""
        for exact in (True, False):
            for reached in reversed(self.disks):
                if is_same_identity(reached.identity, identity) if exact else _is_model(reached.identity, identity):
                    return reached, exact
        return None

    def with_restore(self, disks: Iterable[Reached], seconds: Mapping[str, float]) -> "RateBook":
        """The book with what another restore taught; what is older goes when there is too much."""
        new = tuple(disks)
        kept = [old for old in self.disks if not any(old.identity == reached.identity for reached in new)]
        return RateBook(disks=(*kept, *new)[-_ENTRIES:], seconds={**self.seconds, **seconds})


def book_path() -> Path:
    """``$XDG_STATE_HOME/liferaft/rates.json``, or below ``~/.local/state``."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "state") / "liferaft" / "rates.json"


def read_book(path: Path) -> RateBook:
    """The book; an empty one where there is none. One that is damaged is said in the log, and begun anew."""
    try:
        with path.open("rb") as stream:
            return decode_stored(stream.read(_BOOK_LIMIT), RateBook, name=str(path))
    except FileNotFoundError:
        return RateBook()
    except (OSError, DamagedError) as error:
        _log.warning("what earlier restores reached is not known: %s", error)
        return RateBook()


def write_book(path: Path, book: RateBook) -> None:
    """Keep the book. It is worth no failed restore: what goes wrong is said in the log."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode(book))
    except OSError as error:
        _log.warning("%s cannot be written: %s", path, error.strerror)


def fetch_rate(repository: Repository, manifest: Manifest, *, clock: Clock = time.monotonic) -> Rate:
    """Read, decompress and prove chunks of a recovery point from several places, as a restore does."""
    until = clock() + _PATIENCE
    started = clock()
    try:
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
            places = _places(repository, manifest)
            done = sum(pool.map(lambda place: _fetch(repository, place[0], place[1], clock, until), places))
    except LiferaftError as error:
        return _assumed(Work.FETCH, "", 5 * MIB, 1500 * MIB, f"not measured: {error.message}")
    took = clock() - started
    if not done or took <= 0:
        return _assumed(Work.FETCH, "", 20 * MIB, 1500 * MIB, "not measured: there is nothing to read")
    rate = done / took
    # The cache of a repository that is at hand flatters; starting the threads belittles a short sample.
    basis = f"{_per_second(rate)}, measured now on {format_size(done)}"
    # Over a network a restore fetches many chunks with one request, which was one for each here.
    best = 4.0 if repository.backend.distant or done < _SHORT else 1.5
    return Rate(work=Work.FETCH, low=rate * 0.5, high=rate * best, basis=basis)


def target_rates(
    disk: str, candidate: Candidate, book: RateBook, *, here: bool = True, clock: Clock = time.monotonic
) -> tuple[Rate, Rate]:
    """The rates of reading and of writing a target, which goes to ``disk``; only read here."""
    measured = _read_rate(candidate, clock) if here else None
    slow, fast = _BY_TRANSPORT.get(candidate.identity.transport, _ASSUMED)
    if measured is None:
        why = "an image file" if candidate.file else "it cannot be read here"
        read = _assumed(Work.READ, disk, slow * MIB, fast * MIB, f"not measured ({why}): {_assumption(slow, fast)}")
    else:
        basis = f"{_per_second(measured)}, measured now"
        read = Rate(work=Work.READ, disk=disk, low=measured * 0.6, high=measured * 1.3, basis=basis)
    return read, _write_rate(disk, candidate, book, measured)


def _write_rate(disk: str, candidate: Candidate, book: RateBook, measured: float | None) -> Rate:
    found = book.latest(candidate.identity) if not candidate.file else None
    if found is not None:
        reached, exact = found
        where = "" if exact else ", on another disk of this model"
        basis = f"{_per_second(reached.write)}, reached in the restore of {reached.day}{where}"
        # What was reached then may have been the repository's limit: this disk can do at least that.
        low, high = (0.8, 1.5) if exact else (0.5, 2.0)
        return Rate(work=Work.WRITE, disk=disk, low=reached.write * low, high=reached.write * high, basis=basis)
    if measured is not None:
        basis = "not measured yet: assumed from a quarter of the rate of reading to all of it"
        return _assumed(Work.WRITE, disk, measured / 4, measured, basis)
    slow, fast = _BY_TRANSPORT.get(candidate.identity.transport, _ASSUMED)
    return _assumed(Work.WRITE, disk, slow * MIB, fast * MIB, f"not measured yet: {_assumption(slow, fast)}")


def _assumption(slow: int, fast: int) -> str:
    return f"assumed {slow} to {fast} MiB/s"


def _assumed(work: Work, disk: str, low: float, high: float, basis: str) -> Rate:
    return Rate(work=work, disk=disk, low=low, high=high, basis=basis)


def _per_second(rate: float) -> str:
    return f"{format_size(int(rate))}/s"


def _places(repository: Repository, manifest: Manifest) -> Iterator[tuple[Volume, int]]:
    """Volumes and chunk numbers, evenly over everything that was captured; the same each time."""
    total = sum(volume.size for volume in manifest.volumes)
    for place in range(_PLACES):
        offset = total * place // _PLACES
        for volume in manifest.volumes:
            if offset < volume.size:
                yield volume, offset // repository.chunk_size
                break
            offset -= volume.size


def _fetch(repository: Repository, volume: Volume, first: int, clock: Clock, until: float) -> int:
    """A run of chunks from ``first`` on; the bytes that came of it. Late ones are left out."""
    done = 0
    for number in range(first, first + _RUN):
        if clock() >= until or number * repository.chunk_size >= volume.size:
            break
        slot = repository.slot(volume, number, volume.id)
        if slot is not None and slot.id is not None:
            done += len(repository.read_chunk(slot.id, volume.id))
    return done


def _read_rate(candidate: Candidate, clock: Clock) -> float | None:
    """Bytes in a second from the beginning, the middle and the end of a disk, past the page cache; None when it cannot
    be read. An image file is not read: its holes would be the fastest disk of all."""
    if candidate.file and not _is_device(candidate.node):
        return None
    try:
        descriptor = os.open(candidate.node, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None
    done = 0
    started = clock()
    try:
        with mmap.mmap(-1, _REQUEST) as buffer:
            while done < _SAMPLE and clock() - started < _PATIENCE:
                turn, place = divmod(done // _REQUEST, 3)
                offset = align_down(candidate.size * (0, 4, 7)[place] // 8) + turn * _REQUEST
                # A small disk is read twice in places; its own cache makes it look faster then.
                last = max(align_down(candidate.size - _REQUEST), 0)
                count = os.preadv(descriptor, [buffer], min(offset, last))
                if count < _REQUEST:
                    break
                done += count
    except OSError:
        return None
    finally:
        os.close(descriptor)
    took = clock() - started
    return done / took if done and took > 0 else None


def _is_device(node: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISBLK(Path(node).stat().st_mode)
    return False


def _is_model(known: DiskIdentity, found: DiskIdentity) -> bool:
    return bool(known.model) and (known.model, known.transport) == (found.model, found.transport)


def lessons(day: datetime.date, disks: Iterable[tuple[DiskIdentity, int, float]]) -> Iterator[Reached]:
    """What a restore that ended on a day says of its disks.

    Args:
        disks: identity, bytes written, seconds it took. What is too little to tell is left out.
    """
    for identity, written, seconds in disks:
        named = identity.wwn or identity.serial or identity.model
        if named and written >= _TELLING and seconds > 0:
            yield Reached(identity=identity, write=written / seconds, day=day.isoformat())
