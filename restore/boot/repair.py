"""Boot repair: make a restored Linux boot on the hardware that is there now, changing the least.

1. which drivers does its root disk need here, and are they in each initramfs? Rebuild those that lack some;
2. reinstall GRUB for the firmware that will boot it, the firmware's fallback path included;
3. tell the firmware, where this rescue system runs under UEFI.

Works on any restored or existing disk: it needs the layout, not an image.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from core.errors import LiferaftError
from core.events import Event, Sink, Stage
from core.process import Runner
from images.model.layout import Disk, PartitionRole, TableKind
from images.model.machine import Firmware
from restore.boot.bios import bios_disk, read_boot_code
from restore.boot.crypttab import erased_at_start, named_by_crypttab, opens_something, sealed
from restore.boot.drivers import builtin_drivers, disk_aliases, modules_in, needed_drivers
from restore.boot.held import Held, HeldPartition, held_partitions
from restore.boot.inside import run_inside
from restore.boot.mounts import find_root, mounted_system
from restore.boot.system import InstalledSystem, read_system, uefi_names
from restore.stack.mountable import OpenedLuks, StackDevice
from restore.target.partitions import partition_node

_INITRAMFS_TIMEOUT = 3600.0
#: The module of what is encrypted.
_LUKS = "dm_crypt"
#: Where the kernel shows the firmware's variables.
EFI_VARIABLES = Path("/sys/firmware/efi/efivars")


class BootRepair(msgspec.Struct, frozen=True):
    """What was done, and what the user must know; a line each."""

    actions: tuple[str, ...]
    warnings: tuple[str, ...]


def repair_boot(
    node: str,
    disk: Disk,
    firmware: Firmware,
    runner: Runner,
    sink: Sink,
    *,
    others: Mapping[str, Held] = MappingProxyType({}),
    other_disks: Mapping[str, Disk] = MappingProxyType({}),
    opened: Sequence[OpenedLuks] = (),
    efi_variables: Path = EFI_VARIABLES,
) -> BootRepair:
    """Repair the boot of the system on a disk.

    Args:
        node: the disk's device node. disk: its layout as it is now.
        firmware: what will boot it.
        others: by device node, what else the system may lie on: devices of the stack, partitions of other disks.
        other_disks: by device node, the other disks that those lie on, as they are now.
        opened: the LUKS containers among what the system may lie on.
        efi_variables: the folder of the firmware's variables; without them it is not told.

    Returns:
        what was done. A problem that leaves the data as restored is a warning, not an error.
    """
    job = _Repair(node, disk, firmware, runner, sink, others, other_disks, opened, efi_variables)
    try:
        job.run()
    except LiferaftError as error:
        job.warn(f"boot repair stopped: {error.message}")
    return BootRepair(tuple(job.actions), tuple(job.warnings))


class _Repair:
    """One boot repair: collects what it did."""

    def __init__(
        self,
        node: str,
        disk: Disk,
        firmware: Firmware,
        runner: Runner,
        sink: Sink,
        others: Mapping[str, Held],
        other_disks: Mapping[str, Disk],
        opened: Sequence[OpenedLuks],
        efi_variables: Path,
    ) -> None:
        self._node = node
        self._disk = disk
        self._firmware = firmware
        self._runner = runner
        self._sink = sink
        self._others = others
        self._other_disks = other_disks
        self._opened = opened
        self._efi_variables = efi_variables
        #: Modules of the stack between the disks and the root filesystem.
        self._stack_modules: frozenset[str] = frozenset()
        #: Nodes of the disks that the root filesystem may take.
        self._root_disks: tuple[str, ...] = (node,)
        self.actions: list[str] = []
        self.warnings: list[str] = []

    def run(self) -> None:
        """Find the system, mount it, repair it."""
        with contextlib.ExitStack() as stack:
            nodes: Mapping[str, Held] = {
                stack.enter_context(
                    partition_node(self._node, held.partition, self._disk.sector_size, self._runner)
                ): held
                for held in held_partitions(self._node, self._disk)
            } | dict(self._others)
            found = find_root(nodes, self._runner, self._say)
            if found is None:
                why = sealed(nodes, self._opened)
                self.warn(f"no Linux system was found on the disk{why}: the boot loader is left as it was captured")
                return
            held = nodes[found.node]
            self._stack_modules = held.modules if isinstance(held, StackDevice) else frozenset()
            if found.node in self._others:
                self._root_disks = (self._node, *self._other_disks)
            found, nodes = stack.enter_context(named_by_crypttab(found, nodes, self._opened, self._runner, self._say))
            mounted = stack.enter_context(mounted_system(found, nodes, self._runner))
            root, system = mounted.root, read_system(mounted.root)
            self._say(f"Found {system.name}, kernels: {', '.join(system.kernels) or 'none'}")
            for absent in mounted.absent:
                (self.warn if absent.reason else self._say)(absent.text)
            for line in erased_at_start(root, nodes):
                self.warn(line)
            if mounted.lacking:
                names = ", ".join(f"{absent.place} ({absent.spec})" for absent in mounted.lacking)
                self.warn(f"boot repair needs {names}, which is not mounted: left as it is")
                return
            self._repair_initramfs(root, system)
            boot = nodes[mounted.nodes.get("/boot", found.node)]
            self._repair_grub(root, system, boot.disk if isinstance(boot, HeldPartition) else "")
            loader = own_loader(root, system, os.uname().machine)
            mounted_esp = nodes.get(mounted.nodes.get("/boot/efi", ""))
        if self._firmware is Firmware.UEFI:
            self._tell_firmware(system, loader, mounted_esp)

    def warn(self, text: str) -> None:
        """Something the user must know."""
        self.warnings.append(text)
        self._sink(Event(stage=Stage.BOOT, message=text, warning=True))

    def _say(self, text: str) -> None:
        self._sink(Event(stage=Stage.BOOT, message=text))

    def _did(self, text: str) -> None:
        self.actions.append(text)
        self._say(text)

    # ---- initramfs

    def _repair_initramfs(self, root: Path, system: InstalledSystem) -> None:
        aliases = tuple(dict.fromkeys(alias for node in self._root_disks for alias in disk_aliases(node)))
        if not aliases:
            self._did("initramfs: the disk is no hardware of this machine, its drivers were not checked")
            return
        missing: dict[str, frozenset[str]] = {}
        for kernel in system.kernels:
            drivers = needed_drivers(root, kernel, aliases, self._runner)
            needed = (drivers.needed | self._stack_modules) - builtin_drivers(root, kernel)
            for alias in drivers.unknown:
                self.warn(f"kernel {kernel} of the restored system has no driver for this machine's disk ({alias})")
            listing = self._listing(root, system, kernel)
            lacking = needed - modules_in(listing)
            if lacking:
                missing[kernel] = frozenset(lacking)
            else:
                self._did(f"initramfs of {kernel} has the drivers for this disk ({', '.join(sorted(needed))})")
                self._check_opens(system, kernel, listing)
        if missing:
            self._rebuild(root, system, missing)

    def _listing(self, root: Path, system: InstalledSystem, kernel: str) -> str:
        """The files in an initramfs with their sizes."""
        lister = {"update-initramfs": ("lsinitramfs", "-l", f"/boot/initrd.img-{kernel}")}.get(
            system.initramfs, ("lsinitrd", "--kver", kernel)
        )
        try:
            return self._chroot(root, lister, timeout=600)
        except LiferaftError as error:
            self._say(f"The initramfs of {kernel} cannot be listed ({error.message}): it will be made again")
            return ""

    def _rebuild(self, root: Path, system: InstalledSystem, missing: dict[str, frozenset[str]]) -> None:
        for kernel, modules in missing.items():
            names = sorted(modules)
            self._say(f"The initramfs of {kernel} lacks {', '.join(names)}: making it again (this takes minutes)")
            if system.initramfs == "update-initramfs":
                _add_modules(root / "etc/initramfs-tools/modules", names)
                self._chroot(root, ("update-initramfs", "-u", "-k", kernel), timeout=_INITRAMFS_TIMEOUT)
            elif system.initramfs == "dracut":
                words = ("dracut", "--force", "--add-drivers", " ".join(names), "--kver", kernel)
                self._chroot(root, words, timeout=_INITRAMFS_TIMEOUT)
            else:
                self.warn(f"the initramfs of {kernel} lacks {', '.join(names)} and nothing here can make it again")
                continue
            # An exit code is no evidence: initramfs tools have returned 0 for images that do not boot.
            listing = self._listing(root, system, kernel)
            still = modules - modules_in(listing)
            if still:
                self.warn(f"the new initramfs of {kernel} still lacks {', '.join(sorted(still))}")
            else:
                self._did(f"initramfs of {kernel} made again with {', '.join(names)}")
            self._check_opens(system, kernel, listing)

    def _check_opens(self, system: InstalledSystem, kernel: str, listing: str) -> None:
        if system.initramfs == "update-initramfs" and _LUKS in self._stack_modules and not opens_something(listing):
            self.warn(f"the initramfs of {kernel} does not open the LUKS container that the root filesystem lies in")

    # ---- GRUB

    def _repair_grub(self, root: Path, system: InstalledSystem, holder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (root / "boot/grub/device.map").unlink()
        if self._firmware is Firmware.BIOS:
            self._install_bios(root, system, holder)
        else:
            self._install_uefi(root, system)

    def _install_bios(self, root: Path, system: InstalledSystem, holder: str) -> None:
        if "i386-pc" not in system.grub_targets:
            self.warn("this machine starts in BIOS mode, but the restored system has no GRUB for BIOS")
            return
        node = bios_disk(self._node, holder, {self._node: self._disk, **self._other_disks}, read_boot_code)
        if node is None:
            self.warn(
                "GRUB was not installed: the boot code of the disk starts Windows, which would not start any more; "
                "the boot loader is left as it was captured"
            )
            return
        self._chroot(root, ("grub-install", "--target=i386-pc", "--recheck", node), timeout=900)
        self._did(f"GRUB for BIOS installed on {node}")
        by_id = _by_id(node)
        if by_id and (root / "usr/bin/debconf-set-selections").exists() and "i386-pc" in system.grub_targets:
            # A stale disk name there lets a later upgrade of grub-pc install its core nowhere.
            line = f"grub-pc grub-pc/install_devices multiselect {by_id}\n"
            self._chroot(root, ("debconf-set-selections",), stdin=line)
            self._did(f"grub-pc will install its upgrades on {by_id}")

    def _install_uefi(self, root: Path, system: InstalledSystem) -> None:
        if not system.esp:
            self.warn("this machine starts in UEFI mode, but no EFI system partition is mounted at /boot/efi")
            return
        names = uefi_names(os.uname().machine)
        if names.grub in system.grub_targets:
            words = ["grub-install", f"--target={names.grub}", "--efi-directory=/boot/efi", "--no-nvram"]
            if "--force-extra-removable" in self._chroot(root, ("grub-install", "--help")):
                words.append("--force-extra-removable")
            self._chroot(root, words, timeout=900)
            self._did("GRUB for UEFI installed on the EFI system partition")
        else:
            self._say("The restored system has no GRUB modules for UEFI; its EFI files are kept as captured")
        if not has_fallback(root, names.fallback):
            self.warn(f"the EFI system partition has no {names.fallback}: the firmware may not find the system")

    def _esp(self, mounted: Held | None) -> HeldPartition | None:
        """The EFI system partition that the system uses, or the first there is; of GPTs."""
        found = [
            held
            for node, disk in {self._node: self._disk, **self._other_disks}.items()
            if disk.table is not None and disk.table.kind is TableKind.GPT
            for held in held_partitions(node, disk)
            if held.partition.role is PartitionRole.ESP
        ]
        return next((one for one in found if one == mounted), found[0] if found else None)

    def _tell_firmware(self, system: InstalledSystem, loader: str, mounted: Held | None) -> None:
        """One boot entry, from the rescue system and not from the chroot. The fallback path is what counts."""
        found = self._esp(mounted)
        if found is None or not self._efi_variables.is_dir() or not any(self._efi_variables.iterdir()):
            return
        esp = found.partition
        if not loader:
            self._say("No boot entry is written: the EFI system partition has no loader of the system's own")
            return
        try:
            entries = self._runner.run(["efibootmgr", "--verbose"], timeout=60).stdout
            if str(esp.uuid).lower() in entries.lower():
                self._did("the firmware already has a boot entry for this disk")
                return
            self._runner.run(
                [
                    "efibootmgr",
                    "--create",
                    "--disk",
                    found.disk,
                    "--part",
                    str(esp.number),
                    "--label",
                    system.id,
                    "--loader",
                    loader,
                ],
                timeout=60,
            )
            self._did(f"boot entry {system.id} written to the firmware")
        except LiferaftError as error:
            fallback = uefi_names(os.uname().machine).fallback
            self.warn(f"the firmware took no boot entry ({error.message}); it will use {fallback}")

    def _chroot(self, root: Path, words: Sequence[str], *, timeout: float = 300.0, stdin: str | None = None) -> str:
        return run_inside(root, words, self._runner, timeout=timeout, stdin=stdin)


def _add_modules(path: Path, names: Sequence[str]) -> None:
    """Append to initramfs-tools' list, which changes less than its policy would."""
    text = path.read_text() if path.exists() else ""
    # Debian's own file names sd_mod in a comment, as an example.
    have = {line.split()[0] for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")}
    new = [name for name in names if name not in have]
    if text and not text.endswith("\n"):
        text += "\n"
    path.write_text(text + "# added by liferaft for the hardware it was restored to\n" + "\n".join(new) + "\n")


def has_fallback(root: Path, fallback: str) -> bool:
    """Whether a mounted system's EFI system partition has it. FAT knows no case, but the mount may."""
    esp = root / "boot/efi"
    names = {str(path.relative_to(esp)).lower() for path in esp.glob("EFI/*/*")}
    return fallback.lower() in names


def own_loader(root: Path, system: InstalledSystem, machine: str) -> str:
    """The system's own loader on the EFI system partition for a processor (``uname -m``), as firmware spells paths;
    empty when there is none."""
    for name in uefi_names(machine).loaders:
        if (root / "boot/efi/EFI" / system.id / name).exists():
            return rf"\EFI\{system.id}\{name}"
    return ""


def _by_id(node: str) -> str:
    """A name of a disk that survives a change of order, from udev; empty when there is none."""
    found = [path for path in sorted(Path("/dev/disk/by-id").glob("*")) if path.resolve() == Path(node).resolve()]
    return str(found[0]) if found else ""
