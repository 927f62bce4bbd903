"""The journal: what of a plan lies on its targets for good, kept where the same plan finds it when it is run again.

It saves looking at the target, and nothing else: it is believed only of the same disk that carries the plan's table,
and what it says is read back at the end like everything else. Without it, or when it is damaged, a restore looks at
the target and keeps what matches. A line is written when its chunks were flushed; the last one may be torn.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from images.model.layout import DiskIdentity
from images.store.pages import Slot
from restore.plan.plan import Plan
from restore.target.candidates import Candidate

JOURNAL_VERSION = 1
#: Bytes of a journal that are read: a line is about 60 bytes and stands for what was written in some seconds.
_LIMIT = 16 << 20
#: How every journal begins, a torn one too.
_BEGINNING = b'{"journal":'


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: which plan, and which disks are its targets, by source disk."""

    journal: int
    plan: str
    targets: dict[str, "_Mark"]


class _Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What tells one disk from another; the same disk has it in every run."""

    identity: DiskIdentity
    size: int
    sector_size: int
    inode: str


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """Chunks ``first`` to ``end``, not included, of a volume."""

    volume: str
    first: int
    end: int


class _Stand(msgspec.Struct, frozen=True, kw_only=True):
    """A disk before its table is made (again), or with it."""

    disk: str
    table: bool


class Journal:
    """The journal of one plan. Safe from several threads.

    Args:
        path: the file; None keeps none.
        candidates: the targets as they are now, by source disk.

    Attributes:
        problem: a sentence when it cannot be kept; the restore goes on without it.
    """

    def __init__(self, path: Path | None, plan: Plan, candidates: Mapping[str, Candidate]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._digest = plan.digest
        self._marks = {disk: _mark(candidate) for disk, candidate in candidates.items()}
        self._descriptor = -1
        self.problem = ""
        self._known: dict[str, _Mark] = {}
        self._done: dict[str, list[range]] = {}
        self._tabled: dict[str, bool] = {}
        if path is not None and _is_foreign(path):
            self.problem = f"{path} is something else than a journal and is left alone: no journal is kept."
            self._path = None
        elif path is not None:
            self._known, self._done, self._tabled = _read(path, plan.digest)

    def began(self, disk: str) -> bool:
        """Whether this plan was begun on the very disk that is its target now."""
        return disk in self._known and self._known[disk] == self._marks[disk]

    def tabled(self, disk: str) -> bool:
        """Whether this plan had made its table on a disk: one without it was put to other use since."""
        return self._tabled.get(disk, False)

    def done(self, volume: str, count: int) -> list[range]:
        """Chunks of a volume with ``count`` chunks that lay on its target for good."""
        return [range(run.start, min(run.stop, count)) for run in self._done.get(volume, ()) if run.start < count]

    def open(self) -> None:
        """Begin to write, or go on where the same targets are meant. Just before the first write to a target."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            again = self._known == self._marks
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if again else os.O_TRUNC)
            self._descriptor = os.open(self._path, flags, 0o600)
            # A line that was torn when the power went must not swallow the next one.
            head = _Head(journal=JOURNAL_VERSION, plan=self._digest, targets=self._marks)
            self._append(b"\n" if again else msgspec.json.encode(head) + b"\n")
        except OSError as error:
            self._give_up(error)

    def note(self, volume: str, slots: Iterable[Slot]) -> None:
        """Chunks that were flushed."""
        with self._lock:
            if self._descriptor < 0:
                return
            self._write([_Line(volume=volume, first=run.start, end=run.stop) for run in _runs(slots)])

    def stand(self, disk: str, *, table: bool) -> None:
        """A disk is about to be wiped, or its table was made."""
        with self._lock:
            if self._descriptor >= 0:
                self._write([_Stand(disk=disk, table=table)])

    def close(self, *, finished: bool) -> None:
        """Stop writing; when the restore is ``finished`` there is nothing to go on with."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
        if finished and self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _write(self, lines: Sequence[_Line | _Stand]) -> None:
        try:
            self._append(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        except OSError as error:
            self._give_up(error)

    def _append(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]
        os.fsync(self._descriptor)

    def _give_up(self, error: OSError) -> None:
        self.problem = (
            f"{self._path}: the journal cannot be kept: {error.strerror}. A second run will look at the target."
        )
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _mark(candidate: Candidate) -> _Mark:
    return _Mark(
        identity=candidate.identity,
        size=candidate.size,
        sector_size=candidate.sector_size,
        inode=candidate.inode,
    )


def _is_foreign(path: Path) -> bool:
    """Whether the name is that of a device, or of a file that is no journal: it is neither written nor removed."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return True
        with path.open("rb") as stream:
            found = stream.read(len(_BEGINNING))
    except OSError:
        return False
    return not _BEGINNING.startswith(found) and found != _BEGINNING


def _read(path: Path, digest: str) -> tuple[dict[str, _Mark], dict[str, list[range]], dict[str, bool]]:
    """What an earlier run left: its targets, its runs of chunks by volume, and which disks have their table.

    Nothing where that is not sure.
    """
    try:
        with path.open("rb") as stream:
            lines = stream.read(min(_LIMIT, os.fstat(stream.fileno()).st_size)).split(b"\n")
        head = msgspec.json.decode(lines[0], type=_Head)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}, {}, {}
    if head.journal != JOURNAL_VERSION or head.plan != digest:
        return {}, {}, {}
    done: dict[str, list[range]] = {}
    tabled: dict[str, bool] = {}
    # Behind the last newline there is nothing, or a line that was torn.
    for text in lines[1:-1]:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            if text.startswith(b'{"disk"'):
                stand = msgspec.json.decode(text, type=_Stand)
                tabled[stand.disk] = stand.table
                continue
            line = msgspec.json.decode(text, type=_Line)
            if 0 <= line.first < line.end:
                done.setdefault(line.volume, []).append(range(line.first, line.end))
    return head.targets, done, tabled


def _runs(slots: Iterable[Slot]) -> list[range]:
    """Slots as runs of numbers."""
    found: list[range] = []
    for number in sorted(slot.number for slot in slots):
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found
