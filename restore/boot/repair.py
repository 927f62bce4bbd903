"""Boot repair: make a restored Linux boot on the hardware that is there now, changing the least.

1. where LVM keeps a list of devices, the entries of the restored ones are written again;
2. which drivers does its root disk need here, and are they in each initramfs? Rebuild those that lack some;
3. reinstall GRUB for the firmware that will boot it, on every disk it starts from, and on the fallback path;
4. tell the firmware, where this rescue system runs under UEFI.

Works on any restored or existing disk: it needs the layout, not an image.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from core.errors import LiferaftError
from core.events import Sink
from core.process import Runner
from images.model.filesystem import FilesystemKind
from images.model.layout import Disk
from images.model.machine import Firmware
from restore.boot.awaited import Known
from restore.boot.bios import bios_disks, read_boot_code
from restore.boot.crypttab import erased_at_start, named_by_crypttab, opens_something, sealed
from restore.boot.drivers import builtin_drivers, disk_aliases, modules_in, needed_drivers
from restore.boot.efi import EFI_VARIABLES, install_uefi, tell_firmware
from restore.boot.held import Held, HeldPartition, held_partitions
from restore.boot.inside import run_inside
from restore.boot.lvm_devices import PLACE, renew_devices
from restore.boot.mounts import MountedSystem, find_root, mounted_system
from restore.boot.system import InstalledSystem, read_system
from restore.boot.told import Told
from restore.boot.unmet import tell_unmet
from restore.stack.mountable import ListedVolume, OpenedLuks, StackDevice
from restore.target.partitions import partition_node

_INITRAMFS_TIMEOUT = 3600.0
#: The module of what is encrypted.
_LUKS = "dm_crypt"


class BootRepair(msgspec.Struct, frozen=True):
    """What was done, and what the user must know; a line each."""

    actions: tuple[str, ...]
    warnings: tuple[str, ...]


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What else was restored beside the disk whose boot is repaired.

    Attributes:
        others: by device node, what else the system may lie on: devices of the stack, partitions of other disks.
        other_disks: by device node, the other disks that those lie on, as they are now.
        opened: the LUKS containers among what the system may lie on.
        listed: the physical volumes of its volume groups.
        known: what the system may name that was restored, and what was not; None: nobody knows.
        renewed: what the root of a system lies on, by its id in the layout, that has other identities than its
            initramfs, which is made again for that alone; empty when there is none.
    """

    others: Mapping[str, Held] = MappingProxyType({})
    other_disks: Mapping[str, Disk] = MappingProxyType({})
    opened: tuple[OpenedLuks, ...] = ()
    listed: tuple[ListedVolume, ...] = ()
    known: Known | None = None
    renewed: str = ""


class _Lacking(msgspec.Struct, frozen=True):
    """Why an initramfs is made again: the modules that it lacks, and what else, for people."""

    modules: frozenset[str]
    others: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it."""
        return ", ".join((*sorted(self.modules), *self.others))


def repair_boot(
    node: str,
    disk: Disk,
    firmware: Firmware,
    runner: Runner,
    sink: Sink,
    *,
    around: Around | None = None,
    efi_variables: Path = EFI_VARIABLES,
) -> BootRepair:
    """Repair the boot of the system on a disk.

    Args:
        node: the disk's device node. disk: its layout as it is now.
        firmware: what will boot it.
        around: what else was restored.
        efi_variables: the folder of the firmware's variables; without them it is not told.

    Returns:
        what was done. A problem that leaves the data as restored is a warning, not an error.
    """
    told = Told(sink)
    job = _Repair(node, disk, firmware, runner, told, around or Around(), efi_variables)
    try:
        job.run()
    except LiferaftError as error:
        told.warn(f"boot repair stopped: {error.message}")
    except OSError as error:
        # A file of the system cannot be read or written: its filesystem is full, say.
        told.warn(f"boot repair stopped at {error.filename or 'a file of the system'}: {error.strerror}")
    if job.around.renewed and not job.is_renewed:
        where = job.around.renewed
        told.warn(f"the initramfs of the system on {where} was not made again and may name the old identities")
    return BootRepair(tuple(told.actions), tuple(told.warnings))


class _Repair:
    """One boot repair."""

    def __init__(
        self,
        node: str,
        disk: Disk,
        firmware: Firmware,
        runner: Runner,
        told: Told,
        around: Around,
        efi_variables: Path,
    ) -> None:
        self._node = node
        self._disk = disk
        self._firmware = firmware
        self._runner = runner
        self._told = told
        self.around = around
        #: Each initramfs of the system with new identities is about to be made again; what fails is told there.
        self.is_renewed = False
        self._efi_variables = efi_variables
        #: Modules of the stack between the disks and the root filesystem.
        self._stack_modules: frozenset[str] = frozenset()
        #: Nodes of the disks that the root filesystem may take.
        self._root_disks: tuple[str, ...] = (node,)

    def run(self) -> None:
        """Find the system, mount it, repair it."""
        told = self._told
        with contextlib.ExitStack() as stack:
            nodes: Mapping[str, Held] = {
                stack.enter_context(
                    partition_node(self._node, held.partition, self._disk.sector_size, self._runner)
                ): held
                for held in held_partitions(self._node, self._disk)
            } | dict(self.around.others)
            found = find_root(nodes, self._runner, told.say)
            if found is None:
                why = sealed(nodes, self.around.opened)
                told.warn(f"no Linux system was found on the disk{why}: the boot loader is left as it was captured")
                return
            held = nodes[found.node]
            self._stack_modules = held.modules if isinstance(held, StackDevice) else frozenset()
            if found.node in self.around.others:
                self._root_disks = (self._node, *self.around.other_disks)
            named = named_by_crypttab(found, nodes, self.around.opened, self._runner, told.say)
            found, nodes = stack.enter_context(named)
            mounted = stack.enter_context(mounted_system(found, nodes, self._runner))
            root, system = mounted.root, read_system(mounted.root)
            told.say(f"Found {system.name}, kernels: {', '.join(system.kernels) or 'none'}")
            for absent in mounted.absent:
                (told.warn if absent.reason else told.say)(absent.text)
            if self.around.known is not None:
                needed = {absent.place for absent in mounted.lacking}
                tell_unmet(root, self.around.known, needed, self._runner, told)
            for line in erased_at_start(root, nodes):
                told.warn(line)
            if mounted.lacking:
                names = ", ".join(f"{absent.place} ({absent.spec})" for absent in mounted.lacking)
                told.warn(f"boot repair needs {names}, which is not mounted: left as it is")
                return
            self._repair_initramfs(root, system, self._changed(root, held.id))
            for folder in ("grub", "grub2"):
                with contextlib.suppress(FileNotFoundError):
                    (root / "boot" / folder / "device.map").unlink()
            if self._firmware is Firmware.BIOS:
                self._install_bios(root, system, self._below_boot(mounted, found.node, nodes))
                return
            started = install_uefi(mounted, system, nodes, self._runner, told)
        tell_firmware(started, system, self._runner, told, self._efi_variables)

    def _changed(self, root: Path, device: str) -> tuple[tuple[str, str], ...]:
        """What is another than when the initramfs was made: for people, and the file of an initramfs that has it."""
        renewed = renew_devices(root, self.around.listed, self._runner)
        if renewed.done:
            self._told.did(renewed.done)
        if renewed.warning:
            self._told.warn(renewed.warning)
        self.is_renewed = device == self.around.renewed
        changed = (("the new identities", ""),) if self.is_renewed else ()
        return (*changed, ("LVM's list of devices", PLACE)) if renewed.changed else changed

    # ---- initramfs

    def _repair_initramfs(self, root: Path, system: InstalledSystem, changed: tuple[tuple[str, str], ...]) -> None:
        aliases = tuple(dict.fromkeys(alias for node in self._root_disks for alias in disk_aliases(node)))
        if not aliases:
            self._told.did("initramfs: the disk is no hardware of this machine, its drivers were not checked")
        if not aliases and not changed:
            return
        for kernel in system.kernels:
            needed = self._needed(root, kernel, aliases)
            listing = self._listing(root, system, kernel)
            # One that cannot be listed may have every file.
            others = tuple(what for what, file in changed if not listing or file in listing)
            lacking = _Lacking((needed or frozenset()) - modules_in(listing), others)
            if lacking.text:
                try:
                    self._rebuild(root, system, kernel, lacking)
                except LiferaftError as error:
                    # The boot loader is made all the same: a clone, and any other kernel, does not start without it.
                    self._told.warn(
                        f"the initramfs of {kernel} could not be made again and lacks {lacking.text}: {error.message}"
                    )
            elif needed is not None:
                self._told.did(f"initramfs of {kernel} has the drivers for this disk ({', '.join(sorted(needed))})")
                self._check_opens(system, kernel, listing)

    def _needed(self, root: Path, kernel: str, aliases: tuple[str, ...]) -> frozenset[str] | None:
        """The modules that an initramfs needs for these disks, and for the stack between them and the root; None where
        that is not known."""
        if not aliases:
            return None
        try:
            drivers = needed_drivers(root, kernel, aliases, self._runner)
        except LiferaftError as error:
            # One kernel's modules may be gone; what else has to be done to it, and the other kernels, are not hindered.
            self._told.warn(f"the drivers that kernel {kernel} needs here could not be looked for: {error.message}")
            return None
        for alias in drivers.unknown:
            self._told.warn(f"kernel {kernel} of the restored system has no driver for this machine's disk ({alias})")
        return (drivers.needed | self._stack_modules) - builtin_drivers(root, kernel)

    def _listing(self, root: Path, system: InstalledSystem, kernel: str) -> str:
        """The files in an initramfs with their sizes."""
        lister = {"update-initramfs": ("lsinitramfs", "-l", f"/boot/initrd.img-{kernel}")}.get(
            system.initramfs, ("lsinitrd", "--kver", kernel)
        )
        try:
            return self._chroot(root, lister, timeout=600)
        except LiferaftError as error:
            self._told.say(f"The initramfs of {kernel} cannot be listed ({error.message}): it will be made again")
            return ""

    def _rebuild(self, root: Path, system: InstalledSystem, kernel: str, lacking: _Lacking) -> None:
        names = sorted(lacking.modules)
        self._told.say(f"The initramfs of {kernel} lacks {lacking.text}: making it again (this takes minutes)")
        if system.initramfs == "update-initramfs":
            if names:
                _add_modules(root / "etc/initramfs-tools/modules", names)
            self._chroot(root, ("update-initramfs", "-u", "-k", kernel), timeout=_INITRAMFS_TIMEOUT)
        elif system.initramfs == "dracut":
            drivers = ("--add-drivers", " ".join(names)) if names else ()
            self._chroot(root, ("dracut", "--force", *drivers, "--kver", kernel), timeout=_INITRAMFS_TIMEOUT)
        else:
            self._told.warn(f"the initramfs of {kernel} lacks {lacking.text} and nothing here can make it again")
            return
        # An exit code is no evidence: initramfs tools have returned 0 for images that do not boot.
        listing = self._listing(root, system, kernel)
        still = lacking.modules - modules_in(listing)
        if still or not listing:
            self._told.warn(f"the new initramfs of {kernel} still lacks {', '.join(sorted(still)) or 'all files'}")
        else:
            self._told.did(f"initramfs of {kernel} made again with {lacking.text}")
        self._check_opens(system, kernel, listing)

    def _check_opens(self, system: InstalledSystem, kernel: str, listing: str) -> None:
        if system.initramfs == "update-initramfs" and _LUKS in self._stack_modules and not opens_something(listing):
            self._told.warn(
                f"the initramfs of {kernel} does not open the LUKS container that the root filesystem lies in"
            )

    # ---- GRUB for BIOS

    def _below_boot(self, mounted: MountedSystem, root: str, nodes: Mapping[str, Held]) -> tuple[str, ...]:
        """Nodes of the disks that the system's /boot lies on, or its root when that holds it."""
        held = nodes[mounted.nodes.get("/boot", root)]
        if isinstance(held, StackDevice):
            disks = {self._disk.id: self._node}
            disks |= {disk.id: node for node, disk in self.around.other_disks.items()}
            return tuple(disks[disk] for disk in held.disks if disk in disks)
        filesystem = held.filesystem
        if filesystem is None or filesystem.kind is not FilesystemKind.BTRFS:
            return (held.disk,)
        # A btrfs over several disks is one filesystem: all its partitions have its UUID.
        same = (other for other in nodes.values() if isinstance(other, HeldPartition))
        return tuple(
            dict.fromkeys(other.disk for other in same if other.filesystem and other.filesystem.uuid == filesystem.uuid)
        )

    def _install_bios(self, root: Path, system: InstalledSystem, below: Sequence[str]) -> None:
        if "i386-pc" not in system.grub_targets:
            self._told.warn("this machine starts in BIOS mode, but the restored system has no GRUB for BIOS")
            return
        disks = {self._node: self._disk, **self.around.other_disks}
        nodes = bios_disks(self._node, below, disks, read_boot_code)
        if not nodes:
            self._told.warn(
                "GRUB was not installed: the boot code of the disk starts Windows, which would not start any more; "
                "the boot loader is left as it was captured"
            )
            return
        installed = []
        for node in nodes:
            try:
                self._chroot(root, (system.grub, "--target=i386-pc", "--recheck", node), timeout=900)
            except LiferaftError as error:
                # Another one may start the machine; this one would be missed on the day it is needed.
                self._told.warn(f"GRUB for BIOS was not installed on {node}: {error.message}")
                continue
            self._told.did(f"GRUB for BIOS installed on {node}")
            installed.append(node)
        names = ", ".join(name for name in map(_by_id, installed) if name)
        if names and (root / "usr/bin/debconf-set-selections").exists():
            # A stale disk name there lets a later upgrade of grub-pc install its core nowhere.
            line = f"grub-pc grub-pc/install_devices multiselect {names}\n"
            self._chroot(root, ("debconf-set-selections",), stdin=line)
            self._told.did(f"grub-pc will install its upgrades on {names}")

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


def _by_id(node: str) -> str:
    """A name of a disk that survives a change of order, from udev; empty when there is none."""
    found = [path for path in sorted(Path("/dev/disk/by-id").glob("*")) if path.resolve() == Path(node).resolve()]
    return str(found[0]) if found else ""
