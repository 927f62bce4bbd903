"""Identities of odd but legal filesystems: renewed where their tools do it, refused in the plan where they do not."""

import os
from pathlib import Path

import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from images.model.layout import FilesystemKind
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore
from restore.unique.filesystem import identity, renew_filesystem
from restore.unique.renewal import Renewal, Sort
from tests.flow.disks import MIB, blank, need, run


def test_a_volume_that_ntfsresize_marked_is_renewed(tmp_path: Path) -> None:
    """A plan that grows it marks it for a check before it is renewed."""
    need("mkntfs", "ntfsresize", "ntfslabel", "blkid")
    volume = tmp_path / "ntfs"
    volume.touch()
    os.truncate(volume, 20 * MIB)
    run("mkntfs", "-q", "-F", "-Q", volume)
    os.truncate(volume, 30 * MIB)
    run("ntfsresize", "--force", "--no-progress-bar", volume)
    runner, new = SystemRunner(), "0123456789ABCDEF"
    old = identity(str(volume), runner)
    renewal = Renewal(sort=Sort.FILESYSTEM, disk="disk0", number=1, old=old, new=new, kind=FilesystemKind.NTFS)
    renew_filesystem(str(volume), renewal, runner)
    assert run("blkid", "--probe", "-s", "UUID", "-o", "value", volume).strip() == new
    # the mark stays: Windows still has its check
    assert "DIRTY" in run("ntfsinfo", "-m", "-f", volume)


def refused(disk: Path, tmp_path: Path) -> str:
    runner, repo = SystemRunner(), str(tmp_path / "repo")
    capture_disks([disk], repo, name="", runner=runner, sink=ignore)
    target = blank(tmp_path / "target", disk.stat().st_size)
    with pytest.raises(RefusedError) as caught:
        plan_restore(repo, "latest", [target], RestoreChoices(unique=True), runner)
    return "\n".join(caught.value.reasons)


def test_one_device_of_several_is_not_renewed(tmp_path: Path) -> None:
    """btrfstune stops half-way when it lacks the other devices."""
    need("mkfs.btrfs")
    one, other = (blank(tmp_path / name, 120 * MIB) for name in ("one", "other"))
    run("mkfs.btrfs", "-q", "-f", one, other)
    assert "holds btrfs, which keeps its identity: it lies on 2 devices" in refused(one, tmp_path)


def test_stable_inodes_keep_their_identity(tmp_path: Path) -> None:
    need("mke2fs")
    volume = tmp_path / "ext"
    run("mke2fs", "-q", "-t", "ext4", "-O", "stable_inodes", volume, "16M")
    assert "holds ext4, which keeps its identity" in refused(volume, tmp_path)


def test_an_xfs_whose_log_was_not_played_is_refused_in_the_plan(tmp_path: Path) -> None:
    need("mkfs.xfs", "xfs_db", "xfs_logprint")
    volume = tmp_path / "xfs"
    volume.touch()
    os.truncate(volume, 320 * MIB)
    run("mkfs.xfs", "-q", volume)
    start = _log_start(volume)
    with volume.open("r+b") as stream:
        # The flags of the first operation: it says "unmounted" no more (kernel, fs/xfs/libxfs/xfs_log_format.h).
        stream.seek(start + 512 + 9)
        stream.write(b"\0")
    assert "DIRTY" in run("xfs_logprint", "-t", volume, success=(0, 1))
    assert "holds xfs, which keeps its identity: its log needs recovery" in refused(volume, tmp_path)


def _log_start(volume: Path) -> int:
    """As xfs_db says it: bytes from the start of the volume."""
    said = run("xfs_db", "-r", "-c", "sb 0", "-c", "addr logstart", "-c", "daddr", volume)
    return int(said.split()[-1].strip("()")) * 512


def test_a_hibernated_windows_is_refused_in_the_plan(tmp_path: Path) -> None:
    need("mkntfs", "ntfscp")
    volume, memory = tmp_path / "ntfs", tmp_path / "hiberfil.sys"
    volume.touch()
    os.truncate(volume, 20 * MIB)
    run("mkntfs", "-q", "-F", "-Q", volume)
    memory.write_bytes(b"hibr" + bytes(8188))
    run("ntfscp", "-q", volume, memory, "hiberfil.sys")
    assert "holds ntfs, which keeps its identity" in refused(volume, tmp_path)
