"""Locks: who is working in a repository (docs/image-format.md §9).

Whoever adds holds a shared lock, whoever may delete what others count on an exclusive one; readers hold none.
A lock is a file that its holder refreshes; it survives its holder's death and is then removed by whoever it hinders.
It is advice among writers that follow the format, not a protection from others.
"""

import contextlib
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import msgspec

from core.documents import decode_stored, encode
from core.errors import DamagedError, DeviceError, LiferaftError, RefusedError
from core.events import Event, Sink, Stage, ignore
from core.units import KIB, format_duration
from images.store.backend import MissingFileError, Reader, Writer

FOLDER = "locks"
LOCK_VERSION = 1
#: Seconds between two refreshes.
REFRESH = 60.0
#: A lock that was not refreshed for so long looks dead …
STALE = timedelta(minutes=30)
#: … and is dead when it does not change for so many seconds more, whatever the clocks of two machines say.
WATCH = 90.0
#: How often two that start at the same moment step back from each other before one is refused.
TRIES = 5
_YOUNG = timedelta(seconds=5)

_NAME = re.compile(r"[0-9a-f]{32}\.json")
_LIMIT = 16 * KIB


class LockKind(StrEnum):
    """Shared locks bear each other; an exclusive one bears no other."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """A process.

    Attributes:
        host, machine: host name and ``/etc/machine-id``.
        boot: the kernel's boot id; pids: the pid namespace, because a container counts its own.
        pid, process_start: the process and when it started, in the kernel's ticks since boot.
    """

    host: str
    machine: str
    boot: str
    pids: str
    pid: int
    process_start: int


class LockDocument(msgspec.Struct, frozen=True, kw_only=True):
    """``locks/<32 hex>.json``. Times are UTC, ISO 8601, by the owner's clock."""

    version: int = LOCK_VERSION
    kind: LockKind
    operation: str
    owner: Owner
    started: str
    refreshed: str


class Verdict(StrEnum):
    """What is known of a lock's owner."""

    ALIVE = "alive"
    #: It looks dead; being watched for a while makes it sure.
    SUSPECT = "suspect"
    DEAD = "dead"


class HeldLock(msgspec.Struct, frozen=True):
    """A lock file that was read; ``document`` is None when it is damaged."""

    name: str
    document: LockDocument | None

    @property
    def text(self) -> str:
        """Who, what, since when."""
        if self.document is None:
            return f"{self.name}, which cannot be read"
        owner, since = self.document.owner, self.document.started[:19].replace("T", " ")
        return f"{self.document.operation} on {owner.host} (process {owner.pid}), since {since} UTC"


class LockedError(RefusedError):
    """Somebody else is working in the repository."""


class LockLostError(DeviceError):
    """Our own lock is gone: somebody took us for dead, and may be deleting what we count on."""


class Lock:
    """A lock that is held. Its refresher runs until :meth:`release`."""

    def __init__(self, backend: Writer, name: str, document: LockDocument, refresh: float) -> None:
        self._backend = backend
        self._name = name
        self._document = document
        self._ended = threading.Event()
        self._refreshing = threading.Lock()
        self._doubtful = False
        self._thread = threading.Thread(target=self._keep, args=(refresh,), name="lock", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The file, for messages."""
        return f"{self._backend.location}/{self._name}"

    def check(self) -> None:
        """Raise unless the lock is still there. Asked before anything is deleted and before a manifest is written.

        Raises:
            LockLostError: somebody removed it.
        """
        with self._refreshing:
            held = not self._doubtful and self._backend.exists(self._name)
        if not held:
            raise LockLostError(
                f"{self.name}, the lock of this {self._document.operation}, was removed by somebody else.",
                hint="Was this machine asleep, or cut off from the repository for long? Run the same command again.",
            )

    def release(self) -> None:
        """Stop refreshing and remove the file. A repository that does not answer is no error here: it will be stale."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(LiferaftError, OSError):
            self._backend.remove(self._name)

    def _keep(self, interval: float) -> None:
        while not self._ended.wait(interval):
            # A server that does not answer is asked again next time; a lock that is gone is not made again.
            with self._refreshing, contextlib.suppress(LiferaftError, OSError):
                asked = _elapsed()
                if not self._backend.exists(self._name):
                    return
                try:
                    self._backend.write(self._name, encode(msgspec.structs.replace(self._document, refreshed=_now())))
                finally:
                    # It may have been removed, and work done without us, after we asked; now it is there again.
                    self._doubtful = self._doubtful or _elapsed() - asked >= STALE.total_seconds()


@contextlib.contextmanager
def locked(
    backend: Writer,
    kind: LockKind,
    operation: str,
    *,
    sink: Sink = ignore,
    watch: float = WATCH,
    refresh: float = REFRESH,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Lock]:
    """Hold a lock for the block.

    Args:
        operation: the command, for whoever is refused because of it.
        sink: hears of dead locks that were removed.
        watch: seconds a lock that looks dead is watched. refresh: seconds between refreshes.

    Raises:
        LockedError: somebody else is working here; who, what, since when, and what to do.
    """
    lock = _acquire(backend, kind, operation, sink, watch, refresh, pause)
    try:
        yield lock
    finally:
        lock.release()


def _acquire(
    backend: Writer,
    kind: LockKind,
    operation: str,
    sink: Sink,
    watch: float,
    refresh: float,
    pause: Callable[[float], None],
) -> Lock:
    """Write one's own lock, list again, decide: of two that start at once at least one sees the other."""
    hindering: list[HeldLock] = []
    for attempt in range(TRIES):
        if attempt:
            pause(random.uniform(0.05, 0.15) * (attempt + 1))
        hindering = _clear(backend, kind, sink, watch, pause)
        if hindering:
            if any(_is_young(lock) for lock in hindering):
                continue
            break
        name = f"{FOLDER}/{os.urandom(16).hex()}.json"
        now = _now()
        document = LockDocument(kind=kind, operation=operation, owner=this_process(), started=now, refreshed=now)
        backend.write(name, encode(document))
        try:
            hindering = [
                lock for lock in read_locks(backend) if lock.name != Path(name).name and _conflicts(lock, kind)
            ]
        except BaseException:
            backend.remove(name)
            raise
        if not hindering:
            return Lock(backend, name, document, refresh)
        backend.remove(name)
    raise LockedError(
        f"{backend.location} is in use: {hindering[0].text}.",
        hint="Wait until it has ended. If you are sure that it is not running any more: liferaft unlock --all.",
        reasons=tuple(f"{backend.location} is in use: {lock.text}." for lock in hindering),
    )


def _clear(backend: Writer, kind: LockKind, sink: Sink, watch: float, pause: Callable[[float], None]) -> list[HeldLock]:
    """Remove dead locks that hinder; those that are left hinder."""
    hindering = [lock for lock in read_locks(backend) if _conflicts(lock, kind)]
    verdicts = {lock.name: judge(lock.document) for lock in hindering}
    suspects = [lock for lock in hindering if verdicts[lock.name] is Verdict.SUSPECT]
    # Watching is of no use while somebody else is certainly at work.
    if suspects and Verdict.ALIVE not in verdicts.values():
        sink(
            Event(
                stage=Stage.PROBE,
                message=f"A lock looks dead ({suspects[0].text}); watching it for {format_duration(watch)}",
            )
        )
        pause(watch)
        now = {lock.name: lock for lock in read_locks(backend)}
        for lock in suspects:
            verdicts[lock.name] = Verdict.DEAD if now.get(lock.name, lock) == lock else Verdict.ALIVE
    for lock in hindering:
        if verdicts[lock.name] is Verdict.DEAD:
            _remove(backend, lock, sink)
    return [lock for lock in hindering if verdicts[lock.name] is not Verdict.DEAD]


def unlock(backend: Writer, *, everything: bool) -> tuple[tuple[HeldLock, ...], tuple[HeldLock, ...]]:
    """Remove locks.

    Args:
        everything: those of living owners, too; else only those of certainly dead ones.

    Returns:
        removed, left.
    """
    removed: list[HeldLock] = []
    left: list[HeldLock] = []
    for lock in read_locks(backend):
        if everything or judge(lock.document) is Verdict.DEAD:
            backend.remove(f"{FOLDER}/{lock.name}")
            removed.append(lock)
        else:
            left.append(lock)
    return tuple(removed), tuple(left)


def read_locks(backend: Reader) -> tuple[HeldLock, ...]:
    """All locks; one that goes away meanwhile is left out."""
    found: list[HeldLock] = []
    for name in backend.list(FOLDER):
        if not _NAME.fullmatch(name):
            continue
        try:
            data = backend.read(f"{FOLDER}/{name}", _LIMIT)
        except MissingFileError:
            continue
        try:
            document = decode_stored(data, LockDocument, name=name)
        except DamagedError:
            found.append(HeldLock(name, None))
            continue
        found.append(HeldLock(name, document))
    return tuple(found)


def judge(document: LockDocument | None) -> Verdict:
    """Whether a lock's owner lives, as far as one can know from here."""
    if document is None:
        # Torn by a power cut on a filesystem that reorders; nobody refreshes it, which watching shows.
        return Verdict.SUSPECT
    owner, here = document.owner, this_process()
    if owner.boot and (owner.boot, owner.pids) == (here.boot, here.pids):
        if _process_start(owner.pid) == owner.process_start:
            return Verdict.ALIVE
        return Verdict.SUSPECT if _is_hidden(owner.pid) else Verdict.DEAD
    rebooted = owner.machine and (owner.machine, owner.host) == (here.machine, here.host) and owner.boot != here.boot
    if rebooted:
        # Clones of one machine share these names, so it is not quite certain.
        return Verdict.SUSPECT
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(document.refreshed)
    except (ValueError, TypeError):
        return Verdict.SUSPECT
    return Verdict.SUSPECT if age > STALE else Verdict.ALIVE


def this_process() -> Owner:
    """The owner of locks made here."""
    return Owner(
        host=socket.gethostname(),
        machine=_line("/etc/machine-id"),
        boot=_line("/proc/sys/kernel/random/boot_id"),
        pids=_link("/proc/self/ns/pid"),
        pid=os.getpid(),
        process_start=_process_start(os.getpid()),
    )


def _is_young(lock: HeldLock) -> bool:
    """Whether its owner may have started at this very moment and may be stepping back from us."""
    if lock.document is None:
        return False
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(lock.document.started)
    except (ValueError, TypeError):
        return False
    return abs(age) < _YOUNG


def _conflicts(lock: HeldLock, kind: LockKind) -> bool:
    return kind is LockKind.EXCLUSIVE or lock.document is None or lock.document.kind is LockKind.EXCLUSIVE


def _remove(backend: Writer, lock: HeldLock, sink: Sink) -> None:
    backend.remove(f"{FOLDER}/{lock.name}")
    sink(Event(stage=Stage.PROBE, message=f"Removed the lock of a process that is gone: {lock.text}", warning=True))


def _process_start(pid: int) -> int:
    """When a process started, in ticks since boot (proc_pid_stat(5), field 22); 0 when there is none.

    The second field is a name in parentheses that may hold anything, so fields are counted from its end.
    """
    words = _line(f"/proc/{pid}/stat").rpartition(")")[2].split()
    # A zombie holds nothing any more, and waits only for its parent.
    return int(words[19]) if len(words) > 19 and words[0] != "Z" else 0


def _is_hidden(pid: int) -> bool:
    """Whether it runs though /proc does not show it: mounted with hidepid that hides other users' (proc(5))."""
    if _process_start(pid):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _line(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - not a path but a name like pid:[4026531836]
    except OSError:
        return ""


def _elapsed() -> float:
    """Seconds, those in which the machine was asleep included (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
