"""Locks: who bears whom, who is dead, and two that start at once."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from core.documents import encode
from core.errors import ExitCode
from core.events import Event
from images.store.backend import LocalBackend
from images.store.locks import (
    LockDocument,
    LockedError,
    LockKind,
    LockLostError,
    Owner,
    Verdict,
    judge,
    locked,
    read_locks,
    this_process,
    unlock,
)

SHARED, EXCLUSIVE = LockKind.SHARED, LockKind.EXCLUSIVE


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path)


def document(owner: Owner, *, kind: LockKind = EXCLUSIVE, age: timedelta = timedelta()) -> LockDocument:
    then = (datetime.now(UTC) - age).isoformat(timespec="seconds")
    return LockDocument(kind=kind, operation="prune", owner=owner, started=then, refreshed=then)


def plant(backend: LocalBackend, lock: LockDocument, number: int = 1) -> str:
    name = f"locks/{number:032x}.json"
    backend.write(name, encode(lock))
    return name


ELSEWHERE = msgspec.structs.replace(this_process(), host="elsewhere", machine="f" * 32, boot="another")


def no_pause(seconds: float) -> None:
    """Time is not spent."""


def test_shared_locks_bear_each_other_and_are_gone_afterwards(backend: LocalBackend) -> None:
    with locked(backend, SHARED, "capture"), locked(backend, SHARED, "copy"):
        assert sorted(lock.document.operation for lock in read_locks(backend) if lock.document) == ["capture", "copy"]
    assert read_locks(backend) == ()


@pytest.mark.parametrize("held, asked", [(SHARED, EXCLUSIVE), (EXCLUSIVE, SHARED), (EXCLUSIVE, EXCLUSIVE)])
def test_a_conflict_names_who_what_and_since_when(backend: LocalBackend, held: LockKind, asked: LockKind) -> None:
    with locked(backend, held, "prune"):
        with pytest.raises(LockedError) as caught:
            with locked(backend, asked, "capture", pause=no_pause):
                pytest.fail("it was let in")
        assert len(read_locks(backend)) == 1, "the one that was refused left its lock behind"
    owner = this_process()
    assert caught.value.code is ExitCode.REFUSED
    for word in ("prune", owner.host, str(owner.pid), datetime.now(UTC).strftime("%Y-%m-%d")):
        assert word in caught.value.message
    assert "unlock" in caught.value.hint


def test_a_lock_is_released_when_the_work_fails(backend: LocalBackend) -> None:
    with pytest.raises(ValueError, match="broken"), locked(backend, EXCLUSIVE, "prune"):
        raise ValueError("broken")
    assert read_locks(backend) == ()


def test_the_owner_of_another_process(backend: LocalBackend) -> None:
    """A real process that is killed: alive, then certainly dead, then its lock is removed and that is said."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from images.store.backend import LocalBackend\n"
        "from images.store.locks import LockKind, locked\n"
        "with locked(LocalBackend(Path(sys.argv[2])), LockKind.EXCLUSIVE, 'prune'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    root = str(Path(__file__).parents[4])
    words = [sys.executable, "-c", code, root, str(backend.folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        (lock,) = read_locks(backend)
        assert lock.document is not None
        assert lock.document.owner.pid == process.pid
        assert judge(lock.document) is Verdict.ALIVE
        process.kill()
    assert judge(lock.document) is Verdict.DEAD
    heard: list[Event] = []
    with locked(backend, EXCLUSIVE, "prune", sink=heard.append, pause=pytest.fail):
        assert [event.warning for event in heard] == [True]
        assert str(process.pid) in heard[0].message


def test_a_process_number_that_was_given_to_another_is_dead() -> None:
    here = this_process()
    other = msgspec.structs.replace(here, process_start=here.process_start + 1)
    assert judge(document(here)) is Verdict.ALIVE
    assert judge(document(other)) is Verdict.DEAD


def test_a_process_that_proc_hides_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc with hidepid=2 has no folder for other users' processes, kill(2) says EPERM: it must not count as dead."""
    theirs = msgspec.structs.replace(this_process(), pid=2**22 + 1)
    monkeypatch.setattr(os, "kill", _kill(PermissionError))
    assert judge(document(theirs)) is Verdict.SUSPECT
    monkeypatch.setattr(os, "kill", _kill(ProcessLookupError))
    assert judge(document(theirs)) is Verdict.DEAD


def _kill(error: type[OSError]) -> Callable[[int, int], None]:
    def kill(pid: int, signal: int) -> None:
        assert (pid, signal) == (2**22 + 1, 0)
        raise error

    return kill


def test_a_number_that_is_no_process_s_is_dead() -> None:
    for pid in (2**40, 2**31):
        assert judge(document(msgspec.structs.replace(this_process(), pid=pid))) is Verdict.DEAD


def test_a_container_counts_its_own_processes() -> None:
    """The same number in another pid namespace says nothing: only time does."""
    other = msgspec.structs.replace(this_process(), pids="pid:[1]", pid=2**22 + 1)
    assert judge(document(other)) is Verdict.ALIVE
    assert judge(document(other, age=timedelta(minutes=31))) is Verdict.SUSPECT


@pytest.mark.parametrize(
    "owner, minutes, verdict",
    [
        (ELSEWHERE, 29, Verdict.ALIVE),
        (ELSEWHERE, 31, Verdict.SUSPECT),
        # A clock that is behind ours, or ahead: the future is not stale.
        (ELSEWHERE, -600, Verdict.ALIVE),
        (msgspec.structs.replace(this_process(), boot="before the power cut"), 0, Verdict.SUSPECT),
    ],
)
def test_verdicts(owner: Owner, minutes: int, verdict: Verdict) -> None:
    assert judge(document(owner, age=timedelta(minutes=minutes))) is verdict


def test_a_suspect_is_watched_before_it_is_removed(backend: LocalBackend) -> None:
    plant(backend, document(ELSEWHERE, age=timedelta(hours=2)))
    waited: list[float] = []
    with locked(backend, EXCLUSIVE, "prune", pause=waited.append, watch=90.0):
        assert waited == [90.0]
        assert len(read_locks(backend)) == 1


def test_a_suspect_that_is_refreshed_meanwhile_lives(backend: LocalBackend) -> None:
    """Its clock is two hours behind; its file changes all the same."""
    old = document(ELSEWHERE, age=timedelta(hours=2))
    name = plant(backend, old)

    def refresh(seconds: float) -> None:
        later = datetime.fromisoformat(old.refreshed) + timedelta(seconds=seconds)
        backend.write(name, encode(msgspec.structs.replace(old, refreshed=later.isoformat())))

    with pytest.raises(LockedError, match="elsewhere"), locked(backend, EXCLUSIVE, "prune", pause=refresh):
        pytest.fail("it was let in")
    assert backend.exists(name)


def test_a_lock_that_cannot_be_read_hinders_until_it_was_watched(backend: LocalBackend) -> None:
    backend.write(f"locks/{5:032x}.json", b'{"kind": "exclu')
    waited: list[float] = []
    with locked(backend, SHARED, "capture", pause=waited.append):
        assert len(waited) == 1


def test_files_that_are_no_locks_are_left_alone(backend: LocalBackend) -> None:
    backend.write("locks/._x.json", b"macOS")
    with locked(backend, EXCLUSIVE, "prune"):
        pass
    assert backend.exists("locks/._x.json")


def test_the_refresher_refreshes_and_does_not_revive(backend: LocalBackend) -> None:
    with locked(backend, EXCLUSIVE, "prune", refresh=0.02) as lock:
        (first,) = read_locks(backend)
        assert first.document is not None
        aged = msgspec.structs.replace(first.document, refreshed="2001-01-01T00:00:00+00:00")
        backend.write(f"locks/{first.name}", encode(aged))
        deadline = time.monotonic() + 10
        while read_locks(backend)[0].document == aged and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_locks(backend)[0].document != aged
        lock.check()
        # Not in the middle of a refresh: that is the next test's.
        with lock._refreshing:
            backend.remove(f"locks/{first.name}")
        lock._thread.join(60)
        assert not lock._thread.is_alive() and read_locks(backend) == ()
        with pytest.raises(LockLostError, match="removed by somebody else"):
            lock.check()


class _Asleep(LocalBackend):
    """The machine falls asleep, or is cut off, in the middle of a refresh; meanwhile somebody removes its lock."""

    def __init__(self, folder: Path, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self._seconds = seconds
        self._slept = threading.Event()
        self._first = True
        self.revived = threading.Event()
        monkeypatch.setattr(
            time, "clock_gettime", lambda clock: self._seconds * (clock == time.CLOCK_BOOTTIME and self._slept.is_set())
        )

    def write(self, name: str, content: bytes) -> None:
        if not self._first and not self._slept.is_set():
            self._slept.set()
            self.remove(name)
            super().write(name, content)
            self.revived.set()
        elif self._first:
            self._first = False
            super().write(name, content)


def test_a_lock_that_was_revived_by_a_refresh_that_slept_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refresh asked whether the lock is there before it slept, and wrote it afterwards: somebody pruned between."""
    backend = _Asleep(tmp_path, 40 * 60, monkeypatch)
    with locked(backend, SHARED, "capture", refresh=0.01) as lock:
        assert backend.revived.wait(60)
        assert len(read_locks(backend)) == 1
        with pytest.raises(LockLostError):
            lock.check()


def test_a_slow_refresh_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may take a lock for dead that soon."""
    backend = _Asleep(tmp_path, 20 * 60, monkeypatch)
    with locked(backend, SHARED, "capture", refresh=0.01) as lock:
        assert backend.revived.wait(60)
        lock.check()


def test_many_that_start_at_once_never_work_together_and_somebody_does(backend: LocalBackend) -> None:
    inside, most, done = [0], [0], [0]
    guard, start = threading.Lock(), threading.Barrier(6)

    def work() -> None:
        start.wait()
        try:
            with locked(backend, EXCLUSIVE, "prune"):
                with guard:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.02)
                with guard:
                    inside[0] -= 1
                    done[0] += 1
        except LockedError:
            pass

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert most[0] == 1
    assert done[0] >= 1
    assert read_locks(backend) == ()


def test_unlock(backend: LocalBackend) -> None:
    dead = msgspec.structs.replace(this_process(), process_start=1)
    plant(backend, document(dead), 1)
    plant(backend, document(ELSEWHERE), 2)
    removed, left = unlock(backend, everything=False)
    assert [lock.name[-6] for lock in (*removed, *left)] == ["1", "2"]
    assert [lock.name[-6] for lock in unlock(backend, everything=True)[0]] == ["2"]
    assert read_locks(backend) == ()


def test_this_process() -> None:
    """Against what the kernel says elsewhere: ps(1) reads the same, /proc/uptime bounds it."""
    owner = this_process()
    ticks = os.sysconf("SC_CLK_TCK")
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 < owner.process_start / ticks <= uptime
    assert owner.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
