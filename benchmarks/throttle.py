"""A device that takes fewer bytes a second: the kernel's own throttle, for this process and those it starts.

Scratch disks of clouds write as fast as they read; the drives people restore to do not.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_NAME = f"liferaft-benchmark-{os.getpid()}"


@contextlib.contextmanager
def slow_writes(place: Path, bytes_per_second: int) -> Iterator[None]:
    """Limit what reaches the device below ``place``, by writing to it directly.

    Raises:
        SystemExit: there is no control group for that here, or this is not root.
    """
    number = os.stat(place).st_dev  # noqa: PTH116 - the device, not the file
    # A partition is not throttled: its disk is.
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    disk = device.parent if (device / "partition").exists() else device
    unified = (_CGROUPS / "cgroup.controllers").exists()
    home = _CGROUPS if unified else _CGROUPS / "blkio"
    group = home / _NAME
    try:
        major_minor = (disk / "dev").read_text().strip()
        if unified:
            (home / "cgroup.subtree_control").write_text("+io")
        group.mkdir()
        if unified:
            (group / "io.max").write_text(f"{major_minor} wbps={bytes_per_second}")
        else:
            (group / "blkio.throttle.write_bps_device").write_text(f"{major_minor} {bytes_per_second}")
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        raise SystemExit(
            f"Writes cannot be slowed down here ({error}): this row needs root and control groups."
        ) from None
    try:
        yield
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()
