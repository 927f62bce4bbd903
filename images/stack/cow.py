"""Writable copies in memory over devices that must not be written: device-mapper snapshots that are thrown away.

For what the kernel refuses to map read-only (thin pools: drivers/md/dm-thin.c, DM_TARGET_IMMUTABLE and no read-only
table). What is written goes to a sparse file in a folder of memory; the device below is only read.
"""

import contextlib
import tempfile
from pathlib import Path

from core.process import Runner
from core.stopping import lasting
from images.loop import loop_device

#: Bytes that may be written before the copy is invalid: a thin pool commits a few blocks when it is activated.
_ROOM = 256 << 20
_SECTOR = 512


def writable_copy(node: str, name: str, folder: Path, runner: Runner, closing: contextlib.ExitStack) -> str:
    """A device that reads as ``node`` and may be written.

    Args:
        name: of the mapping. folder: in memory; a file of at most 256 MiB grows in it.
        closing: takes it down again.

    Raises:
        ProcessError, MissingToolError: losetup or dmsetup failed.
    """
    size = int(runner.run(["blockdev", "--getsize64", node], timeout=60).stdout)
    store = closing.enter_context(tempfile.NamedTemporaryFile(dir=folder, prefix="liferaft-cow-"))
    store.truncate(_ROOM)
    loop = closing.enter_context(loop_device(store.name, runner))
    # Kernel Documentation/admin-guide/device-mapper/snapshot.rst: N (not persistent), chunks of 8 sectors.
    table = f"0 {size // _SECTOR} snapshot {node} {loop} N 8"
    # No udev rules: nobody else shall find a second device with the same marks and use it.
    quietly = ["--noudevrules", "--noudevsync"]
    node_made = Path("/dev/mapper", name)
    # udev was kept away, so that nobody but us makes the node and takes it away.
    closing.callback(node_made.unlink, missing_ok=True)
    closing.enter_context(
        lasting(
            lambda: runner.run(["dmsetup", "create", name, *quietly, "--table", table], timeout=60),
            lambda _: runner.run(["dmsetup", "remove", "--retry", *quietly, name], timeout=60),
        )
    )
    runner.run(["dmsetup", "mknodes", name], timeout=60)
    return str(node_made)
