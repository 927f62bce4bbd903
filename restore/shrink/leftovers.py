"""What a run that was killed leaves behind: mounts of FUSE that nobody answers any more.

Who is killed cannot unmount. The next run does; mounts that somebody answers, and those of others, are left alone.
"""

import contextlib
import errno
import os
import re
from pathlib import Path

from core.errors import ProcessError
from core.process import Runner

#: The first field of such a mount in mountinfo(5), and how its folder is called.
FSNAME = "liferaft"
PREFIX = "liferaft-"
_MOUNTS = Path("/proc/self/mountinfo")
_TYPES = frozenset({"fuse", "fuseblk"})


def end_dead_mounts(runner: Runner, mounts: Path = _MOUNTS) -> tuple[Path, ...]:
    """Unmount what dead processes of ours left mounted, and remove its folders; gives them."""
    gone = []
    for folder in _mounted(mounts):
        if not _is_dead(folder):
            continue
        try:
            runner.run(["fusermount3", "-u", "-z", str(folder)], timeout=60)
        except ProcessError:
            # Another user's: it is no hindrance, and not ours to take away.
            continue
        with contextlib.suppress(OSError):
            folder.rmdir()
        gone.append(folder)
    return tuple(gone)


def _mounted(mounts: Path) -> list[Path]:
    """Folders of ours that are mounted through FUSE."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        # proc_pid_mountinfo(5): the mount point is the fifth field; behind " - " come type and source.
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 2 or kind[0] not in _TYPES or kind[1] != FSNAME:
            continue
        folder = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]))
        if folder.name.startswith(PREFIX):
            found.append(folder)
    return found


def _is_dead(folder: Path) -> bool:
    """Whether nobody answers for a mount (ENOTCONN: the process behind it is gone)."""
    try:
        # Not stat(): the kernel answers that from memory for a while.
        os.statvfs(folder)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False
