"""Which of the restored disks get GRUB's boot code for BIOS, by tables and boot code. Nothing is written here."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from images.model.layout import Disk, PartitionRole
from images.sources import open_source
from images.tables import c_dos
from restore.fit.conversion import starts_windows

#: What GRUB's boot code says when it cannot go on (GRUB: grub-core/boot/i386/pc/boot.S, notification_string).
_GRUB = b"GRUB "


def read_boot_code(node: str) -> bytes:
    """The boot code in the first sector of a disk. Raises DeviceError."""
    with open_source(Path(node)) as source:
        return source.read_at(0, c_dos.BOOT_CODE_SIZE)


def bios_disks(
    planned: str, below: Sequence[str], disks: Mapping[str, Disk], boot_code: Callable[[str], bytes]
) -> tuple[str, ...]:
    """The nodes of the disks that get GRUB, the one to start from first.

    One is where GRUB was, where the system's /boot lies, or as planned. When /boot lies on several (a mirror), those of
    them that GRUB started from get it, too: each has boot code and a core of its own, and any may be the only one left.
    So do those that have a BIOS boot partition and no boot code yet, as a disk whose table was made anew does.
    A disk whose boot code starts Windows, and that was not GRUB's before, is never one: Windows would start no more.

    Args:
        planned: the node of the disk that the plan names.
        below: nodes of the disks on which /boot lies, or the root when that holds it; empty when it is not known.
        disks: the restored disks by node. boot_code: reads it from a node.

    Returns:
        none when each of them is Windows'.
    """
    codes = {node: boot_code(node) for node in disks}
    was_grub = [node for node, code in codes.items() if _GRUB in code]
    # Boot code of zeros starts nothing.
    free = [node for node, disk in disks.items() if node in was_grub or not (starts_windows(disk) and any(codes[node]))]
    holder = below[0] if len(below) == 1 else ""
    wishes = [node for node in (holder, planned, *below) if node in was_grub]
    wishes += [node for node in (holder,) if node in free and _is_started(disks[node])]
    wishes += [node for node in (planned, *was_grub, holder) if node in free]
    mirrors = below if len(below) > 1 else ()
    also = [node for node in mirrors if node in was_grub or (_has_place(disks[node]) and not any(codes[node]))]
    return tuple(dict.fromkeys((wishes[0], *also))) if wishes else ()


def _is_started(disk: Disk) -> bool:
    """Whether its table is made for BIOS to start from it."""
    parts = disk.table.partitions if disk.table else ()
    return _has_place(disk) or any(part.active for part in parts)


def _has_place(disk: Disk) -> bool:
    """Whether it has a partition for nothing but GRUB's core."""
    parts = disk.table.partitions if disk.table else ()
    return any(part.role is PartitionRole.BIOS_BOOT for part in parts)
