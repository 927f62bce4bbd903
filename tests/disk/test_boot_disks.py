"""Boot repair where /boot or the ESP lies on another disk than the root. Real disks and mounts; programs of the system
that would be started in it are recorded instead, for it has none. Needs root.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.events import ignore
from core.process import Result, SystemRunner
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.plan.plan import Plan
from restore.plan.steps import RepairBoot
from restore.report import Report
from tests.flow.disks import MIB, blank, need, run

ROOT_UUID = "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2b001"
BOOT_UUID = "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2b002"
#: What is installed of GRUB: a file by which its platforms are known.
PLATFORMS = ("i386-pc", "x86_64-efi")
TABLES = {
    BootChoice.BIOS: "label: dos\nstart=1MiB, size=24MiB, type=83, bootable\n",
    BootChoice.UEFI: "label: gpt\nstart=1MiB, size=40MiB, type=U\n",
}
FSTABS = {BootChoice.BIOS: f"UUID={BOOT_UUID} /boot ext4", BootChoice.UEFI: "UUID=ABCD-1234 /boot/efi vfat"}


class Recording(SystemRunner):
    """Runs everything but what is started in the system, which is written down with the files it would have seen.

    This host's kernel need not know FAT: a copy of the files is mounted in its place.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._esp = folder / "esp"
        self.started: list[tuple[str, ...]] = []
        self.seen: set[str] = set()
        #: Files behind the disks that GRUB was installed on.
        self.installed: list[str] = []

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        if argv[0] == "mount" and "--bind" not in argv and self._is_fat(argv[-2]):
            self._esp.mkdir(exist_ok=True)
            super().run(["mcopy", "-s", "-n", "-i", argv[-2], "::/", str(self._esp)])
            return super().run(["mount", "--bind", str(self._esp), argv[-1]])
        if argv[0] != "chroot":
            return super().run(argv, **options)
        root = Path(argv[1])
        self.started.append(tuple(argv[2:]))
        if argv[2] == "grub-install" and "--target=i386-pc" in argv:
            words = ["losetup", "--noheadings", "--output", "BACK-FILE", argv[-1]]
            self.installed.append(super().run(words).stdout.strip())
        self.seen |= {str(path.relative_to(root)) for path in root.glob("boot/**/*")}
        return super().run(["true"])

    def _is_fat(self, node: str) -> bool:
        words = ["blkid", "--probe", "--match-tag", "TYPE", "--output", "value", node]
        return super().run(words, success=frozenset({0, 2})).stdout.strip() == "vfat"


def _files(folder: Path, fstab: str) -> Path:
    for name in ("etc", "usr/lib", "boot/efi", "dev", "proc", "sys", "run"):
        (folder / name).mkdir(parents=True)
    for platform in PLATFORMS:
        (folder / "usr/lib/grub" / platform).mkdir(parents=True)
        (folder / "usr/lib/grub" / platform / "modinfo.sh").touch()
    (folder / "etc/fstab").write_text(f"UUID={ROOT_UUID} / ext4 defaults 0 1\n{fstab} defaults 0 2\n")
    (folder / "usr/lib/os-release").write_text('ID=debian\nPRETTY_NAME="Debian of the test"\n')
    return folder


def _plan_and_run(disks: Sequence[Path], folder: Path, runner: Recording, boot: BootChoice) -> tuple[Plan, Report]:
    """Disks captured, and restored to files that are called as the disks, with .target."""
    repo = str(folder / "repo")
    capture_disks(disks, repo, name="", runner=runner, sink=ignore)
    targets = [blank(disk.with_suffix(".target"), 64 * MIB) for disk in disks]
    named = [f"disk{number}={path}" for number, path in enumerate(targets)]
    plan = plan_restore(repo, "latest", named, RestoreChoices(boot=boot), runner)
    return plan, run_plan(plan, plan.digest, runner, ignore)


def _restored(boot: BootChoice, folder: Path, runner: Recording) -> tuple[Plan, Report]:
    """The root on the first disk, what the firmware starts on the second; both captured and restored to files."""
    disks = [blank(folder / f"{name}.img", 64 * MIB) for name in ("root", "boot")]
    run("sfdisk", "-q", disks[0], stdin="label: gpt\nstart=1MiB\n")
    run("sfdisk", "-q", disks[1], stdin=TABLES[boot])
    parts = [folder / "root.part", folder / "boot.part"]
    for part, size in zip(parts, (60, 24 if boot is BootChoice.BIOS else 40), strict=True):
        part.touch()
        os.truncate(part, size * MIB)
    tree = _files(folder / "tree", FSTABS[boot])
    run("mke2fs", "-q", "-t", "ext4", "-U", ROOT_UUID, "-d", tree, parts[0])
    if boot is BootChoice.BIOS:
        (folder / "grub").mkdir()
        (folder / "grub" / "vmlinuz-here").touch()
        run("mke2fs", "-q", "-t", "ext4", "-U", BOOT_UUID, "-d", folder / "grub", parts[1])
    else:
        run("mkfs.fat", "-F", "32", "-s", "1", "-i", "ABCD1234", parts[1])
        run("mmd", "-i", parts[1], "::/EFI", "::/EFI/BOOT")
        run("mcopy", "-i", parts[1], tree / "etc/fstab", "::/EFI/BOOT/BOOTX64.EFI")
    for part, disk in zip(parts, disks, strict=True):
        run("dd", f"if={part}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
    return _plan_and_run(disks, folder, runner, boot)


@pytest.fixture
def runner(tmp_path: Path) -> Recording:
    if os.geteuid() != 0:
        pytest.skip("loop devices and mounts need root")
    need("mke2fs", "mkfs.fat", "mmd", "mcopy", "sfdisk", "losetup")
    return Recording(tmp_path)


def test_grub_goes_to_the_disk_that_starts_and_sees_boot(tmp_path: Path, runner: Recording) -> None:
    plan, report = _restored(BootChoice.BIOS, tmp_path, runner)
    assert report.warnings == ()
    assert [step.disk for step in plan.steps if isinstance(step, RepairBoot)] == ["disk1"]
    (installed,) = [words for words in runner.started if words[0] == "grub-install"]
    assert installed[:-1] == ("grub-install", "--target=i386-pc", "--recheck")
    # Both targets were loop devices of their own then; the second has the partition with the active flag.
    assert runner.installed == [str(tmp_path / "boot.target")]
    assert f"GRUB for BIOS installed on {installed[-1]}" in report.boot
    assert "boot/vmlinuz-here" in runner.seen


def test_the_esp_of_another_disk_is_used(tmp_path: Path, runner: Recording) -> None:
    plan, report = _restored(BootChoice.UEFI, tmp_path, runner)
    assert report.warnings == ()
    assert [step.disk for step in plan.steps if isinstance(step, RepairBoot)] == ["disk1"]
    assert "GRUB for UEFI installed on the EFI system partition" in report.boot
    assert "boot/efi/EFI/BOOT/BOOTX64.EFI" in runner.seen


def test_the_boot_code_of_windows_stays_and_linux_starts_from_its_own_disk(tmp_path: Path, runner: Recording) -> None:
    need("mkntfs")
    disks = [blank(tmp_path / f"{name}.img", 64 * MIB) for name in ("windows", "linux")]
    parts = [blank(tmp_path / f"{name}.part", 60 * MIB) for name in ("windows", "linux")]
    run("mkntfs", "-F", "-Q", "-s", "512", parts[0])
    run("mke2fs", "-q", "-t", "ext4", "-U", ROOT_UUID, "-d", _files(tmp_path / "tree", "tmpfs /tmp tmpfs"), parts[1])
    for disk, part, kind, code in zip(disks, parts, (7, 83), (b"Invalid partition table", b"GRUB "), strict=True):
        run("sfdisk", "-q", disk, stdin=f"label: dos\nstart=1MiB, size=60MiB, type={kind}, bootable\n")
        run("dd", f"if={part}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
        with disk.open("r+b") as stream:
            stream.write(b"\xfa" + code)
    plan, report = _plan_and_run(disks, tmp_path, runner, BootChoice.BIOS)
    assert report.warnings == ()
    assert any("never over boot code that starts Windows" in note for note in plan.notes)
    assert runner.installed == [str(tmp_path / "linux.target")]
    assert (tmp_path / "windows.target").read_bytes()[:24] == b"\xfaInvalid partition table"
