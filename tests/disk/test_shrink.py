"""Restoring to smaller disks: fragmented filesystems, made smaller on an overlay, come back whole and checked.

Files are compared by digest as the kernel (ntfs-3g for NTFS) gives them, the results are judged by the filesystems'
own checkers. Neither the image that was captured nor the repository may change by a byte.
"""

import contextlib
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.events import ignore
from core.process import SystemRunner
from images.model.layout import FilesystemKind
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from restore.plan.plan import Plan
from restore.plan.steps import ShrinkVolume
from restore.report import Report
from tests.flow.disks import MIB, blank, need, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounting need root")

START = MIB


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """How a filesystem is made, mounted and judged; ``{}`` stands for the node or file. ``size`` of its disk, MiB."""

    name: FilesystemKind
    make: str
    mount: str
    check: str
    type: str
    size: int = 320
    filled: float = 0.60

    @property
    def smaller(self) -> int:
        """Bytes of a disk that is 35 % smaller."""
        return self.size * 65 // 100 * MIB


KINDS = {
    "ext4": Kind(
        name=FilesystemKind.EXT4,
        make="mke2fs -q -t ext4 -L root {}",
        mount="mount {}",
        check="e2fsck -f -n {}",
        type="L",
    ),
    "ext2-1k": Kind(
        name=FilesystemKind.EXT2,
        make="mke2fs -q -t ext2 -b 1024 {}",
        mount="mount {}",
        check="e2fsck -f -n {}",
        type="L",
        size=100,
    ),
    "ntfs": Kind(
        name=FilesystemKind.NTFS,
        make="mkntfs -q -F -f -L data {}",
        mount="ntfs-3g {}",
        check="ntfsresize --check --force --force --no-progress-bar {}",
        type="EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
        size=160,
    ),
    # Chunks of data have at least 32 MiB on such a small one, and half of them are full: it is filled less.
    "btrfs": Kind(
        name=FilesystemKind.BTRFS,
        make="mkfs.btrfs -q -f {}",
        mount="mount {}",
        check="btrfs check --readonly --check-data-csum {}",
        type="L",
        size=640,
        filled=0.15,
    ),
}


@contextlib.contextmanager
def partition(disk: Path, start: int, size: int, *options: str) -> Iterator[str]:
    node = run("losetup", "--find", "--show", f"--offset={start}", f"--sizelimit={size}", *options, disk).strip()
    try:
        yield node
    finally:
        run("losetup", "--detach", node)


@contextlib.contextmanager
def mounted(kind: Kind, node: str, folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    run(*kind.mount.format(node).split(), folder, *options)
    try:
        yield folder
    finally:
        run("umount", folder)


def fill(folder: Path, wanted: float) -> None:
    """Many files, every other one deleted, and larger ones written into the holes."""
    rng = random.Random(11)

    def used() -> float:
        found = os.statvfs(folder)
        return 1 - found.f_bfree / found.f_blocks

    def write(name: str, size: int) -> None:
        with (folder / name).open("wb") as stream:
            stream.write(rng.randbytes(size))

    (folder / "deep/er").mkdir(parents=True)
    number = 0
    while used() < wanted:
        where = "deep/er/" if number % 3 else ""
        write(f"{where}file{number}", rng.choice([700, 5000, 60_000, 250_000]))
        number += 1
        if number % 50 == 0:
            run("sync", "-f", folder)
    for gone in range(0, number, 2):
        (folder / (f"deep/er/file{gone}" if gone % 3 else f"file{gone}")).unlink()
    run("sync", "-f", folder)
    again = 0
    while used() < wanted:
        write(f"again{again}", rng.choice([40_000, 900_000]))
        again += 1
        if again % 10 == 0:
            run("sync", "-f", folder)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digest_of(path: Path) -> str:
    """One file, or a whole folder with its names."""
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    whole = hashlib.sha256()
    for item in files:
        whole.update(f"{item.name}\0{item.stat().st_size}\0".encode())
        with item.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()


def make_disk(path: Path, kind: Kind, work: Path) -> dict[str, str]:
    """A disk with one filled filesystem from 1 MiB to its end; returns the digests of its files."""
    with path.open("wb") as stream:
        stream.truncate(kind.size * MIB)
    run("sfdisk", "-q", path, stdin=f"label: gpt\nfirst-lba: 34\nstart=2048,type={kind.type},name=data\n")
    size = (kind.size - 2) * MIB
    with partition(path, START, size) as node:
        run(*kind.make.format(node).split())
        with mounted(kind, node, work) as folder:
            fill(folder, kind.filled)
            return digests(folder)


def restore(repo: Path, target: Path, choices: RestoreChoices | None = None) -> tuple[Plan, Report]:
    runner = SystemRunner()
    plan = plan_restore(str(repo), "latest", [target], choices or RestoreChoices(), runner)
    return plan, run_plan(plan, plan.digest, runner, ignore)


def shrinking(plan: Plan) -> ShrinkVolume:
    return next(step for step in plan.steps if isinstance(step, ShrinkVolume))


@pytest.mark.parametrize("name", KINDS)
def test_a_fragmented_filesystem_comes_back_on_a_disk_35_percent_smaller(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    need("losetup", "sfdisk", "fusermount3", *(words.split()[0] for words in (kind.make, kind.mount, kind.check)))
    source, repo, target = tmp_path / "source.img", tmp_path / "repo", tmp_path / "target.img"
    files = make_disk(source, kind, tmp_path / "mounted")
    assert len(files) > 100
    capture_disks([source], str(repo), name="", runner=SystemRunner(), sink=ignore)
    before = digest_of(source), digest_of(repo)

    blank(target, kind.smaller)
    plan, report = restore(repo, target)

    step = shrinking(plan)
    assert step.kind is kind.name
    assert step.offset + step.size <= kind.smaller < source.stat().st_size
    assert report.verified
    assert (digest_of(source), digest_of(repo)) == before, "the source or the repository was written"
    with partition(target, step.offset, step.size) as node:
        run(*kind.check.format(node).split())
        with mounted(kind, node, tmp_path / "mounted", "-o", "ro") as folder:
            assert digests(folder) == files
    if kind.name is FilesystemKind.NTFS:
        assert any("Windows will check" in warning for warning in report.warnings)
        copy_of_boot_sector(target, step)


def copy_of_boot_sector(target: Path, step: ShrinkVolume) -> None:
    """Windows looks for the copy of the boot sector in the last sector of the partition."""
    with target.open("rb") as stream:
        stream.seek(step.offset)
        first = stream.read(512)
        stream.seek(step.offset + step.size - 512)
        assert stream.read(512) == first
