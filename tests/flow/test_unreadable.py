"""A dying disk: capture goes on, says what is lost and whose it is, and the rest comes back whole."""

import errno
import os
from pathlib import Path

import pytest

from core.errors import DamagedError, DeviceError, ExitCode
from core.events import Event
from core.process import SystemRunner
from images.browse.holders import Holder
from images.model.extents import Extent
from rescue.jobs.capture import capture_disks
from rescue.jobs.lost import lost_in
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from tests.flow.disks import MIB, blank, gpt_disk, need, run

ROOT_START, SECTOR = 67584, 512


class BadSectors:
    """Makes reads of chosen LBAs of one file fail as a disk's do; every other read is real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.bad: set[int] = set()
        self.failures = 0
        self._identity = os.stat(path).st_ino
        real = os.pread

        def pread(descriptor: int, length: int, offset: int) -> bytes:
            sectors = range(offset // SECTOR, -(-(offset + length) // SECTOR))
            if self.bad and os.fstat(descriptor).st_ino == self._identity and not self.bad.isdisjoint(sectors):
                self.failures += 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(descriptor, length, offset)

        monkeypatch.setattr(os, "pread", pread)


def _lba_of(disk: Path, path: str, tmp_path: Path) -> int:
    """Where debugfs says the first block of a file of the ext4 lies."""
    image = tmp_path / "root.ext4"
    with disk.open("rb") as source:
        source.seek(ROOT_START * SECTOR)
        image.write_bytes(source.read(262144 * SECTOR))
    block = int(run("debugfs", "-R", f"bmap {path} 0", image).strip())
    size = int(run("dumpe2fs", "-h", image).split("Block size:")[1].split()[0])
    image.unlink()
    return ROOT_START + block * size // SECTOR


@pytest.fixture
def disk(tmp_path: Path, tree: Path) -> Path:
    need("debugfs", "dumpe2fs")
    (tree / "letter.txt").write_bytes(b"my own data " * 4000)
    return gpt_disk(tmp_path / "source.img", tree)


def _capture(disk: Path, repo: Path, said: list[Event]) -> tuple[str, tuple[str, ...]]:
    taken = capture_disks((disk,), str(repo), name="dying", runner=SystemRunner(), sink=said.append)
    return taken.id, taken.warnings


def test_lost_sectors_and_their_files(tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lba = _lba_of(disk, "/letter.txt", tmp_path)
    broken = BadSectors(monkeypatch, disk)
    broken.bad = {lba + 3, lba + 4}
    said: list[Event] = []
    point, warnings = _capture(disk, tmp_path / "repo", said)
    assert broken.failures > 0
    assert any("letter.txt" in warning and "2 sectors" in warning for warning in warnings)
    assert any(f"LBA {lba + 3} to {lba + 4} cannot be read" in event.message for event in said)
    (loss,) = lost_in(str(tmp_path / "repo"), point)
    assert (loss.volume, loss.size, loss.notes) == ("disk0-part2", 2 * SECTOR, ())
    assert loss.files == (Holder(path="/letter.txt", ranges=(Extent(3 * SECTOR, 5 * SECTOR),)),)
    # Everything else comes back, byte for byte.
    broken.bad = set()
    target = blank(tmp_path / "target.img", disk.stat().st_size)
    plan = plan_restore(str(tmp_path / "repo"), point, [target], RestoreChoices(boot=BootChoice.NO), SystemRunner())
    assert any("could not be read" in note for note in plan.notes)
    run_plan(plan, plan.digest, SystemRunner(), said.append)
    start = ROOT_START * SECTOR
    old, new = (path.read_bytes()[start:] for path in (disk, target))
    at = (lba - ROOT_START) * SECTOR
    length = len(b"my own data " * 4000)
    expected = bytearray(old[at : at + length])
    expected[3 * SECTOR : 5 * SECTOR] = bytes(2 * SECTOR)
    assert new[at : at + length] == bytes(expected)


def test_the_second_capture_of_a_disk_that_recovered(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = BadSectors(monkeypatch, disk)
    broken.bad = {_lba_of(disk, "/letter.txt", tmp_path)}
    _capture(disk, tmp_path / "repo", [])
    broken.bad = set()
    point, warnings = _capture(disk, tmp_path / "repo", [])
    assert warnings == ()
    assert lost_in(str(tmp_path / "repo"), point) == ()


def test_unreadable_metadata_means_the_whole_volume(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = BadSectors(monkeypatch, disk)
    # The first block group's descriptors lie in the second block of the filesystem.
    broken.bad = {ROOT_START + 8}
    _, warnings = _capture(disk, tmp_path / "repo", [])
    assert any("disk0-part2 is captured whole" in warning for warning in warnings)
    assert any("disk0-part2: " in warning and "could not be read" in warning for warning in warnings)


def test_an_unreadable_table_is_said_clearly(tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = BadSectors(monkeypatch, disk)
    broken.bad = {0}
    with pytest.raises((DeviceError, DamagedError), match=r"at 0 cannot be read"):
        _capture(disk, tmp_path / "repo", [])
    assert DeviceError.code == ExitCode.FAILED
    assert disk.stat().st_size > 100 * MIB
