"""The EFI system partitions of a restored system: GRUB on each of them, and entries in the firmware for them.

A machine that starts from either of two disks has an EFI system partition on each. Only one is mounted at /boot/efi;
who keeps the others in step is the system's own business, but after a restore all of them are to start it.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from core.errors import LiferaftError
from core.process import Runner
from images.model.filesystem import MemberKind
from images.model.layout import PartitionRole
from restore.boot.held import Held, HeldPartition
from restore.boot.inside import run_inside
from restore.boot.mounts import MountedSystem, mount, mount_point
from restore.boot.system import InstalledSystem, UefiNames, uefi_names
from restore.boot.told import Told
from restore.boot.within import folder_within
from restore.stack.mountable import StackDevice

#: Where the kernel shows the firmware's variables.
EFI_VARIABLES = Path("/sys/firmware/efi/efivars")
_USUAL = "/boot/efi"
#: GRUB's installer on systems whose own packages run it for UEFI, too.
_OURS = "grub-install"
_UUID = re.compile(r"\b[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b")
#: What efibootmgr prints: the order, and of each entry its number and whether it is active.
_ORDER = re.compile(r"^BootOrder: ([0-9A-F,]+)$", re.MULTILINE)
_ENTRY = re.compile(r"^Boot([0-9A-F]{4})([* ]) ?(.*)$", re.MULTILINE)
#: What a loader's path in such a line may follow, and what would make it another path: it is in brackets before version
#: 18, and the entry's options come right behind it.
_LOADER_BEGINS, _LOADER_ENDS = r"[/(\\]", r"(?![\\-]|\.\w)"


class Started(msgspec.Struct, frozen=True):
    """What the firmware is to start: the system's own loader, as firmware spells paths, on one partition."""

    esp: HeldPartition
    loader: str


def other_esps(mounted: MountedSystem, nodes: Mapping[str, Held]) -> dict[str, HeldPartition]:
    """The EFI system partitions of the restored disks, by node, but for the one at /boot/efi."""
    return {
        node: held
        for node, held in nodes.items()
        if isinstance(held, HeldPartition)
        and held.partition.role is PartitionRole.ESP
        and held.filesystem is not None
        and held.filesystem.kind.startswith("fat")
        and node != mounted.nodes.get(_USUAL)
    }


@contextlib.contextmanager
def esp_folder(node: str, mounted: MountedSystem, runner: Runner, *options: str) -> Iterator[Path]:
    """An EFI system partition as a folder in the system: where its fstab has it, or in its /run until the block ends.

    Args:
        options: of mount(8). One of another system is only looked at: it is to stay as it was captured, to the byte.

    Raises:
        LiferaftError: it could not be mounted.
    """
    place = next((place for place, taken in mounted.nodes.items() if taken == node), "/run")
    folder = folder_within(mounted.root, place)
    if folder is None or not folder.is_dir():
        raise LiferaftError(f"The system has no {place} to mount {node} in.")
    if place != "/run":
        yield folder
        return
    with mount_point("liferaft-esp-", folder) as made, mount(node, made, runner, *options):
        yield made


def install_uefi(
    mounted: MountedSystem, system: InstalledSystem, nodes: Mapping[str, Held], runner: Runner, told: Told
) -> tuple[Started, ...]:
    """GRUB on the EFI system partition at /boot/efi, and on all others that start the same system already.

    Args:
        nodes: the partitions and devices of the restored disks.

    Returns:
        what the firmware is to be told, the most wanted first.
    """
    if not system.esp:
        told.warn("this machine starts in UEFI mode, but no EFI system partition is mounted at /boot/efi")
        return ()
    names = uefi_names(os.uname().machine)
    root, started = mounted.root, []
    mark = _mark(root / "boot/efi", system, names)
    # Where the program is grub2-install, GRUB for UEFI is signed and comes from packages: what the program would put in
    # its place is not; Fedora's refuses, others break Secure Boot.
    grub = names.grub in system.grub_targets and system.grub == _OURS
    if grub:
        try:
            _install(root, "/boot/efi", names.grub, runner)
            told.did("GRUB for UEFI installed on the EFI system partition")
        except LiferaftError as error:
            # The one that was captured may do, and the firmware has to be told of it all the same.
            told.warn(f"GRUB for UEFI was not installed on the EFI system partition: {error.message}")
    elif names.grub in system.grub_targets:
        told.say("The restored system has a signed GRUB for UEFI; its EFI files are kept as captured")
    else:
        told.say("The restored system has no GRUB modules for UEFI; its EFI files are kept as captured")
    if not has_fallback(root / "boot/efi", names.fallback):
        told.warn(f"the EFI system partition has no {names.fallback}: the firmware may not find the system")
    loader = own_loader(root / "boot/efi", system, os.uname().machine)
    started += [Started(held, loader) for held in _behind(mounted, nodes)]
    for node, held in other_esps(mounted, nodes).items():
        try:
            with esp_folder(node, mounted, runner, "--options=ro") as folder:
                theirs = own_loader(folder, system, os.uname().machine)
                # Another system of the same name may have one, and is to stay what it starts.
                if not theirs or not mark & _mark(folder, system, names):
                    continue
            if grub:
                with esp_folder(node, mounted, runner) as folder:
                    _install(root, f"/{folder.relative_to(root)}", names.grub, runner)
                told.did(f"GRUB for UEFI installed on the EFI system partition of {held.disk}, too")
            started.append(Started(held, theirs))
        except (LiferaftError, OSError) as error:
            # One of them starts the machine; the other one would be missed on the day it is needed.
            why = error.message if isinstance(error, LiferaftError) else f"{error.strerror}."
            told.warn(f"the EFI system partition of {held.disk} was not repaired: {why}")
    return tuple(started)


def _mark(esp: Path, system: InstalledSystem, names: UefiNames) -> frozenset[str]:
    """By what an EFI system partition tells which system it starts: the filesystems that GRUB's configuration names
    there, or GRUB itself, which has them in it where there is none."""
    folder = esp / "EFI" / system.folder
    stub, grub = folder / "grub.cfg", folder / names.loaders[-1]
    if stub.is_file():
        return frozenset(found.lower() for found in _UUID.findall(stub.read_text(errors="replace")))
    return frozenset({hashlib.sha256(grub.read_bytes()).hexdigest()}) if grub.is_file() else frozenset()


def _install(root: Path, folder: str, platform: str, runner: Runner) -> None:
    words = [_OURS, f"--target={platform}", f"--efi-directory={folder}", "--no-nvram"]
    if "--force-extra-removable" in run_inside(root, (_OURS, "--help"), runner):
        words.append("--force-extra-removable")
    run_inside(root, words, runner, timeout=900)


def _behind(mounted: MountedSystem, nodes: Mapping[str, Held]) -> tuple[HeldPartition, ...]:
    """The partitions behind /boot/efi as the firmware sees them: the members of a mirror are one each."""
    held = nodes.get(mounted.nodes.get(_USUAL, ""))
    if isinstance(held, HeldPartition):
        return (held,)
    if not isinstance(held, StackDevice):
        return ()
    return tuple(
        other
        for other in nodes.values()
        if isinstance(other, HeldPartition)
        and other.partition.role is PartitionRole.ESP
        and other.filesystem is not None
        and other.filesystem.detail == MemberKind.MD
    )


def tell_firmware(
    started: tuple[Started, ...], system: InstalledSystem, runner: Runner, told: Told, variables: Path = EFI_VARIABLES
) -> None:
    """A boot entry for each, from the rescue system and not from the chroot. The fallback path is what counts.

    Args:
        variables: the folder of the firmware's variables; without them it is not told.
    """
    # An entry names its partition by the GUID, which those of a dos table have not.
    named = [one for one in started if one.esp.partition.uuid is not None]
    if not named or not variables.is_dir() or not any(variables.iterdir()):
        return
    # What is made last is what the firmware tries first (efibootmgr(8), --create).
    for one in reversed(named):
        if not one.loader:
            told.say("No boot entry is written: the EFI system partition has no loader of the system's own")
            continue
        try:
            _tell(one, named[0], system, runner, told)
        except LiferaftError as error:
            fallback = uefi_names(os.uname().machine).fallback
            told.warn(f"the firmware took no boot entry ({error.message}); it will use {fallback}")


def _tell(one: Started, first: Started, system: InstalledSystem, runner: Runner, told: Told) -> None:
    esp = one.esp.partition
    before = runner.run(["efibootmgr", "--verbose"], timeout=60).stdout
    if _has_entry(before, one):
        told.did(f"the firmware already has a boot entry for {one.esp.disk}")
        return
    words = ["efibootmgr", "--create", "--disk", one.esp.disk, "--part", str(esp.number)]
    after = runner.run([*words, "--label", system.id, "--loader", one.loader], timeout=60).stdout
    if one is not first and _has_entry(before, first):
        # It comes last: the system keeps the one that it mounts up to date, and is to start from that as before.
        order = tuple(dict.fromkeys((*_boot_order(before), *_boot_order(after))))
        runner.run(["efibootmgr", "--bootorder", ",".join(order)], timeout=60)
    told.did(f"boot entry {system.id} for {one.esp.disk} written to the firmware")


def _has_entry(entries: str, one: Started) -> bool:
    """Whether the firmware, by what ``efibootmgr --verbose`` lists, starts this loader from this partition by itself.

    An entry of another system on the same EFI system partition does not, nor does one that is switched off or stands
    in no order. One for the fallback path is made and deleted by firmware as it likes.
    """
    path = re.escape(one.loader.lstrip("\\"))
    loader = re.compile(f"{_LOADER_BEGINS}{path}{_LOADER_ENDS}", re.IGNORECASE)
    partition = str(one.esp.partition.uuid).lower()
    order = _boot_order(entries)
    return any(
        number in order and active == "*" and partition in shown.lower() and loader.search(shown) is not None
        for number, active, shown in _ENTRY.findall(entries)
    )


def _boot_order(entries: str) -> tuple[str, ...]:
    """The numbers of what the firmware tries, in order, of entries that there are: efibootmgr takes no others."""
    found = _ORDER.search(entries)
    there = {number for number, _, _ in _ENTRY.findall(entries)}
    return tuple(number for number in found[1].split(",") if number in there) if found else ()


def has_fallback(esp: Path, fallback: str) -> bool:
    """Whether an EFI system partition, mounted at ``esp``, has it. FAT knows no case, but the mount may."""
    names = {str(path.relative_to(esp)).lower() for path in esp.glob("EFI/*/*")}
    return fallback.lower() in names


def own_loader(esp: Path, system: InstalledSystem, machine: str) -> str:
    """The system's own loader on an EFI system partition, mounted at ``esp``, for a processor (``uname -m``), as
    firmware spells paths; empty when there is none."""
    for name in uefi_names(machine).loaders:
        if (esp / "EFI" / system.folder / name).exists():
            return rf"\EFI\{system.folder}\{name}"
    return ""
