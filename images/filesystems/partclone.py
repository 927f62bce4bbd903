"""Used blocks by partclone, of the filesystems that liferaft does not read itself.

This is no reader in the sense of its neighbours: it starts a program and needs a device. So it stands apart, and
:func:`images.filesystems.detect.read_used` is given it by whoever has a :class:`~core.process.Runner`. partclone
gets a loop device that the kernel holds read-only, over the range in question: partclone.jfs opens its source for
writing, and a partition of a file has no node of its own. What it answers is untrusted input, like what it read.
"""

import contextlib
import io
import os
import re
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import DamagedError, DeviceError, LiferaftError, ProcessError
from core.process import Runner, find_tool
from images.filesystems.partclone_judge import Judgement, judge
from images.filesystems.used import UsedMap, whole
from images.loop import loop_device
from images.model.extents import Extent
from images.model.layout import Filesystem, FilesystemKind
from images.signatures import Signature
from images.sources import BlockSource, FileSource, WindowSource

#: libblkid's names of what partclone may be asked about, and partclone's own.
_TOOLS = {
    "btrfs": (FilesystemKind.BTRFS, "partclone.btrfs"),
    "f2fs": (FilesystemKind.F2FS, "partclone.f2fs"),
    "hfsplus": (FilesystemKind.HFSPLUS, "partclone.hfsplus"),
    "apfs": (FilesystemKind.APFS, "partclone.apfs"),
    "jfs": (FilesystemKind.JFS, "partclone.jfs"),
    "nilfs2": (FilesystemKind.NILFS2, "partclone.nilfs2"),
    "reiserfs": (FilesystemKind.REISERFS, "partclone.reiserfs"),
    "reiser4": (FilesystemKind.REISER4, "partclone.reiser4"),
    "minix": (FilesystemKind.MINIX, "partclone.minix"),
}
#: partclone builds its map in seconds; a disk that stalls, or a tree that goes round in circles, ends here.
_TIMEOUT = 900.0
#: Bytes of an answer: some 1.5 million extents. A filesystem in more pieces is captured whole.
_MAX_DOMAIN = 64 << 20
_MAX_LOG = 16 << 20
#: Rows of a map that become extents at once.
_TOGETHER = 1 << 14
#: What partclone and the libraries in it say of what they could not read or place, before they go on without.
_COMPLAINT = re.compile(r"fail|error|couldn't|invalid|no mapping|corrupt|\): BUG", re.IGNORECASE)


class Partclone:
    """Asks partclone. Give its :meth:`read` to :func:`~images.filesystems.detect.read_used`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def read(self, source: BlockSource, signature: Signature) -> UsedMap | None:
        """Which extents hold data; None when partclone knows nothing of what libblkid found.

        The whole volume, with the reason, when the filesystem is not clean, partclone refuses or is missing, or its
        answer cannot be right.

        Raises:
            DeviceError: the start of the source cannot be read.
        """
        if signature.name not in _TOOLS:
            return None
        kind, tool = _TOOLS[signature.name]
        judgement = judge(kind, source)
        filesystem = Filesystem(
            kind=kind,
            detail=signature.name,
            uuid=signature.uuid,
            label=signature.label,
            block_size=judgement.block_size,
            size=judgement.size,
        )
        if judgement.doubt:
            return whole(filesystem, source.size, judgement.doubt)
        try:
            rows = self._ask(tool, source, judgement)
        except LiferaftError as error:
            return whole(filesystem, source.size, error.message.rstrip("."))
        return UsedMap(filesystem=filesystem, trusted=True, extents=lambda: _extents(rows))

    def _ask(self, tool: str, source: BlockSource, judgement: Judgement) -> NDArray[np.int64]:
        """Rows of start and end of the extents in use, checked, merged and sorted.

        Raises:
            LiferaftError: why there is no answer, or none to be believed.
        """
        if find_tool(tool) is None:
            raise DeviceError(f"{tool} is not installed")
        if os.geteuid() != 0:
            raise DeviceError(f"asking {tool} needs root")
        with tempfile.TemporaryDirectory(prefix="liferaft-") as folder, _loop(self._runner, source) as device:
            domain, log = Path(folder) / "domain", Path(folder) / "log"
            argv = [tool, "--domain", "--debug=1", "--source", device, "--output", str(domain), "--logfile", str(log)]
            try:
                result = self._runner.run(argv, timeout=_TIMEOUT)
            except ProcessError as error:
                complaint = _complaint(folder, _text(log), error.output)
                raise DeviceError(f"{tool} refused: {complaint or error.message}") from None
            complaint = _complaint(folder, _text(log), result.stdout, result.stderr)
            if complaint:
                raise DamagedError(f"{tool} did not see all of it: {complaint}")
            rows = parse_domain(_bounded(domain), source.size)
        return plausible(tool, rows, judgement)


def parse_domain(content: bytes, size: int) -> NDArray[np.int64]:
    """A ddrescue domain map: rows of start and end of what is in use, in bytes; the last row is empty, the map's end.

    Args:
        size: of the volume; the map may be shorter.

    Raises:
        DamagedError: the map has gaps, is out of order, ends early or leaves the volume.
    """
    lines = (line.split() for line in io.BytesIO(content) if line.strip() and not line.startswith(b"#"))
    # Millions of lines: numbers side by side, not an object for each.
    used = array("q")
    position = 0
    try:
        end = int(next(lines, [])[0], 16)
        for start, length, status in lines:
            if int(start, 16) != position or int(length, 16) < 0 or status not in (b"+", b"?"):
                raise DamagedError(
                    f"partclone's map goes on at {start.decode()} {status.decode()}, not at {position:#x}"
                )
            following = position + int(length, 16)
            if status == b"+":
                used.extend((position, following))
            position = following
    except (IndexError, ValueError, OverflowError):
        raise DamagedError("partclone's map has a line that is none") from None
    if position != end or end > size:
        raise DamagedError(f"partclone's map ends at {position}, should end at {end}, and the volume has {size} bytes")
    used.extend((end, end))
    return np.array(used, dtype=np.int64).reshape(-1, 2)


def plausible(tool: str, rows: NDArray[np.int64], judgement: Judgement) -> NDArray[np.int64]:
    """The map, what is kept anyway and what the map leaves out at the end: as much as the filesystem itself counts.

    Args:
        rows: as :func:`parse_domain` returns them.

    Returns:
        rows of start and end, merged and sorted.

    Raises:
        DamagedError: the map has less than the filesystem counts.
    """
    mapped = int((rows[:, 1] - rows[:, 0]).sum())
    if mapped < judgement.at_least:
        raise DamagedError(f"{tool} sees {mapped} bytes in use, the filesystem counts at least {judgement.at_least}")
    behind = (min(int(rows[-1, 0]), judgement.size), judgement.size)
    kept = np.array([behind, *((extent.start, extent.end) for extent in judgement.kept)], dtype=np.int64)
    found = np.concatenate([np.minimum(rows, judgement.size), kept])
    found = found[found[:, 0] < found[:, 1]]
    found = found[np.argsort(found[:, 0], kind="stable")]
    if not len(found):
        return found
    reach = np.maximum.accumulate(found[:, 1])
    first = np.concatenate([[True], found[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.column_stack([found[first, 0], reach[last]])


def _extents(rows: NDArray[np.int64]) -> Iterator[Extent]:
    for first in range(0, len(rows), _TOGETHER):
        for start, end in rows[first : first + _TOGETHER].tolist():
            yield Extent(start, end)


def _bounded(path: Path) -> bytes:
    if not path.exists():
        raise DamagedError("partclone left no map")
    if path.stat().st_size > _MAX_DOMAIN:
        raise DamagedError(f"its map has more than {_MAX_DOMAIN} bytes")
    return path.read_bytes()


def _text(log: Path) -> str:
    """partclone's log, as much of it as anybody would read."""
    if not log.exists():
        return ""
    with log.open("rb") as stream:
        return stream.read(_MAX_LOG).decode(errors="replace")


def _complaint(folder: str, *outputs: str) -> str:
    """The first line that says that something went wrong; empty when none does. ``folder`` may spell anything."""
    for output in outputs:
        for line in output.replace(folder, "").splitlines():
            if _COMPLAINT.search(line):
                return line.strip()[:200]
    return ""


@contextlib.contextmanager
def _loop(runner: Runner, source: BlockSource) -> Iterator[str]:
    """The node of a read-only loop device over a file, a device or a part of one.

    Raises:
        DeviceError: the source is none of them.
        LiferaftError: the kernel has no loop device to give.
    """
    offset, inner = 0, source
    while isinstance(inner, WindowSource):
        offset, inner = offset + inner.offset, inner.inner
    if not isinstance(inner, FileSource):
        raise DeviceError("partclone reads devices and files only")
    # sectors of 512 bytes whatever the disk has: f2fs's library, which partclone uses, insists on them
    options = ("--read-only", f"--offset={offset}", f"--sizelimit={source.size}", "--sector-size=512")
    with loop_device(str(inner.path), runner, *options) as node:
        yield node
