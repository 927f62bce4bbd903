"""The power is cut at every write of a capture: every listed recovery point restores (DESIGN §3.7)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from core.errors import DeviceError
from core.events import ignore
from images.capture import capture
from images.model.layout import DiskIdentity
from images.sources import open_source
from images.store.backend import LocalBackend
from images.store.connect import connect
from images.store.repository import CATALOGUE, Repository
from images.store.writer import open_or_create
from images.survey import survey_disk
from restore.planner import survey_chunks
from tests.flow.disks import MIB, gpt_disk, put_ext


class PowerCutError(BaseException):
    """Not an error that anything may handle."""


class CuttableBackend(LocalBackend):
    """A folder whose machine loses power at the ``cut``-th write: what was not synced by then is lost or half there."""

    def __init__(self, folder: Path, cut: int) -> None:
        super().__init__(folder)
        self.cut = cut
        self.writes = 0

    def _count(self) -> None:
        self.writes += 1
        if self.writes >= self.cut:
            raise PowerCutError

    def write(self, name: str, content: bytes) -> None:
        self._count()
        if self.writes + 1 >= self.cut:
            path = self.folder / f"{name}.partial"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[: len(content) // 2])
        self._count()
        super().write(name, content)
        self._count()

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        self._count()
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as stream:
            yield _Cuttable(self, stream)  # type: ignore[misc]
        self._count()
        partial.rename(path)
        self._count()


class _Cuttable:
    def __init__(self, backend: CuttableBackend, stream: BinaryIO) -> None:
        self._backend = backend
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._backend._count()
        return self._stream.write(data)

    def tell(self) -> int:
        return self._stream.tell()


def _capture(repository: Repository, disk: Path) -> str:
    with open_source(disk) as source:
        surveys = (survey_disk(source, "disk0", DiskIdentity()),)
        taken = capture(repository, surveys, name="n", origin="o", machine=None, tool="t", sink=ignore, threads=1)
    return taken.id


def _every_chunk_is_readable(folder: Path) -> int:
    """All recovery points that are listed, read to the last chunk. Returns how many there are."""
    repository = Repository(connect(str(folder)))
    points = repository.points()
    for point in points:
        manifest = repository.manifest(point.id)
        survey_chunks(repository, point.id, manifest)
        for volume in manifest.volumes:
            for slot in repository.slots(volume, "check"):
                if slot.id is not None:
                    repository.read_chunk(slot.id, "check")
    return len(points)


@pytest.fixture
def disks(tmp_path: Path, tree: Path) -> tuple[Path, Path]:
    """The same small disk before and after a change."""
    first = gpt_disk(tmp_path / "first.img", tree)
    second = tmp_path / "second.img"
    second.write_bytes(first.read_bytes())
    put_ext(second, 67584 * 512, 262144 * 512, tree / "etc")
    return first, second


def test_power_cut_at_every_write(tmp_path: Path, disks: tuple[Path, Path]) -> None:
    first, second = disks
    cut = 1
    while True:
        folder = tmp_path / f"repo{cut}"
        _capture(open_or_create(LocalBackend(folder)), first)
        backend = CuttableBackend(folder, cut)
        repository = Repository(backend)
        try:
            with pytest.MonkeyPatch.context() as patch:
                # The power is gone: nothing tidies up after it.
                patch.setattr("images.store.writer.RepositoryWriter.checkpoint", _gone)
                patch.setattr("images.store.writer.RepositoryWriter.abandon", _gone)
                _capture(repository, second)
            finished = True
        except PowerCutError:
            finished = False
        listed = _every_chunk_is_readable(folder)
        assert listed in ((2,) if finished else (1, 2)), cut
        assert not [name for name in (folder / "manifests").iterdir() if name.suffix == ".partial" and finished]
        # Doing it again is harmless, and completes.
        _capture(open_or_create(LocalBackend(folder)), second)
        assert _every_chunk_is_readable(folder) == listed + 1
        if finished:
            break
        cut += 1
    assert cut > 20


def _gone(self: object) -> None:
    raise PowerCutError


def test_a_full_destination_keeps_what_is_stored(tmp_path: Path, disks: tuple[Path, Path]) -> None:
    """Running out of space in the middle: a clear error, and the next try does not start from nothing."""

    class Full(LocalBackend):
        room = 11

        @contextlib.contextmanager
        def create(self, name: str) -> Iterator[BinaryIO]:
            with super().create(name) as stream:
                yield _Filling(self, stream)  # type: ignore[misc]

    class _Filling:
        def __init__(self, backend: Full, stream: BinaryIO) -> None:
            self._backend, self._stream = backend, stream

        def write(self, data: bytes) -> int:
            self._backend.room -= 1
            if self._backend.room < 0:
                raise OSError(28, "No space left on device")
            return self._stream.write(data)

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

    folder = tmp_path / "repo"
    open_or_create(LocalBackend(folder))
    with pytest.raises(DeviceError, match="No space left") as caught:
        _capture(Repository(Full(folder)), disks[0])
    assert "again" in caught.value.hint
    assert _every_chunk_is_readable(folder) == 0
    kept = sum(path.stat().st_size for path in (folder / "packs").rglob("*.pack"))
    assert kept > 0
    _capture(open_or_create(LocalBackend(folder)), disks[0])
    assert _every_chunk_is_readable(folder) == 1
    assert (folder / CATALOGUE).exists()


def test_a_torn_pack_is_not_counted_on(tmp_path: Path, disks: tuple[Path, Path]) -> None:
    folder = tmp_path / "repo"
    open_or_create(LocalBackend(folder))
    stray = folder / "packs" / "aa" / f"{'aa' * 16}.pack"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"\0" * MIB)
    _capture(open_or_create(LocalBackend(folder)), disks[0])
    assert _every_chunk_is_readable(folder) == 1
