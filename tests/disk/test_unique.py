"""A restored machine with identities of its own: real filesystems on a loop disk, blkid as the witness. Needs root."""

import os
import shutil
from pathlib import Path

import pytest

from core.errors import RefusedError
from core.events import ignore
from core.process import SystemRunner
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from restore.plan.steps import CreateTable, MakeUnique
from restore.unique.renewal import Sort
from tests.disk.test_loop_disks import loop
from tests.flow.disks import MIB, blank, need, partition_file, run

ROOT, SWAP, FAT, NTFS, XFS, BTRFS = range(6)
#: Start and size of each partition, MiB.
PLACES = ((1, 64), (65, 16), (81, 40), (121, 32), (153, 320), (473, 128))
SIZE = 608 * MIB
OLD_UUID = {
    ROOT: "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2a001",
    SWAP: "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2a002",
    FAT: "ABCD-1234",
    XFS: "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2a005",
    BTRFS: "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2a006",
}
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"


def _system(folder: Path) -> Path:
    """Files of a machine, as far as they name its identities, and the one program it has to run: ssh-keygen."""
    for name in ("etc/ssh", "usr/lib", "boot/grub", "var/lib/systemd", "dev", "proc", "sys", "run", "mnt"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/fstab").write_text(
        f"UUID={OLD_UUID[ROOT]} / ext4 defaults 0 1\nUUID={OLD_UUID[SWAP]} none swap sw 0 0\n"
        f"UUID={OLD_UUID[XFS]} /mnt xfs defaults 0 0\n"
        # What no kernel mounts, as a volume that was not closed; it is not needed.
        f"UUID={OLD_UUID[SWAP]} /data auto nofail 0 0\n"
    )
    (folder / "usr/lib/os-release").write_text('ID=debian\nPRETTY_NAME="Debian of the test"\n')
    (folder / "boot/grub/grub.cfg").write_text(f"search --no-floppy --fs-uuid --set=root {OLD_UUID[ROOT]}\n")
    (folder / "etc/machine-id").write_text("0" * 31 + "1\n")
    (folder / "var/lib/systemd/random-seed").write_bytes(b"seed")
    program = Path("/usr/bin/ssh-keygen")
    for line in run("ldd", program).splitlines():
        for word in (word for word in line.split() if word.startswith("/")):
            (folder / word[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, folder / word[1:])
    (folder / "usr/bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(program, folder / "usr/bin")
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / HOST_KEY)
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    if os.geteuid() != 0:
        pytest.skip("loop devices and mounts need root")
    need("mke2fs", "mkswap", "mkfs.fat", "mkntfs", "mkfs.xfs", "mkfs.btrfs", "tune2fs", "swaplabel", "mlabel", "blkid",
         "ntfslabel", "xfs_admin", "btrfstune", "ssh-keygen")  # fmt: skip
    folder = tmp_path_factory.mktemp("unique")
    disk = blank(folder / "source.img", SIZE)
    run("sfdisk", "-q", disk, stdin="label: gpt\n" + "".join(f"start={a}MiB,size={b}MiB\n" for a, b in PLACES))
    tree = _system(folder / "tree")
    made = [folder / f"part{number}" for number in range(6)]
    for path, (_, size) in zip(made, PLACES, strict=True):
        path.touch()
        os.truncate(path, size * MIB)
    run("mke2fs", "-q", "-t", "ext4", "-U", OLD_UUID[ROOT], "-d", tree, made[ROOT])
    run("mkswap", "-U", OLD_UUID[SWAP], made[SWAP])
    run("mkfs.fat", "-F", "32", "-s", "1", "-i", "ABCD1234", made[FAT])
    run("mkntfs", "-F", "-Q", made[NTFS])
    run("mkfs.xfs", "-q", "-m", f"uuid={OLD_UUID[XFS]}", made[XFS])
    run("mkfs.btrfs", "-q", "-U", OLD_UUID[BTRFS], made[BTRFS])
    for path, (start, _) in zip(made, PLACES, strict=True):
        run("dd", f"if={path}", f"of={disk}", "bs=1M", f"seek={start}", "conv=notrunc,sparse", "status=none")
    repo = str(folder / "repo")
    capture_disks([disk], repo, name="", runner=SystemRunner(), sink=ignore)
    return repo, folder


def _uuid(path: Path) -> str:
    return run("blkid", "--probe", "-s", "UUID", "-o", "value", path).strip()


def test_a_clone_shares_no_identity_with_its_source(repository: tuple[str, Path], tmp_path: Path) -> None:
    repo, folder = repository
    runner = SystemRunner()
    target = blank(tmp_path / "target.img", SIZE)
    with loop(target) as node:
        plan = plan_restore(repo, "latest", [node], RestoreChoices(unique=True), runner)
        report = run_plan(plan, plan.digest, runner, ignore)
    (warning,) = report.warnings
    assert "/data (UUID=" in warning and "could not be mounted: mount failed" in warning
    assert any("new SSH host keys (" in line and "ed25519" in line for line in report.boot)
    step = next(step for step in plan.steps if isinstance(step, MakeUnique))
    table = next(step.table for step in plan.steps if isinstance(step, CreateTable))
    new = {renewal.number - 1: renewal.new for renewal in step.renewals if renewal.sort is Sort.FILESYSTEM}
    assert set(new) == set(range(6))
    for number, (start, size) in enumerate(PLACES):
        part = partition_file(target, start * MIB, size * MIB)
        assert _uuid(part) == new[number]
        assert new[number] != OLD_UUID.get(number)
    assert f"label-id: {table.identifier.upper()}" in run("sfdisk", "--dump", target)
    root = partition_file(target, PLACES[ROOT][0] * MIB, PLACES[ROOT][1] * MIB)
    run("e2fsck", "-f", "-n", root)
    shown = {name: run("debugfs", "-R", f"cat /{name}", root) for name in ("etc/fstab", "boot/grub/grub.cfg")}
    assert shown["etc/fstab"] == (
        f"UUID={new[ROOT]} / ext4 defaults 0 1\nUUID={new[SWAP]} none swap sw 0 0\n"
        f"UUID={new[XFS]} /mnt xfs defaults 0 0\nUUID={new[SWAP]} /data auto nofail 0 0\n"
    )
    assert new[ROOT] in shown["boot/grub/grub.cfg"] and OLD_UUID[ROOT] not in shown["boot/grub/grub.cfg"]
    machine = next(renewal.new for renewal in step.renewals if renewal.sort is Sort.MACHINE)
    assert run("debugfs", "-R", "cat /etc/machine-id", root) == f"{machine}\n"
    key = run("debugfs", "-R", f"cat /{HOST_KEY}", root)
    assert "OPENSSH PRIVATE KEY" in key and key != (folder / "tree" / HOST_KEY).read_text()
    assert "random-seed" not in run("debugfs", "-R", "ls /var/lib/systemd", root)


def test_doing_it_again_changes_nothing(repository: tuple[str, Path], tmp_path: Path) -> None:
    repo, _ = repository
    runner = SystemRunner()
    with loop(blank(tmp_path / "target.img", SIZE)) as node:
        plan = plan_restore(repo, "latest", [node], RestoreChoices(unique=True), runner)
        run_plan(plan, plan.digest, runner, ignore)
        first = run("sfdisk", "--dump", node)
        run_plan(plan, plan.digest, runner, ignore)
        assert run("sfdisk", "--dump", node) == first


def test_windows_keeps_its_identity(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("FUSE mounts need root")
    need("ntfs-3g", "fusermount3")
    disk = blank(tmp_path / "windows.img", 64 * MIB)
    run("sfdisk", "-q", disk, stdin="label: gpt\nstart=1MiB,size=40MiB\n")
    part = tmp_path / "part"
    part.touch()
    os.truncate(part, 40 * MIB)
    run("mkntfs", "-F", "-Q", part)
    place = tmp_path / "mount"
    place.mkdir()
    run("ntfs-3g", part, place)
    try:
        hive = place / "Windows/System32/config/SYSTEM"
        hive.parent.mkdir(parents=True)
        hive.write_bytes(b"regf")
    finally:
        run("umount", place)
    run("dd", f"if={part}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc", "status=none")
    runner, repo = SystemRunner(), str(tmp_path / "repo")
    capture_disks([disk], repo, name="", runner=runner, sink=ignore)
    with pytest.raises(RefusedError, match="holds Windows"):
        plan_restore(repo, "latest", [blank(tmp_path / "t.img", 64 * MIB)], RestoreChoices(unique=True), runner)
