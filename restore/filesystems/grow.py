"""Growing a restored filesystem to the size of its partition, through the filesystem's own tools.

Each kind is checked before, grown, and checked once more without writing. What a tool mended on the way is said;
a filesystem that its own reader does not believe (dirty, hibernated) is left as it was restored, and that is said too.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from core.errors import DamagedError, LiferaftError, ProcessError, RefusedError
from core.process import Runner
from images.filesystems.ntfs import read_ntfs
from images.filesystems.swap import read_swap
from images.filesystems.used import UsedMap
from images.model.layout import FilesystemKind
from images.sources import BlockSource, open_source
from restore.boot.mounts import mount, mount_point

#: e2fsck: 0 clean, 1 something was mended.
_E2FSCK_MENDED = 1
#: Bytes of the superblock of btrfs, and where it lies (kernel: include/uapi/linux/btrfs_tree.h, btrfs_super_block).
_BTRFS_SUPER = 65536
_BTRFS_MAGIC_AT, _BTRFS_DEVICES_AT, _BTRFS_DEVICE_AT = 64, 136, 201
#: Seconds: checking and moving metadata of a large filesystem takes its time.
_LONG = 24 * 3600

Warnings = tuple[str, ...]


class Grower(msgspec.Struct, frozen=True):
    """How one kind is grown. ``grow`` takes the node and the runner and gives back what the person should know."""

    tools: tuple[str, ...]
    grow: Callable[[str, Runner], Warnings]


def grow_filesystem(node: str, kind: FilesystemKind, runner: Runner) -> Warnings:
    """Grow the filesystem on the block device ``node`` to fill it.

    Returns:
        what was mended, or why it was left at its size: a line each.

    Raises:
        RefusedError: the kind cannot be grown.
        ProcessError: a tool failed, or the grown filesystem does not pass its check.
    """
    if kind not in GROWERS:
        raise RefusedError(f"A {kind} filesystem cannot be grown by this version.")
    try:
        return GROWERS[kind].grow(node, runner)
    except ProcessError as error:
        hint = f"The data is restored and verified; only the growing failed. Grow the {kind} filesystem later."
        raise ProcessError(error.argv, error.returncode, error.output, hint=hint) from None


def tools_to_grow(kind: FilesystemKind) -> tuple[str, ...]:
    """The programs that growing this kind runs; none for a kind that cannot be grown."""
    return GROWERS[kind].tools if kind in GROWERS else ()


def _grow_ext(node: str, runner: Runner) -> Warnings:
    # resize2fs insists on a check since the last mount; "preen" mends only what is safe without a question.
    checked = runner.run(["e2fsck", "-f", "-p", node], success=frozenset({0, _E2FSCK_MENDED}), timeout=_LONG)
    runner.run(["resize2fs", node], timeout=_LONG)
    runner.run(["e2fsck", "-f", "-n", node], timeout=_LONG)
    return ("e2fsck mended the filesystem before it was grown",) if checked.returncode else ()


def _grow_ntfs(node: str, runner: Runner) -> Warnings:
    """ntfsresize checks the volume before it writes, and leaves a mark that makes Windows check it at its next start.

    The reader that captured it is asked first: growing a volume of a hibernated Windows would lose what that keeps in
    memory, and ntfsresize does not look for it.
    """
    doubt = _doubt(node, read_ntfs)
    if doubt:
        return (f"the volume keeps its size, because {doubt}",)
    # --force answers one question; a volume marked for a check would need it twice and is refused.
    runner.run(["ntfsresize", "--force", "--no-progress-bar", node], timeout=_LONG)
    runner.run(["ntfsresize", "--check", "--force", "--force", "--no-progress-bar", node], timeout=_LONG)
    return ()


def _grow_xfs(node: str, runner: Runner) -> Warnings:
    """XFS grows mounted. Mounting plays the log of one that was not unmounted, as the machine itself would have."""
    with _mounted(node, runner, "nouuid") as place:
        runner.run(["xfs_growfs", "-d", str(place)], timeout=_LONG)
    runner.run(["xfs_repair", "-n", node], timeout=_LONG)
    return ()


def _grow_btrfs(node: str, runner: Runner) -> Warnings:
    """btrfs grows mounted, and one device at a time: it counts them from 1, but need not have a first one any more."""
    with open_source(Path(node)) as source:
        device, devices = _btrfs_device(source, node)
    if devices != 1:
        return (f"the filesystem keeps its size, because it lies on {devices} devices",)
    # A filesystem with the same UUID on another disk of this machine must not be taken for this one.
    runner.run(["btrfs", "device", "scan", "--forget"], timeout=300)
    with _mounted(node, runner, f"device={node}") as place:
        found = runner.run(["findmnt", "--noheadings", "--output", "SOURCE", str(place)], timeout=60).stdout.strip()
        if found.split("[")[0] != node:
            raise LiferaftError(
                f"Mounting {node} gave the btrfs on {found}, which has the same UUID. Neither was changed.",
                hint="Detach the other disk and run the same restore again.",
            )
        runner.run(["btrfs", "filesystem", "resize", f"{device}:max", str(place)], timeout=_LONG)
    runner.run(["btrfs", "check", "--readonly", node], timeout=_LONG)
    return ()


def _grow_swap(node: str, runner: Runner) -> Warnings:
    """A swap area has nothing but its header: it is made again, with the same UUID, label and page size."""
    with open_source(Path(node)) as source:
        found = read_swap(source)
        if found is None or not found.trusted:
            reason = found.reason if found else "it holds no swap header"
            return (f"the swap area keeps its size, because {reason}",)
        if source.read_at(1024, 4) != b"\x01\0\0\0":
            # mkswap writes the byte order of the machine it runs on, and liferaft runs on x86.
            return ("the swap area keeps its size, because its header has the byte order of another machine",)
        area = found.filesystem
    words = ["mkswap", "--quiet", "--pagesize", str(area.block_size)]
    words += ["--uuid", area.uuid or "clear"]
    words += ["--label", area.label] if area.label else []
    runner.run([*words, node], timeout=600)
    with open_source(Path(node)) as source:
        made = read_swap(source)
    if made is None or (made.filesystem.uuid, made.filesystem.label) != (area.uuid, area.label):
        raise DamagedError(f"{node}: mkswap did not write the swap area with UUID {area.uuid} and label {area.label}.")
    return ()


GROWERS = {
    FilesystemKind.EXT2: Grower(("e2fsck", "resize2fs"), _grow_ext),
    FilesystemKind.EXT3: Grower(("e2fsck", "resize2fs"), _grow_ext),
    FilesystemKind.EXT4: Grower(("e2fsck", "resize2fs"), _grow_ext),
    FilesystemKind.NTFS: Grower(("ntfsresize",), _grow_ntfs),
    FilesystemKind.XFS: Grower(("mount", "umount", "xfs_growfs", "xfs_repair"), _grow_xfs),
    FilesystemKind.BTRFS: Grower(("mount", "umount", "findmnt", "btrfs"), _grow_btrfs),
    FilesystemKind.SWAP: Grower(("mkswap",), _grow_swap),
}


def _doubt(node: str, read: Callable[[BlockSource], UsedMap | None]) -> str:
    """Why a filesystem's own reader does not believe it; empty when it does."""
    with open_source(Path(node)) as source:
        found = read(source)
        if found is None:
            return "no filesystem of its kind was found in it"
        return "" if found.trusted else found.reason


def _btrfs_device(source: BlockSource, node: str) -> tuple[int, int]:
    """The number of this device in its btrfs, and how many devices that has.

    Raises:
        DamagedError: there is no superblock.
    """
    end = _BTRFS_SUPER + 4096
    block = source.read_at(_BTRFS_SUPER, 4096) if source.size >= end else b""
    if block[_BTRFS_MAGIC_AT : _BTRFS_MAGIC_AT + 8] != b"_BHRfS_M":
        raise DamagedError(f"{node}: no superblock of btrfs at byte {_BTRFS_SUPER}.")
    device = int.from_bytes(block[_BTRFS_DEVICE_AT : _BTRFS_DEVICE_AT + 8], "little")
    return device, int.from_bytes(block[_BTRFS_DEVICES_AT : _BTRFS_DEVICES_AT + 8], "little")


@contextlib.contextmanager
def _mounted(node: str, runner: Runner, option: str) -> Iterator[Path]:
    with mount_point("liferaft-grow-") as folder:
        with mount(node, folder, runner, "--options", f"{option},nosuid,nodev,noexec") as place:
            yield place
