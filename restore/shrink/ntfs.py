"""Making NTFS smaller: what it needs at least, and ntfsresize on a file.

ntfsresize moves clusters and checks the whole volume before it does; it is asked only about a volume that our own
reader believes, because it does not look for a hibernated Windows. It leaves a mark that makes Windows check the volume
at its next start (ntfsresize(8)), which stays: that check is the only one by NTFS's own makers.
"""

from pathlib import Path

from core.errors import DamagedError
from core.process import Runner
from core.units import MIB
from images.filesystems.ntfs import read_ntfs
from images.model.extents import total
from images.sources import BlockSource
from restore.shrink.needs import Needs

TOOLS = ("ntfsresize",)
NOTE = "Windows will check the volume that was made smaller at its next start"
_LONG = 24 * 3600
#: What is added to the clusters in use, in parts of them and in bytes at least: run lists grow when files are moved.
_SPARE, _SPARE_BYTES = 32, 2 * MIB


def least_ntfs(source: BlockSource) -> Needs:
    """What an NTFS volume needs: an estimate, because ntfsresize looks at every file before it says that it can.

    Raises:
        DamagedError: there is none. DeviceError: the source cannot be read.
    """
    used = read_ntfs(source)
    if used is None:
        raise DamagedError("The boot sector of NTFS is missing at byte 0.")
    if not used.trusted:
        return Needs(size=source.size, reason=used.reason)
    taken = total(used.extents())
    size = taken + max(taken // _SPARE, _SPARE_BYTES)
    return Needs(size=min(size, source.size), estimate=True)


def shrink_ntfs(path: Path, size: int, runner: Runner) -> tuple[str, ...]:
    """Make the volume in ``path`` smaller, for a partition of ``size`` bytes: the copy of its boot sector is the last
    sector of those. The file keeps its length.

    Returns:
        what the person should know, a line each.

    Raises:
        ProcessError: ntfsresize refused or failed, or the result does not pass its check.
    """
    # --force answers the one question it asks; a volume marked for a check would need it twice and is refused.
    runner.run(["ntfsresize", "--force", "--no-progress-bar", "--size", str(size), str(path)], timeout=_LONG)
    runner.run(["ntfsresize", "--check", "--force", "--force", "--no-progress-bar", str(path)], timeout=_LONG)
    return (NOTE,)
