"""Backing: which file lies behind a loop device, by what all names of the file have in common. Nothing is opened."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from images.probe import BlockDevice


def inode_of(path: Path) -> str:
    """What all names of a file have in common; empty when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def backing_inode(node: str) -> str:
    """The inode of the file behind a loop device; its name may have changed since it was attached."""
    with contextlib.suppress(OSError):
        return inode_of(_backing_file(node))
    return ""


def loops_over(path: Path, devices: Sequence[BlockDevice]) -> Iterator[str]:
    """The loop devices over a file, under whichever of its names it was attached."""
    inode = inode_of(path)
    for device in devices:
        if device.type == "loop":
            with contextlib.suppress(OSError):
                if _backing_file(device.kname) == path or (inode and backing_inode(device.kname) == inode):
                    yield device.name


def _backing_file(node: str) -> Path:
    return Path((Path("/sys/block") / Path(node).name / "loop/backing_file").read_text().strip())
