"""Which of the restored disks gets GRUB's boot code for BIOS, by tables and boot code. Nothing is written here."""

from collections.abc import Callable, Mapping
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


def bios_disk(planned: str, holder: str, disks: Mapping[str, Disk], boot_code: Callable[[str], bytes]) -> str | None:
    """The node of the disk that gets GRUB: where it was, where the system's /boot lies, or as planned.

    A disk whose boot code starts Windows, and that was not GRUB's before, is never it: Windows would start no more.

    Args:
        planned: the node of the disk that the plan names.
        holder: the node of the disk with /boot, or with the root when that holds it; empty when they lie on several.
        disks: the restored disks by node. boot_code: reads it from a node.

    Returns:
        None when each of them is Windows'.
    """
    codes = {node: boot_code(node) for node in disks}
    was_grub = [node for node, code in codes.items() if _GRUB in code]
    # Boot code of zeros starts nothing.
    free = [node for node, disk in disks.items() if node in was_grub or not (starts_windows(disk) and any(codes[node]))]
    wishes = [node for node in (holder, planned) if node in was_grub]
    wishes += [node for node in (holder,) if node in free and _is_started(disks[node])]
    wishes += [node for node in (planned, *was_grub, holder) if node in free]
    return wishes[0] if wishes else None


def _is_started(disk: Disk) -> bool:
    """Whether its table is made for BIOS to start from it."""
    parts = disk.table.partitions if disk.table else ()
    return any(part.active or part.role is PartitionRole.BIOS_BOOT for part in parts)
