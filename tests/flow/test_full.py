"""A destination that is full at any moment of a capture: what is stored is kept, and the next run goes on from there.

The disk ring has the same on a real filesystem; here every size of the destination is tried.
"""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import DeviceError, ExitCode
from core.events import Event, ignore
from core.units import KIB, MIB
from images.capture import CaptureResult, capture
from images.model.layout import DiskIdentity
from images.room import too_little_room, with_what_is_missing
from images.sources import open_source
from images.store import writer
from images.store.backend import FullError, LocalBackend, NewFile
from images.store.check import Depth, check
from images.store.repository import Repository
from images.survey import survey_disk
from tests.flow.small import CHUNK, access, make, noise_disk, opened, restored


class Quota(LocalBackend):
    """A folder that takes so many bytes of files, as the sizes of its files add up; a write that does not fit is torn.

    Args:
        says: whether it can be asked how much room is left (a user's quota cannot).
    """

    def __init__(self, folder: Path, limit: int, *, says: bool) -> None:
        super().__init__(folder)
        self.limit = limit
        self.says = says
        self._lock = threading.Lock()

    def left(self) -> int:
        return self.limit - sum(self.sizes("").values()) - sum(map(self._size_of, self.leftovers()))

    def _size_of(self, name: str) -> int:
        # The parity of a pack is written meanwhile: its partial file may have got its name or be gone.
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).stat().st_size
        return 0

    def free(self) -> int | None:
        return max(0, self.left()) if self.says else None

    def write(self, name: str, content: bytes) -> None:
        with self._lock:
            if self.left() < len(content):
                raise FullError(f"{name} cannot be written: No space left on device.")
            super().write(name, content)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[NewFile]:
        with super().create(name) as file:
            yield _Metered(self, file, self.folder / f"{name}.partial")


class _Metered:
    def __init__(self, backend: Quota, file: NewFile, partial: Path) -> None:
        self._backend, self._file, self._partial = backend, file, partial

    def write(self, data: bytes | bytearray | memoryview) -> None:
        room = self._backend.left()
        if room < len(data):
            # What the kernel does: as much as there is room for arrives.
            with self._partial.open("r+b") as stream:
                stream.seek(self._file.tell())
                stream.write(bytes(data)[: max(0, room)])
            raise OSError(28, "No space left on device")
        self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def cut(self, size: int) -> None:
        self._file.cut(size)  # type: ignore[attr-defined]


def _take(backend: LocalBackend, disk: Path, encrypted: bool, said: list[Event] | None = None) -> CaptureResult:
    with open_source(disk) as source:
        return capture(
            Repository(backend, access(encrypted=encrypted)),
            (survey_disk(source, "disk0", DiskIdentity()),),
            name="n",
            origin="o",
            machine=None,
            tool="t",
            sink=ignore if said is None else said.append,
            threads=1,
        )


def _packs(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "packs").rglob("*.pack"))


@pytest.mark.parametrize("says", [True, False], ids=["statvfs", "quota"])
@pytest.mark.parametrize("parity", [0, 2], ids=["no-parity", "parity"])
def test_full_at_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: bool, parity: int) -> None:
    """Packs of 512 KiB, so that some are complete when there is no room left for the next."""
    monkeypatch.setattr(writer, "PACK_SIZE_LIMIT", 512 * KIB)
    monkeypatch.setattr(writer, "_SPARE", 8 * KIB)
    disk = noise_disk(tmp_path / "disk.img")
    start = make(tmp_path / "start", encrypted=bool(parity), parity=parity)
    needed = _take(LocalBackend(shutil.copytree(start, tmp_path / "whole")), disk, bool(parity)).stored
    limit, failures = 40 * KIB, 0
    while True:
        folder = tmp_path / f"at{limit}"
        shutil.copytree(start, folder)
        try:
            _take(Quota(folder, limit, says=says), disk, bool(parity))
            break
        except FullError as error:
            failures += 1
            assert error.code is ExitCode.FAILED
            assert "No space left" in error.message
            assert "missing" in error.message
            assert "again" in error.hint or not says
        assert not list(folder.rglob("*.partial"))
        assert all(path.stat().st_size > 64 for path in folder.rglob("*.pack")), "a pack of nothing but its header"
        assert opened(folder, encrypted=bool(parity)).points() == ()
        result = check(opened(folder, encrypted=bool(parity)), Depth(data=True), sink=ignore)
        assert {damage.kind.value for damage in result.damages} <= {"parity", "catalogue"}, result.damages
        kept = _packs(folder)
        # All but a few chunks of what there was room for is there …
        assert kept > limit * 0.7 - 6 * CHUNK
        # … and counts: the next run stores the rest and nothing twice.
        again = _take(LocalBackend(folder), disk, bool(parity))
        assert again.stored <= needed - kept + 8 * KIB, (limit, kept)
        assert restored(opened(folder, encrypted=bool(parity)), again.id) == disk.read_bytes()
        shutil.rmtree(folder)
        limit += 170 * KIB
    assert failures > 8


def test_the_estimate_is_the_ratio_so_far() -> None:
    error = FullError("R cannot be written: No space left on device.", hint="h")
    told = with_what_is_missing(error, left=300 * MIB, read=100 * MIB, stored=40 * MIB)
    assert told.message == (
        "R cannot be written: No space left on device. About 120.00 MiB are missing, by estimate: "
        "300.00 MiB are left to read, and of what was read so far 40 % had to be stored."
    )
    assert (told.hint, told.code) == ("h", ExitCode.FAILED)
    # Headers make a little more of noise than there was, which is no ratio; and of nothing nobody knows one.
    assert "About 300.00 MiB" in with_what_is_missing(error, left=300 * MIB, read=MIB, stored=2 * MIB).message
    assert "nothing is known yet" in with_what_is_missing(error, left=300 * MIB, read=0, stored=0).message
    assert "All is read" in with_what_is_missing(error, left=0, read=MIB, stored=MIB).message


def test_how_much_is_missing_counts_from_where_the_last_run_stopped(tmp_path: Path) -> None:
    """Noise is stored as it is; the first MiB of the disk is a table and zeros, which take nothing."""
    folder, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img", mebibytes=5)
    # 2 of 3 MiB had to be stored, 2 are left; then nothing of what was stored before counts: 1 of 1, 1 is left.
    for limit, expected in ((2 * MIB, 2 * 2 / 3), (3 * MIB, 1)):
        with pytest.raises(FullError) as caught:
            _take(Quota(folder, limit, says=True), disk, False)
        number, unit = caught.value.message.split("About ")[1].split(" ")[:2]
        assert unit == "MiB"
        assert float(number) == pytest.approx(expected, abs=0.2)


def test_obviously_too_little_room_is_said_before(tmp_path: Path) -> None:
    folder, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img")
    said: list[Event] = []
    with pytest.raises(FullError):
        _take(Quota(folder, 600 * KIB, says=True), disk, False, said)
    told = next(event for event in said if "hardly be enough" in event.message)
    assert told.warning
    assert said.index(told) < next(number for number, event in enumerate(said) if event.total)
    # Something is stored now: how much more is needed is not obvious any more.
    assert too_little_room(Repository(Quota(folder, 600 * KIB, says=True)), 30 * MIB) == ""
    empty = make(tmp_path / "empty")
    assert too_little_room(Repository(Quota(empty, 20 * MIB, says=True)), 30 * MIB) == ""
    assert too_little_room(Repository(Quota(empty, 5 * MIB, says=False)), 30 * MIB) == ""
    assert "has room for 5.00 MiB" in too_little_room(Repository(Quota(empty, 5 * MIB + 1024, says=True)), 30 * MIB)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_pack_that_cannot_even_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Its header is what finds no room: what lies in the packs before it counts, and no empty one is left."""
    monkeypatch.setattr(writer, "PACK_SIZE_LIMIT", 512 * KIB)

    class Third(LocalBackend):
        packs = 0

        @contextlib.contextmanager
        def create(self, name: str) -> Iterator[NewFile]:
            with super().create(name) as file:
                self.packs += 1
                if self.packs == 3:
                    monkeypatch.setattr(file, "write", _refuse(code))
                yield file

    folder, disk = make(tmp_path / "repo"), noise_disk(tmp_path / "disk.img")
    with pytest.raises(DeviceError, match=os.strerror(code)) as caught:
        _take(Third(folder), disk, False)
    assert isinstance(caught.value, FullError) is (code in (errno.ENOSPC, errno.EDQUOT))
    assert len(list(folder.rglob("*.pack"))) == 2
    assert not list(folder.rglob("*.partial"))
    needed = _take(LocalBackend(make(tmp_path / "whole")), disk, False).stored
    assert _take(LocalBackend(folder), disk, False).stored <= needed - 12 * CHUNK
    assert restored(opened(folder), opened(folder).points()[0].id) == disk.read_bytes()


def _refuse(code: int) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        raise OSError(code, os.strerror(code))

    return write
