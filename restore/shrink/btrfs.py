"""Making btrfs smaller: what it needs at least by its superblock, and the kernel's own resize of a mounted file.

btrfs moves whole chunks, so that how much it needs is known only when it has done it: an estimate.
"""

from pathlib import Path

from core.errors import DamagedError, LiferaftError
from core.process import Runner
from core.units import MIB
from images.filesystems.partclone_btrfs import OFFSET, SIZE, checksum_matches
from images.loop import loop_device
from images.sources import BlockSource
from restore.boot.mounts import mount, mount_point
from restore.shrink.needs import Needs

TOOLS = ("losetup", "mount", "umount", "findmnt", "btrfs")
_MAGIC = b"_BHRfS_M"
_LONG = 24 * 3600
#: Below this the kernel resizes nothing (fs/btrfs/ioctl.c, btrfs_ioctl_resize).
_LEAST = 256 * MIB
#: What is added to the bytes in use: a chunk is moved only into whole free chunks, and metadata is kept twice.
_SPARE, _SPARE_BYTES = 4, 256 * MIB


def least_btrfs(source: BlockSource) -> Needs:
    """What a btrfs needs, by estimate.

    Raises:
        DamagedError: there is no superblock, or it does not match its checksum. DeviceError: it cannot be read.
    """
    block = _superblock(source)
    devices = int.from_bytes(block[136:144], "little")
    if devices != 1:
        return Needs(size=source.size, reason=f"it lies on {devices} devices")
    used = int.from_bytes(block[120:128], "little")
    return Needs(size=min(max(used + used // _SPARE + _SPARE_BYTES, _LEAST), source.size), estimate=True)


def shrink_btrfs(path: Path, size: int, runner: Runner) -> tuple[str, ...]:
    """Make the filesystem in ``path`` smaller; ``size`` in bytes. Needs root. The file keeps its length.

    Raises:
        ProcessError: a tool failed: there is too little room for its chunks, say.
        LiferaftError: the kernel took another device for this one.
    """
    with loop_device(str(path), runner) as node:
        # A filesystem with the same UUID on another disk of this machine must not be taken for this one.
        runner.run(["btrfs", "device", "scan", "--forget"], timeout=300)
        with mount_point("liferaft-shrink-") as folder:
            options = f"device={node},nosuid,nodev,noexec"
            with mount(node, folder, runner, "--options", options) as place:
                listed = runner.run(["findmnt", "--noheadings", "--output", "SOURCE", str(place)], timeout=60).stdout
                if listed.strip().split("[")[0] != node:
                    raise LiferaftError(
                        f"Mounting the copy gave the btrfs on {listed.strip()}, which has the same UUID.",
                        hint="Detach the other disk and run the same restore again.",
                    )
                device = _device(runner, place)
                runner.run(["btrfs", "filesystem", "resize", f"{device}:{size}", str(place)], timeout=_LONG)
        runner.run(["btrfs", "check", "--readonly", node], timeout=_LONG)
    return ()


def _device(runner: Runner, place: Path) -> int:
    """The number of the one device: they count from 1, but the first one may have been taken away once.

    Raises:
        DamagedError: btrfs does not say.
    """
    lines = runner.run(["btrfs", "filesystem", "show", "--raw", str(place)], timeout=300).stdout.splitlines()
    numbers = [line.split()[1] for line in lines if line.split()[:1] == ["devid"]]
    if len(numbers) != 1 or not numbers[0].isdigit():
        raise DamagedError(f"btrfs names {len(numbers)} devices of the copy, expected 1.")
    return int(numbers[0])


def _superblock(source: BlockSource) -> bytes:
    block = source.read_at(OFFSET, SIZE) if source.size >= OFFSET + SIZE else b""
    if block[64:72] != _MAGIC:
        raise DamagedError(f"The superblock of btrfs at byte {OFFSET} is missing.")
    if not checksum_matches(block, int.from_bytes(block[196:198], "little")):
        raise DamagedError(f"The superblock of btrfs at byte {OFFSET} does not match its checksum.")
    return block
