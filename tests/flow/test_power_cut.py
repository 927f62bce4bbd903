"""The power is cut at every write of a capture, a prune, a forget, a copy, a repair: every listed recovery point
restores, nothing but garbage is left, and doing it again completes (DESIGN §3.7, §3.8)."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import DeviceError
from core.events import ignore
from images.store.backend import LocalBackend, NewFile
from images.store.catalogue import CATALOGUE
from images.store.check import Depth, check, check_and_repair
from images.store.copy import copy_points
from images.store.create import open_or_create
from images.store.findings import CheckResult
from images.store.forget import forget
from images.store.locks import LockKind, locked, unlock
from images.store.prune import plan_only, prune
from images.store.rebuild import rebuild_indexes
from images.store.repository import Repository
from images.store.usage import Limit
from tests.flow.cuts import CuttableBackend, PowerCutError, Unlisting
from tests.flow.small import CHUNK, access, make, noise_disk, opened, restored, take, take_into

#: What works on a repository: an open one whose backend may lose power.
Work = Callable[[Repository], object]
KINDS = pytest.mark.parametrize("encrypted, parity, step", [(False, 0, 1), (True, 2, 5)], ids=["plain", "sealed"])


class Lab:
    """A repository of a few recovery points, and what each of them must restore to, by name."""

    def __init__(self, folder: Path, *, encrypted: bool, parity: int, step: int) -> None:
        self.base = folder
        self.encrypted = encrypted
        self.parity = parity
        self.step = step
        self.disks: dict[str, Path] = {}
        self.start = make(folder / "start", encrypted=encrypted, parity=parity)

    def disk(self, name: str, *, seed: int = 1, changed: tuple[int, ...] = (), mebibytes: int = 2) -> Path:
        self.disks[name] = noise_disk(self.base / f"{name}.img", seed=seed, changed=changed, mebibytes=mebibytes)
        return self.disks[name]

    def take(self, name: str, *, seed: int = 1, changed: tuple[int, ...] = ()) -> str:
        return take(self.start, self.disk(name, seed=seed, changed=changed), name, encrypted=self.encrypted)

    def open(self, backend: LocalBackend) -> Repository:
        return Repository(backend, access(encrypted=self.encrypted))

    def everything_restores(self, folder: Path) -> set[str]:
        """All listed recovery points, by folder and by catalogue, are what was captured. Their names."""
        repository = opened(folder, encrypted=self.encrypted)
        assert repository.read_points()[1] == ()
        for seen in (repository, self.open(Unlisting(folder))):
            for point in seen.points():
                assert restored(seen, point.id) == self.disks[point.name].read_bytes(), point.name
        return {point.name for point in repository.points()}

    def nothing_is_damaged(self, folder: Path) -> CheckResult:
        result = check(opened(folder, encrypted=self.encrypted), Depth(data=True), sink=ignore)
        assert result.harmless, result.damages
        assert {damage.kind.value for damage in result.damages} <= {"catalogue"}, result.damages
        return result

    def cut_everywhere(self, work: Work, before: set[str], after: set[str]) -> CheckResult:
        """Cut the power at every change, or every ``step``-th. Returns the last check of the finished work."""
        cut = 1
        while True:
            folder = self.base / f"cut{cut}"
            shutil.copytree(self.start, folder)
            backend = CuttableBackend(folder, cut)
            finished = False
            with contextlib.suppress(PowerCutError):
                work(self.open(backend))
                finished = True
            names = self.everything_restores(folder)
            assert names >= before & after, (cut, names)
            assert names <= before | after, (cut, names)
            self.nothing_is_damaged(folder)
            # The machine that comes back has another boot id (test_locks.py); here it is the same process still.
            unlock(LocalBackend(folder), everything=True)
            work(self.open(LocalBackend(folder)))
            assert self.everything_restores(folder) == after, cut
            result = self.nothing_is_damaged(folder)
            assert result.damages == (), (cut, result.damages)
            shutil.rmtree(folder)
            if finished:
                assert cut > 3 * self.step, "the work changed nothing worth cutting"
                return result
            cut += self.step


def _lab(tmp_path: Path, encrypted: bool, parity: int, step: int) -> Lab:
    return Lab(tmp_path, encrypted=encrypted, parity=parity, step=step)


@KINDS
def test_capture(tmp_path: Path, encrypted: bool, parity: int, step: int) -> None:
    lab = _lab(tmp_path, encrypted, parity, step)
    lab.take("old")
    disk = lab.disk("new", changed=(2, 3, 9))
    lab.cut_everywhere(lambda repository: take_into(repository, disk, "new"), {"old"}, {"old", "new"})


@KINDS
def test_forget(tmp_path: Path, encrypted: bool, parity: int, step: int) -> None:
    lab = _lab(tmp_path, encrypted, parity, min(step, 2))
    first = lab.take("first")
    second = lab.take("second", changed=(4,))
    lab.take("third", changed=(5,))

    def work(repository: Repository) -> None:
        with locked(repository.backend, LockKind.SHARED, "forget") as lock:  # type: ignore[arg-type]
            forget(repository, (first, second), lock)

    lab.cut_everywhere(work, {"first", "second", "third"}, {"third"})


def _prune(repository: Repository) -> None:
    with locked(repository.backend, LockKind.EXCLUSIVE, "prune") as lock:  # type: ignore[arg-type]
        prune(repository, Limit(share=0), lock, sink=ignore)


@KINDS
def test_prune(tmp_path: Path, encrypted: bool, parity: int, step: int) -> None:
    """One pack to delete, one to rewrite, one to keep, one that no index names, and a half-written file."""
    lab = _lab(tmp_path, encrypted, parity, step)
    gone = [lab.take("gone"), lab.take("stranger", seed=7)]
    lab.take("kept", changed=tuple(range(4, 13)))
    lab.take("kept too", changed=(1, 2))
    repository = opened(lab.start, encrypted=encrypted)
    with locked(LocalBackend(lab.start), LockKind.SHARED, "forget") as lock:
        forget(repository, tuple(gone), lock)
    stray = lab.start / "packs" / "aa" / f"{'aa' * 16}.pack"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(bytes(100))
    (lab.start / "packs" / "bb.pack.partial").write_bytes(bytes(100))
    planned = plan_only(opened(lab.start, encrypted=encrypted), Limit(share=0), sink=ignore)
    assert (planned.deleted, planned.rewritten, planned.strays) == (1, 1, 2)
    result = lab.cut_everywhere(_prune, {"kept", "kept too"}, {"kept", "kept too"})
    assert (result.garbage.packs, result.garbage.records, result.garbage.leftovers, result.garbage.strays) == (0,) * 4


@KINDS
def test_copy(tmp_path: Path, encrypted: bool, parity: int, step: int) -> None:
    """Into a repository that has one of two recovery points; from a plain one, so that a sealed one gets new ids."""
    lab = _lab(tmp_path, encrypted, parity, step)
    source = make(tmp_path / "source")
    ids = [take(source, lab.disk("one"), "one"), take(source, lab.disk("two", changed=(3,)), "two")]
    copy_points(opened(source), opened(lab.start, encrypted=encrypted), (ids[0],), sink=ignore)

    def work(repository: Repository) -> None:
        copy_points(opened(source), repository, tuple(ids), sink=ignore)

    lab.cut_everywhere(work, {"one"}, {"one", "two"})


@KINDS
def test_repair(tmp_path: Path, encrypted: bool, parity: int, step: int) -> None:
    """A damaged index whose records are found again in the packs."""
    lab = _lab(tmp_path, encrypted, parity, max(step, 2))
    lab.take("one")
    lab.take("two", changed=(3,))
    index = max((lab.start / "indexes").iterdir(), key=lambda path: path.stat().st_size)
    start, lab.start = lab.start, tmp_path / "damaged"
    shutil.copytree(start, lab.start)
    data = bytearray((lab.start / "indexes" / index.name).read_bytes())
    data[-40] ^= 1
    (lab.start / "indexes" / index.name).write_bytes(data)
    assert not check(opened(lab.start, encrypted=encrypted), Depth(), sink=ignore).harmless

    def work(repository: Repository) -> None:
        with locked(repository.backend, LockKind.EXCLUSIVE, "check") as lock:  # type: ignore[arg-type]
            check_and_repair(repository, Depth(), lock, sink=ignore)

    # Until the repair is done some do not restore, so only its end is looked at.
    cut, finished = 1, False
    while not finished:
        folder = tmp_path / f"cut{cut}"
        shutil.copytree(lab.start, folder)
        with contextlib.suppress(PowerCutError):
            work(lab.open(CuttableBackend(folder, cut)))
            finished = True
        unlock(LocalBackend(folder), everything=True)
        work(lab.open(LocalBackend(folder)))
        assert lab.everything_restores(folder) == {"one", "two"}, cut
        assert lab.nothing_is_damaged(folder).damages == (), cut
        cut += lab.step
    assert cut > 8


@KINDS
def test_rebuild(tmp_path: Path, encrypted: bool, parity: int, step: int) -> None:
    lab = _lab(tmp_path, encrypted, parity, min(step, 2))
    lab.take("one")
    lab.take("two", changed=(3,))

    def work(repository: Repository) -> None:
        with locked(repository.backend, LockKind.EXCLUSIVE, "rebuild-index") as lock:  # type: ignore[arg-type]
            rebuild_indexes(repository, lock, prove=False, sink=ignore)

    lab.cut_everywhere(work, {"one", "two"}, {"one", "two"})


def test_a_full_destination_keeps_what_is_stored(tmp_path: Path) -> None:
    """Running out of space in the middle: a clear error, and the next try does not start from nothing."""

    class Full(LocalBackend):
        room = 11

        @contextlib.contextmanager
        def create(self, name: str) -> Iterator[NewFile]:
            with super().create(name) as stream:
                yield _Filling(self, stream)

    class _Filling:
        def __init__(self, backend: Full, stream: NewFile) -> None:
            self._backend, self._stream = backend, stream

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self._backend.room -= 1
            if self._backend.room < 0:
                raise OSError(28, "No space left on device")
            self._stream.write(data)

        def tell(self) -> int:
            return self._stream.tell()

    folder, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img")
    with pytest.raises(DeviceError, match="No space left") as caught:
        take(Full(folder), disk)
    assert "again" in caught.value.hint
    assert opened(folder).points() == ()
    kept = sum(path.stat().st_size for path in (folder / "packs").rglob("*.pack"))
    assert kept > 4 * CHUNK
    point = take(folder, disk)
    assert restored(opened(folder), point) == disk.read_bytes()
    assert sum(path.stat().st_size for path in (folder / "packs").rglob("*.pack")) < disk.stat().st_size
    assert (folder / CATALOGUE).exists()


def test_a_torn_pack_is_not_counted_on(tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    open_or_create(LocalBackend(folder))
    stray = folder / "packs" / "aa" / f"{'aa' * 16}.pack"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(bytes(1 << 20))
    disk = noise_disk(tmp_path / "disk.img")
    assert restored(opened(folder), take(folder, disk)) == disk.read_bytes()
