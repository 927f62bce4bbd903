"""Installs a Debian 13 on a raw disk file, as root on this machine: mmdebstrap, GRUB, an initramfs for virtio only.

What is here is what a source system is made from: its digest, with the planted files and the guest's scripts, is the
cache key of ``system.py``.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from core.process import Runner
from core.units import GIB
from tests.boot import files
from tests.boot.disk import mounted, writable_partitions
from tests.boot.machine import Firmware
from tests.boot.place import HERE

SIZE = 3 * GIB
RELEASE = "trixie"
MIRROR = "http://deb.debian.org/debian"
PASSWORD = "liferaft"
PACKAGES = (
    "linux-image-amd64",
    "systemd-sysv",
    "udev",
    "e2fsprogs",
    "initramfs-tools",
    "zstd",
    "login",
    "kmod",
    "util-linux",
    "ifupdown",
)
GRUB_PACKAGES = {
    Firmware.UEFI: ("grub-efi-amd64", "grub-efi-amd64-signed", "shim-signed", "efibootmgr", "dosfstools"),
    Firmware.BIOS: ("grub-pc",),
}
TABLES = {
    Firmware.UEFI: """label: gpt
start=1MiB, size=128MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI System Partition"
size=256MiB, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F, name="swap"
type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="root", attrs="GUID:60"
""",
    Firmware.BIOS: "label: dos\nstart=1MiB, type=83, bootable\n",
}
MODULES = ("virtio_pci", "virtio_blk", "ext4")
GRUB_DEFAULTS = """GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
GRUB_TERMINAL="console serial"
GRUB_DISABLE_OS_PROBER=true
"""


def install(firmware: Firmware, disk: Path, runner: Runner) -> None:
    """Install a Debian onto a new raw disk file."""
    with disk.open("xb") as stream:
        stream.truncate(SIZE)
    runner.run(["sfdisk", "--quiet", str(disk)], stdin=TABLES[firmware])
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lr-install-")))
        whole, parts = stack.enter_context(writable_partitions(disk, work / "dev", runner))
        root_node = parts[max(parts)]
        # What a Debian 13 installer makes; this host's mke2fs may have older defaults.
        features = "metadata_csum_seed,orphan_file"
        runner.run(["mke2fs", "-q", "-t", "ext4", "-O", features, "-L", "rescue-me", str(root_node)])
        root = stack.enter_context(mounted(root_node, work / "root", runner))
        _bootstrap(firmware, root, runner)
        _configure(root)
        _write_fstab(firmware, root, parts, runner)
        files.plant(root, runner)
        with ExitStack() as chroot:
            _enter(chroot, root, work / "dev", root_node, runner)
            _finish(firmware, root, whole, runner)
        if firmware is Firmware.UEFI:
            _fill_esp(root, parts[1], _uuid(root_node, runner), runner)
        # Traces of the making that no real system has.
        (root / "etc/machine-id").write_bytes(b"")


def _bootstrap(firmware: Firmware, root: Path, runner: Runner) -> None:
    packages = ",".join((*PACKAGES, *GRUB_PACKAGES[firmware]))
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={packages}", "--components=main"]
    for pattern in ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*"):
        argv.append(f"--dpkgopt=path-exclude={pattern}")
    # The package scripts find no disk to install a boot loader on, as on any image build.
    argv.append(
        "--essential-hook=echo grub-pc grub-pc/install_devices_empty boolean true | chroot $1 debconf-set-selections"
    )
    argv += [RELEASE, str(root), MIRROR]
    runner.run(argv, timeout=540)


def _configure(root: Path) -> None:
    (root / "etc/hostname").write_text("rescue-me\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost rescue-me\n")
    (root / "etc/default/grub").write_text(GRUB_DEFAULTS)
    settings = root / "etc/initramfs-tools/initramfs.conf"
    text = settings.read_text().replace("MODULES=most", "MODULES=list").replace("# COMPRESSLEVEL=", "COMPRESSLEVEL=")
    settings.write_text(
        "\n".join("COMPRESSLEVEL=1" if "COMPRESSLEVEL=" in line else line for line in text.splitlines())
    )
    with (root / "etc/initramfs-tools/modules").open("a") as stream:
        stream.write("\n".join(MODULES) + "\n")
    guest = HERE / "guest"
    shutil.copy(guest / "bootcheck", root / "usr/local/sbin/bootcheck")
    (root / "usr/local/sbin/bootcheck").chmod(0o755)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    for unit in ("bootcheck.service", "marker.service"):
        shutil.copy(guest / unit, root / "etc/systemd/system" / unit)
        (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")


def _uuid(node: Path, runner: Runner) -> str:
    return runner.run(["blkid", "-p", "-s", "UUID", "-o", "value", str(node)]).stdout.strip()


def _write_fstab(firmware: Firmware, root: Path, parts: dict[int, Path], runner: Runner) -> None:
    lines = [f"UUID={_uuid(parts[max(parts)], runner)} / ext4 errors=remount-ro 0 1"]
    if firmware is Firmware.UEFI:
        runner.run(["mkfs.vfat", "-F", "32", "-n", "ESP", str(parts[1])])
        runner.run(["mkswap", "--label", "swap", str(parts[2])])
        lines.append(f"UUID={_uuid(parts[1], runner)} /boot/efi vfat umask=0077 0 1")
        lines.append(f"UUID={_uuid(parts[2], runner)} none swap sw 0 0")
        (root / "boot/efi").mkdir(exist_ok=True)
    (root / "etc/fstab").write_text("\n".join(lines) + "\n")


def _enter(stack: ExitStack, root: Path, nodes: Path, root_node: Path, runner: Runner) -> None:
    """Give the chroot /proc, /sys and a private /dev in which the root filesystem is known by its UUID."""
    by_uuid = nodes / "disk" / "by-uuid"
    by_uuid.mkdir(parents=True, exist_ok=True)
    (by_uuid / _uuid(root_node, runner)).symlink_to(f"../../{root_node.name}")
    stack.enter_context(mounted(Path("proc"), root / "proc", runner, kind="proc"))
    stack.enter_context(mounted(Path("sysfs"), root / "sys", runner, kind="sysfs", options="ro"))
    runner.run(["mount", "--bind", str(nodes), str(root / "dev")])
    stack.callback(runner.run, ["umount", str(root / "dev")])
    # /proc/self/mountinfo names the root's device by the host's path, and grub-probe insists on finding it.
    alias = root / nodes.relative_to("/")
    alias.parent.mkdir(parents=True)
    alias.symlink_to("/dev")
    stack.callback(shutil.rmtree, alias.parent)


def _finish(firmware: Firmware, root: Path, whole: Path, runner: Runner) -> None:
    def inside(*argv: str, stdin: str | None = None) -> None:
        runner.run(["chroot", str(root), *argv], stdin=stdin, timeout=300)

    inside("chpasswd", stdin=f"root:{PASSWORD}\n")
    inside("update-initramfs", "-u", "-k", "all")
    if firmware is Firmware.BIOS:
        inside("grub-install", "--target=i386-pc", f"/dev/{whole.name}")
    else:
        shutil.copytree(root / "usr/lib/grub/x86_64-efi", root / "boot/grub/x86_64-efi")
    inside("update-grub")


def _fill_esp(root: Path, esp: Path, root_uuid: str, runner: Runner) -> None:
    """Put on the ESP what Debian's grub-install puts there, fallback path included."""
    shim, grub = root / "usr/lib/shim", root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
    stub = root.parent / "grub.cfg"
    stub.write_text(f"search.fs_uuid {root_uuid} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n")
    contents: Sequence[tuple[Path, str]] = (
        (shim / "shimx64.efi.signed", "EFI/debian/shimx64.efi"),
        (shim / "mmx64.efi.signed", "EFI/debian/mmx64.efi"),
        (shim / "fbx64.efi.signed", "EFI/debian/fbx64.efi"),
        (shim / "BOOTX64.CSV", "EFI/debian/BOOTX64.CSV"),
        (grub, "EFI/debian/grubx64.efi"),
        (stub, "EFI/debian/grub.cfg"),
        (shim / "shimx64.efi.signed", "EFI/BOOT/BOOTX64.EFI"),
        (shim / "mmx64.efi.signed", "EFI/BOOT/mmx64.efi"),
        (shim / "fbx64.efi.signed", "EFI/BOOT/fbx64.efi"),
        (grub, "EFI/BOOT/grubx64.efi"),
    )
    runner.run(["mmd", "-i", str(esp), "::/EFI", "::/EFI/debian", "::/EFI/BOOT"])
    for path, name in contents:
        runner.run(["mcopy", "-i", str(esp), str(path), f"::/{name}"])
    os.sync()
