"""Device nodes for the partitions of a restored target.

The kernel's own partition device where it has one; a loop device over the range for image files and
for loop devices that the kernel does not scan.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from core.errors import DeviceError, ProcessError, RefusedError
from core.process import Runner
from images.loop import loop_device
from images.model.layout import Partition


def reread_table(node: str, runner: Runner) -> None:
    """Tell the kernel about the new partitions of a disk, and wait for udev. Nothing to do for a file.

    Raises:
        DeviceError: the kernel does not take the new table because something holds the old one.
    """
    if not stat.S_ISBLK(Path(node).stat().st_mode):
        return
    if Path(node).name.startswith("loop"):
        if _scans_partitions(node):
            # The kernel may know no kind of table itself; partx reads it and tells the kernel each partition.
            runner.run(["partx", "--update", node], timeout=60)
        return
    try:
        runner.run(["blockdev", "--rereadpt", node], timeout=60)
    except ProcessError:
        # udev may be probing at this very moment: wait for it and ask once more.
        runner.run(["udevadm", "settle", "--timeout=30"], timeout=60)
        try:
            runner.run(["blockdev", "--rereadpt", node], timeout=60)
        except ProcessError as error:
            raise DeviceError(f"The kernel does not take the new partition table of {node}: {error.message}") from None
    runner.run(["udevadm", "settle", "--timeout=30"], timeout=60)


@contextlib.contextmanager
def attached_disk(node: str, sector_size: int, runner: Runner) -> Iterator[str]:
    """The disk or image ``node`` as a block device with partitions of its own; a disk is one already.

    GRUB's programs find out by the kernel's devices which partition of which disk they look at; with a loop device for
    each partition they would see disks that have nothing to do with each other.
    """
    if stat.S_ISBLK(Path(node).stat().st_mode) or os.geteuid() != 0:
        yield node
        return
    with loop_device(node, runner, "--partscan", f"--sector-size={sector_size}") as loop:
        reread_table(loop, runner)
        yield loop


@contextlib.contextmanager
def partition_node(node: str, partition: Partition, sector_size: int, runner: Runner) -> Iterator[str]:
    """A block device for one partition of the disk or image ``node``.

    Raises:
        RefusedError: there is none and a loop device needs root.
    """
    own = _kernel_node(node, partition.number)
    if own is not None:
        yield own
        return
    if os.geteuid() != 0:
        raise RefusedError(
            f"Partition {partition.number} of {node} needs a loop device, and that needs root.",
            hint="Run as root, or restore without --grow and boot repair.",
        )
    extent = partition.extent(sector_size)
    options = (f"--offset={extent.start}", f"--sizelimit={extent.size}", f"--sector-size={sector_size}")
    with loop_device(node, runner, *options) as loop:
        yield loop


def _scans_partitions(loop: str) -> bool:
    """Whether a loop device takes partitions: it was attached with ``--partscan``."""
    flag = Path("/sys/class/block") / Path(loop).name / "loop/partscan"
    return flag.exists() and flag.read_text().strip() == "1"


def _kernel_node(node: str, number: int) -> str | None:
    folder = Path("/sys/class/block") / Path(node).name
    for entry in folder.glob("*/partition"):
        if entry.read_text().strip() == str(number):
            return f"/dev/{entry.parent.name}"
    return None
