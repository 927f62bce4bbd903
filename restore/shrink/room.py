"""Scratch: how much of it making filesystems smaller takes, and whether there is as much."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from core.units import MIB, format_size
from images.model.extents import Extent, clip, total
from restore.plan.plan import Plan
from restore.plan.steps import ShrinkVolume

#: What moves into small holes takes whole blocks of the overlay: a quarter more was measured on a fragmented ext4 of
#: 2.5 GiB, twice that is said. Metadata is written in place: so many bytes at least, and this part of the bytes in use.
_HOLES, _LEAST, _PART = 2, 32 * MIB, 24
#: Added to why scratch does not fit where no other place can be chosen there and then.
ELSEWHERE = "(another folder: --scratch names it; in the wizard, F3 at the plan)"


def scratch_folder(folder: Path | None) -> Path:
    """Where scratch files go: as named, or TMPDIR's."""
    return folder or Path(tempfile.gettempdir())


def scratch_needed(used: Iterable[Extent], size: int, whole: int) -> int:
    """Bytes of scratch, by estimate: what lies behind the new end has to move, and metadata is rewritten.

    Args:
        used: extents in use, sorted. size, whole: bytes after and before.
    """
    kept = moved = 0
    for extent in used:
        inside = total(clip((extent,), Extent(0, size)))
        kept += inside
        moved += extent.size - inside
    return min(moved + moved // _HOLES + max((kept + moved) // _PART, _LEAST), whole)


def scratch_of(plan: Plan) -> int:
    """Bytes of scratch that a plan takes, by estimate."""
    return sum(step.scratch for step in plan.steps if isinstance(step, ShrinkVolume))


def too_little_scratch(plan: Plan, folder: Path) -> list[str]:
    """Why the scratch of a plan's steps does not fit into ``folder``; none when it does, or none is needed."""
    needed = scratch_of(plan)
    if not needed:
        return []
    try:
        found, holes = os.statvfs(folder), _knows_holes(folder)
    except OSError as error:
        return [f"the scratch folder {folder} cannot be used: {error.strerror}"]
    if not holes:
        return [
            f"the scratch folder {folder} lies on a filesystem whose files have no holes, as FAT and exFAT: "
            f"a scratch file is as long as the volume"
        ]
    free = found.f_bavail * found.f_frsize
    if free >= needed:
        return []
    return [
        f"making filesystems smaller takes about {format_size(needed)} of scratch, "
        f"and {folder} has {format_size(free)} free"
    ]


def _knows_holes(folder: Path) -> bool:
    """Whether what was never written of a file takes no room there. Raises OSError."""
    with tempfile.TemporaryFile(prefix="liferaft-", dir=folder) as stream:
        os.ftruncate(stream.fileno(), MIB)
        # stat(2): st_blocks counts 512 bytes each.
        return os.fstat(stream.fileno()).st_blocks * 512 < MIB
