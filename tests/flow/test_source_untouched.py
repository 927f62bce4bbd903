"""The source is never written (DESIGN §3.1): bytes, times and the modes in which it is opened. Several disks at once.

The disk ring counts the writes that reach a real block device.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import DeviceError, LiferaftError, UsageError
from core.events import Event, ignore
from core.process import SystemRunner
from images.store.check import Depth, check
from rescue.jobs.capture import capture_disks
from tests.flow.disks import DISKS, MIB
from tests.flow.small import noise_disk, opened, restored

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_TRUNC | os.O_CREAT
#: Files that are watched, and how they were opened. Python cannot take an audit hook away again.
_watched: dict[str, list[int]] = {}
_hooked: list[bool] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _watched and isinstance(arguments[0], (str, bytes, os.PathLike)):
        found = _watched.get(os.path.abspath(os.fsdecode(arguments[0])))
        if found is not None and isinstance(arguments[2], int):
            found.append(arguments[2])


@contextlib.contextmanager
def untouched(*paths: Path) -> Iterator[None]:
    """Files that must be as they were: opened for reading only, the same bytes and times."""
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked.append(True)
    before = [_state(path) for path in paths]
    _watched.update({str(path.absolute()): [] for path in paths})
    try:
        yield
    finally:
        opens = [_watched.pop(str(path.absolute())) for path in paths]
    for path, state, flags in zip(paths, before, opens, strict=True):
        assert flags, f"{path} was not even opened"
        assert not any(flag & _WRITING for flag in flags), flags
        assert _state(path) == state


def _state(path: Path) -> tuple[int, int, int, str]:
    found = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(MIB):
            digest.update(piece)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, digest.hexdigest()


def test_the_watch_sees_writers(tmp_path: Path) -> None:
    file = noise_disk(tmp_path / "disk.img")
    for mode in ("r+b", "ab"):
        with pytest.raises(AssertionError):
            with untouched(file):
                file.open(mode).close()
    with pytest.raises(AssertionError, match="not even opened"):
        with untouched(file):
            pass


@pytest.mark.parametrize("kind", sorted(DISKS))
def test_a_capture_leaves_a_file_alone(tmp_path: Path, tree: Path, kind: str) -> None:
    disk = DISKS[kind](tmp_path / "disk.img", tree)
    with untouched(disk):
        capture_disks(
            [disk], str(tmp_path / "repo"), name="", runner=SystemRunner(), sink=ignore, digest_list=tmp_path / "list"
        )


def test_a_capture_that_fails_leaves_a_file_alone(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.total:
            raise DeviceError("stopped")

    disk = noise_disk(tmp_path / "disk.img", mebibytes=8)
    with untouched(disk), pytest.raises(LiferaftError, match="stopped"):
        capture_disks([disk], str(tmp_path / "repo"), name="", runner=SystemRunner(), sink=stop)
    os.truncate(disk, 5 * MIB)
    with untouched(disk), pytest.raises(LiferaftError, match="expected inside 10240 sectors"):
        capture_disks([disk], str(tmp_path / "repo"), name="", runner=SystemRunner(), sink=ignore)


def test_several_disks_are_one_recovery_point_and_share_chunks(tmp_path: Path) -> None:
    disks = [noise_disk(tmp_path / "a.img"), noise_disk(tmp_path / "b.img", seed=2, mebibytes=5)]
    content = bytearray(disks[1].read_bytes())
    # The first MiB of both partitions is the same: a chunk of the same noise.
    content[MIB : 2 * MIB] = disks[0].read_bytes()[MIB : 2 * MIB]
    disks[1].write_bytes(content)
    listed = tmp_path / "list"
    with untouched(*disks):
        result = _capture(disks, tmp_path / "repo", listed)
    repository = opened(tmp_path / "repo")
    manifest = repository.manifest(result)
    assert [disk.path for disk in manifest.layout.disks] == [str(disk) for disk in disks]
    assert [volume.id for volume in manifest.volumes] == ["disk0-head", "disk0-part1", "disk1-head", "disk1-part1"]
    for disk in manifest.layout.disks:
        volumes = tuple(volume for volume in manifest.volumes if volume.disk == disk.id)
        found = bytearray(disk.size)
        for volume in volumes:
            for slot in repository.slots(volume, volume.id):
                if slot.id is not None:
                    plain = repository.read_chunk(slot.id, volume.id)
                    at = volume.offset + slot.number * repository.chunk_size
                    found[at : at + len(plain)] = plain
        assert bytes(found) == Path(disk.path).read_bytes()
    # 2 + 4 MiB of noise of which 1 is shared; heads and pages are small.
    stored = sum(path.stat().st_size for path in (tmp_path / "repo" / "packs").rglob("*.pack"))
    assert 5 * MIB < stored < 5 * MIB + MIB // 4
    # One of them alone, with the list of both.
    alone = _capture(disks[1:], tmp_path / "repo", listed)
    assert restored(opened(tmp_path / "repo"), alone) == disks[1].read_bytes()
    assert sum(path.stat().st_size for path in (tmp_path / "repo" / "packs").rglob("*.pack")) == stored
    assert check(opened(tmp_path / "repo"), Depth(data=True), sink=ignore).damages == ()


def test_a_disk_named_twice_is_refused(tmp_path: Path) -> None:
    disk = noise_disk(tmp_path / "disk.img")
    (tmp_path / "link").symlink_to(disk)
    with pytest.raises(UsageError, match="named twice"):
        _capture([disk, tmp_path / "link"], tmp_path / "repo", tmp_path / "list")
    assert not (tmp_path / "repo").exists()


def _capture(disks: list[Path], repo: Path, listed: Path) -> str:
    return capture_disks(disks, str(repo), name="n", runner=SystemRunner(), sink=ignore, digest_list=listed).id
