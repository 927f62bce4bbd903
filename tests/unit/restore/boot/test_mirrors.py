"""A system whose /boot lies on several disks has GRUB for BIOS on each, and LVM's new list in its initramfs."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import ProcessError
from core.events import ignore
from images.model.filesystem import Filesystem
from images.model.layout import (
    Disk,
    DiskIdentity,
    FilesystemKind,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from images.model.machine import Firmware
from restore.boot import repair
from restore.boot.held import Held, HeldPartition
from restore.boot.lvm_devices import PLACE
from restore.stack.mountable import ListedVolume, StackDevice
from tests.runners import ScriptedRunner

KERNEL = "6.12.1-amd64"
NODES = ("/dev/nvme0n1", "/dev/nvme1n1", "/dev/nvme2n1")
#: GRUB's boot code on all of them (grub-core/boot/i386/pc/boot.S, notification_string).
BOOT_CODE = b"\xeb\x63GRUB \0"
OLD = "IDTYPE=sys_serial IDNAME=OLD DEVNAME=/dev/sda2 PVID=abc PART=2\n"
NEW = "IDTYPE=sys_serial IDNAME=NEW DEVNAME=/dev/nvme0n1p2 PVID=abc PART=2\n"


def _disk(name: str) -> Disk:
    table = PartitionTable(kind=TableKind.DOS, identifier="0x1234abcd", partitions=())
    return Disk(id=name, identity=DiskIdentity(), size=1 << 30, sector_size=512, table=table)


def _array(*disks: str) -> StackDevice:
    filesystem = Filesystem(kind=FilesystemKind.EXT4, uuid="aa")
    return StackDevice(id="md0", filesystem=filesystem, names=(), modules=frozenset({"raid1"}), disks=disks)


def _btrfs(number: int, uuid: str = "aa") -> HeldPartition:
    made = Partition(
        id=f"part{number}",
        number=1,
        start_lba=2048,
        sector_count=2048,
        type="0x83",
        role=PartitionRole.PRIMARY,
        filesystem=Filesystem(kind=FilesystemKind.BTRFS, uuid=uuid),
    )
    return HeldPartition(partition=made, disk=NODES[number], partuuid=f"1234abcd-0{number}")


def _system(root: str, modules: str, program: str) -> Callable[[tuple[str, ...]], str]:
    """A Debian on the node ``root``, its initramfs with ``modules`` and LVM's list."""
    roots: list[Path] = []

    def answer(argv: tuple[str, ...]) -> str:
        if argv[0] == "mount" and argv[-2] == root:
            roots.append(Path(argv[-1]))
            names = (f"boot/vmlinuz-{KERNEL}", f"lib/modules/{KERNEL}/modules.dep", "usr/sbin/update-initramfs")
            for name in (
                *names,
                "usr/lib/grub/i386-pc/modinfo.sh",
                program,
                "usr/lib/os-release",
                PLACE,
                "etc/initramfs-tools/modules",
            ):
                (roots[-1] / name).parent.mkdir(parents=True, exist_ok=True)
                (roots[-1] / name).touch()
            (roots[-1] / "etc/fstab").write_text("UUID=aa / auto defaults 0 1\n")
            (roots[-1] / PLACE).write_text(OLD)
        if "--adddev" in argv:
            (roots[-1] / PLACE).write_text(NEW)
        if argv[0] == "findmnt":
            return f"{root}\n"
        if "lsinitramfs" in argv:
            files = [f"usr/lib/modules/{KERNEL}/kernel/{name}.ko.xz" for name in modules.split()] + [PLACE]
            return "".join(f"-rw-r--r--   1 root     root 99 Nov 21 13:47 {name}\n" for name in files)
        return "nvme\n" if "--resolve-alias" in argv else ""

    return answer


def _repaired(
    nodes: dict[str, Held],
    modules: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    listed: tuple[ListedVolume, ...] = (),
    renewed: str = "",
    program: str = "usr/sbin/grub-install",
    broken: str = "",
) -> tuple[repair.BootRepair, list[tuple[str, ...]]]:
    """Boot repair with three disks; what ran in the system. ``broken``: a disk or a kernel whose command fails."""
    monkeypatch.setattr(repair, "disk_aliases", lambda node: ("pci:v1bc01",))
    monkeypatch.setattr(repair, "read_boot_code", lambda node: BOOT_CODE)
    good = _system(next(iter(nodes)), modules, program)

    def answer(argv: tuple[str, ...]) -> str:
        if ({"--recheck", "update-initramfs"} & set(argv) and argv[-1] == broken) or broken in argv[:3]:
            raise ProcessError(argv, 1, "No space left on device")
        return good(argv)

    runner = ScriptedRunner(answer)
    others = {node: _disk(f"disk{number}") for number, node in enumerate(NODES) if number}
    around = repair.Around(others=nodes, other_disks=others, listed=listed, renewed=renewed)
    done = repair.repair_boot(NODES[0], _disk("disk0"), Firmware.BIOS, runner, ignore, around=around)
    return done, [call[2:] for call in runner.calls if call[0] == "chroot"]


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ({"/dev/md0": _array("disk0", "disk2")}, [0, 2]),
        ({"/dev/md0": _array("disk1", "disk2")}, [0, 1, 2]),
        # On one disk alone it is that one's business.
        ({"/dev/mapper/vg-root": _array("disk1")}, [1]),
        ({"/dev/nvme1n1p1": _btrfs(1), "/dev/nvme2n1p1": _btrfs(2), "/dev/nvme0n1p1": _btrfs(0, "bb")}, [0, 1, 2]),
        ({"/dev/nvme1n1p1": _btrfs(1), "/dev/nvme2n1p1": _btrfs(2, "bb")}, [1]),
    ],
)
def test_grub_is_installed_on_each_disk_below_boot(
    nodes: dict[str, Held], wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk that the plan names is started from, whatever lies on it: GRUB was there."""
    done, calls = _repaired(nodes, "nvme raid1", monkeypatch)
    assert done.warnings == ()
    words = ("grub-install", "--target=i386-pc", "--recheck")
    assert [call for call in calls if call[0] == "grub-install"] == [(*words, NODES[number]) for number in wanted]


@pytest.mark.parametrize("broken", NODES)
def test_a_disk_that_grub_is_not_installed_on_does_not_keep_it_from_the_others(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk whose first partition begins too near has no room for GRUB's core, say."""
    done, _ = _repaired({"/dev/md0": _array("disk0", "disk1", "disk2")}, "nvme raid1", monkeypatch, broken=broken)
    installed = [line for line in done.actions if "GRUB for BIOS" in line]
    assert installed == [f"GRUB for BIOS installed on {node}" for node in NODES if node != broken]
    (warning,) = done.warnings
    assert warning.startswith(f"GRUB for BIOS was not installed on {broken}: ")


@pytest.mark.parametrize(
    ("listed", "modules", "made"),
    [
        ((), "nvme raid1", []),
        ((), "raid1", ["nvme"]),
        ((ListedVolume("abc", "/dev/nvme0n1p2"),), "nvme raid1", ["LVM's list of devices"]),
        ((ListedVolume("other", "/dev/nvme0n1p2"),), "nvme raid1", []),
    ],
)
def test_the_initramfs_gets_what_it_lacks_and_the_new_list(
    listed: tuple[ListedVolume, ...], modules: str, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, calls = _repaired({"/dev/md0": _array("disk0")}, modules, monkeypatch, listed=listed)
    assert len([call for call in calls if call[0] == "update-initramfs"]) == len(made)
    said = [line for line in done.actions if "names the disks of this machine" in line]
    assert len(said) == ("LVM's list of devices" in made)
    # The initramfs of this machine stays without NVMe whatever is done, and that is said.
    assert [f"still lacks {name}" in line for name in made for line in done.warnings] == [True] * ("nvme" in made)
    assert (f"initramfs of {KERNEL} made again with LVM's list of devices" in done.actions) == (len(said) == 1)


def test_the_initramfs_of_a_clone_is_made_again_once_for_all_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = (ListedVolume("abc", "/dev/nvme0n1p2"),)
    for modules, said in (("nvme raid1", ""), ("nvme", "raid1, ")):
        done, calls = _repaired({"/dev/md0": _array("disk0")}, modules, monkeypatch, listed=listed, renewed="md0")
        assert [call[0] for call in calls].count("update-initramfs") == 1
        lines = [line for line in (*done.actions, *done.warnings) if "initramfs" in line]
        assert len(lines) == 1
        assert lines[0].endswith("still lacks raid1" if said else "with the new identities, LVM's list of devices")


def test_an_initramfs_that_cannot_be_listed_may_have_the_old_list(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = (ListedVolume("abc", "/dev/nvme0n1p2"),)
    monkeypatch.setattr(repair, "builtin_drivers", lambda root, kernel: frozenset({"nvme", "raid1"}))
    done, calls = _repaired({"/dev/md0": _array("disk0")}, "", monkeypatch, listed=listed, broken="lsinitramfs")
    assert [call[0] for call in calls].count("update-initramfs") == 1
    assert any("the new initramfs of" in line for line in done.warnings)


def test_a_kernel_whose_modules_are_gone_keeps_the_clone_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    done, calls = _repaired({"/dev/md0": _array("disk0")}, "", monkeypatch, renewed="md0", broken="modprobe")
    assert [call[0] for call in calls].count("update-initramfs") == 1
    assert [call[-1] for call in calls if "--recheck" in call] == [NODES[0]]
    (warning,) = done.warnings
    assert warning.startswith(f"the drivers that kernel {KERNEL} needs here could not be looked for: ")


def test_a_clone_whose_other_system_was_repaired_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    done, calls = _repaired({"/dev/md0": _array("disk0")}, "nvme raid1", monkeypatch, renewed="disk1-part2")
    assert "update-initramfs" not in {call[0] for call in calls}
    assert done.warnings == (
        "the initramfs of the system on disk1-part2 was not made again and may name the old identities",
    )


def test_grub_is_installed_when_the_initramfs_cannot_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GRUB of a clone looks for the old filesystem until it is installed again."""
    done, calls = _repaired({"/dev/md0": _array("disk0")}, "raid1", monkeypatch, renewed="md0", broken=KERNEL)
    assert [call[-1] for call in calls if "--recheck" in call] == [NODES[0]]
    (warning,) = done.warnings
    assert warning.startswith(f"the initramfs of {KERNEL} could not be made again and lacks nvme, the new identities: ")


def test_a_file_that_cannot_be_written_ends_the_repair_and_not_the_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, names: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(repair, "_add_modules", full)
    done, _ = _repaired({"/dev/md0": _array("disk0")}, "raid1", monkeypatch)
    (warning,) = done.warnings
    assert warning.startswith("boot repair stopped at /")
    assert warning.endswith("etc/initramfs-tools/modules: No space left on device")


@pytest.mark.parametrize("program", ["usr/sbin/grub2-install", "usr/bin/grub2-install", "usr/sbin/grub-install"])
def test_grub_is_installed_by_the_program_that_the_system_has(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fedora, RHEL and SUSE call it grub2-install."""
    done, calls = _repaired({"/dev/md0": _array("disk0")}, "nvme raid1", monkeypatch, program=program)
    assert [call[0] for call in calls if "--recheck" in call] == [Path(program).name]
    assert done.warnings == ()
