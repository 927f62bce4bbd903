"""A medium for arm64, built on whatever this machine is: it starts under Secure Boot, its wizard restores a disk."""

import filecmp
import json
import random
import re
import time
from pathlib import Path

from core.process import Runner
from core.units import MIB
from tests.arm64.machine import ArmMachine
from tests.boot.console import Console
from tests.boot.machine import Controller, Drive, Firmware
from tests.boot.restoring import TARGET_SERIAL, liferaft
from tests.boot.server import RepositoryServer
from tests.boot.wizard import WizardDriver

_F2 = "\x1bOQ"
#: Seconds from power-on to the wizard, for a restore, and for what a key brings: all of it is emulated, two processors
#: on two that have other work, too. The kernel's complaints of soft lockups, which that brings, do not stop it.
_BOOT, _RESTORE, _PATIENCE = 1800.0, 1200.0, 400.0
_DISK, _PARTITION = 256 * MIB, 128 * MIB
_NAME = "arm64-disk"
_TABLE = f"label: gpt\nstart=2048, size={_PARTITION // 512}, type=linux, name=data\n"


def _source(folder: Path, runner: Runner) -> tuple[Path, Path]:
    """A disk with one ext4 filesystem on it, and the folder with the files that are in it."""
    tree, disk, volume = folder / "tree", folder / "source.raw", folder / "volume.raw"
    random.seed(64)
    for number in range(40):
        path = tree / f"folder{number % 4}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.randbytes(number * 30_011))
    for path, size in ((disk, _DISK), (volume, _PARTITION)):
        with path.open("wb") as stream:
            stream.truncate(size)
    runner.run(["mke2fs", "-q", "-t", "ext4", "-L", "data", "-d", str(tree), str(volume)])
    runner.run(["sfdisk", "--quiet", str(disk)], stdin=_TABLE)
    with disk.open("r+b") as stream:
        stream.seek(MIB)
        stream.write(volume.read_bytes())
    return disk, tree


def _identities(disk: Path, runner: Runner) -> tuple[str, str, int]:
    """sfdisk's view: the disk's GUID, its partition's, and the partition's size in sectors."""
    table = json.loads(runner.run(["sfdisk", "--json", str(disk)]).stdout)["partitiontable"]
    (part,) = table["partitions"]
    return table["id"], part["uuid"], part["size"]


def _in_a_shell(console: Console, command: str) -> str:
    """What a command says in the wizard's shell."""
    console.send(_F2)
    console.expect("A root shell", _PATIENCE)
    console.send(f"echo said=$({command})=end\r")
    # What is typed is echoed first: that has the command in it.
    said = console.expect(r"said=([^$(\n]*)=end", _PATIENCE).group(1)
    console.send("exit\r")
    return said


def _check_restored(target: Path, tree: Path, folder: Path, runner: Runner) -> None:
    """e2fsck and debugfs say what is on the target; the partition has grown with the disk."""
    table = json.loads(runner.run(["sfdisk", "--json", str(target)]).stdout)["partitiontable"]
    (part,) = table["partitions"]
    volume, out = folder / "restored.raw", folder / "out"
    with target.open("rb") as stream, volume.open("wb") as copy:
        stream.seek(part["start"] * 512)
        copy.write(stream.read(part["size"] * 512))
    runner.run(["e2fsck", "-f", "-n", str(volume)])
    out.mkdir()
    runner.run(["debugfs", "-R", f"rdump / {out}", str(volume)], timeout=120)
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    _, differ, missing = filecmp.cmpfiles(tree, out, names, shallow=False)
    assert not differ and not missing, (differ, missing)


def test_it_starts_under_secure_boot_and_restores(iso: Path, tmp_path: Path, runner: Runner) -> None:
    disk, tree = _source(tmp_path, runner)
    repository, target = tmp_path / "repo", tmp_path / "target.raw"
    liferaft(["capture", str(disk), "--repo", str(repository), "--name", _NAME], runner)
    with target.open("wb") as stream:
        stream.truncate(2 * _DISK)
    drives = (Drive(iso, Controller.CDROM, readonly=True), Drive(target, Controller.VIRTIO, TARGET_SERIAL))
    machine = ArmMachine("arm64", Firmware.UEFI, drives, memory=1024, secure_boot=True)
    with RepositoryServer(repository, tmp_path) as server, machine.run() as running:
        console = running.console
        console.wait_screen(lambda rows: any("Rescue system" in row for row in rows), "the wizard", _BOOT)
        print(f"{time.monotonic() - running.started:.0f} s from power-on to the wizard")
        said = _in_a_shell(console, "uname -m; cat /run/liferaft/medium-check; mokutil --sb-state; tty")
        assert re.split(r"\s+", said) == ["aarch64", "whole", "SecureBoot", "enabled", "/dev/ttyAMA0"]
        console.wipe()
        wizard = WizardDriver(console, _PATIENCE)
        print("\n".join(wizard.restore(server.url("repo"), _NAME, TARGET_SERIAL, _RESTORE)))
        wizard.power_off()
        print(f"{running.wait_off(_PATIENCE):.0f} s from power-on until it was off")
    assert _identities(target, runner)[:2] == _identities(disk, runner)[:2]
    assert _identities(target, runner)[2] > _identities(disk, runner)[2]
    _check_restored(target, tree, tmp_path, runner)
