"""Several processes at work in one repository at once: real processes, real locks."""

import json
import subprocess
import sys
from pathlib import Path

from core.events import ignore
from images.store.check import Depth, check
from tests.flow.small import CHUNK, make, noise_disk, opened, restored

ROOT = Path(__file__).parents[2]
_MAIN = "from rescue.cli.main import main; main()"
#: Before it: a pack gets all its bytes, and never its name.
_FOR_EVER = """
import contextlib, time
from images.store.backend import LocalBackend
create = LocalBackend.create

@contextlib.contextmanager
def unfinished(self, name):
    with create(self, name) as stream:
        yield stream
        print("here", flush=True)
        time.sleep(600)

LocalBackend.create = unfinished
"""


def start(*words: str | Path, program: str = _MAIN) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *(str(word) for word in words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_captures_of_several_machines_at_once_share_chunks(tmp_path: Path) -> None:
    """Three machines from one mould, two chunks of their own each; they start together, and one comes later."""
    folder = make(tmp_path / "repo")
    disks = [noise_disk(tmp_path / f"{name}.img", changed=(3 * name, 3 * name + 1)) for name in range(4)]
    running = [start("capture", disk, "--repo", folder, "--name", disk.stem, "--json") for disk in disks[:3]]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode in (0, 4), said
    late = start("capture", disks[3], "--repo", folder, "--name", "3", "--json")
    result = json.loads(late.communicate(timeout=60)[0])
    # What others have is not stored again: two chunks and one page of its own.
    assert result["new_records"] == 3
    assert 2 * CHUNK < result["stored"] < 3 * CHUNK
    repository = opened(folder)
    assert {point.name for point in repository.points()} == {"0", "1", "2", "3"}
    for point in repository.points():
        assert restored(repository, point.id) == disks[int(point.name)].read_bytes()
    assert check(repository, Depth(data=True), sink=ignore).damages == ()
    assert not list((folder / "locks").iterdir())


def test_capture_and_prune_at_once(tmp_path: Path) -> None:
    """Whoever comes second is refused or waits its turn; whatever the outcome, everything listed restores."""
    folder = make(tmp_path / "repo")
    disks = [noise_disk(tmp_path / f"{name}.img", seed=name, mebibytes=6) for name in range(2)]
    first = start("capture", disks[0], "--repo", folder, "--name", "0")
    first.communicate(timeout=60)
    assert first.returncode in (0, 4)
    running = [start("capture", disks[1], "--repo", folder, "--name", "1"), start("prune", "--repo", folder)]
    codes = []
    for process in running:
        _, said = process.communicate(timeout=60)
        codes.append(process.returncode)
        assert process.returncode in (0, 3, 4), said
    assert codes != [3, 3], "both were refused"
    repository = opened(folder)
    for point in repository.points():
        assert restored(repository, point.id) == disks[int(point.name)].read_bytes()
    assert check(repository, Depth(data=True), sink=ignore).damages == ()
    assert not list((folder / "locks").iterdir())


def test_a_capture_that_was_killed_hinders_nobody_for_long(tmp_path: Path) -> None:
    """kill -9 in the middle: its lock is that of a dead process, prune removes it and collects what it left."""
    folder = make(tmp_path / "repo")
    process = start("capture", noise_disk(tmp_path / "disk.img"), "--repo", folder, program=_FOR_EVER + _MAIN)
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    process.kill()
    process.communicate()
    assert list((folder / "locks").iterdir()) and list(folder.rglob("*.pack.partial"))
    prune = start("prune", "--repo", folder)
    _, said = prune.communicate(timeout=60)
    assert prune.returncode == 0, said
    assert "Removed the lock of a process that is gone" in said
    assert not [path for path in folder.rglob("*") if path.suffix in (".pack", ".partial", ".index")]
    assert not list((folder / "locks").iterdir())
