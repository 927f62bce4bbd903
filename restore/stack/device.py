"""A device of the stack as a target to stream to: an array, an opened container, a logical volume.

The guards of ``targets.py`` were asked for the disks below it; here nothing else may have it open.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from core.errors import DeviceError
from images.model.layout import DiskIdentity
from restore.target.candidates import Candidate
from restore.target.target import Target, open_target

#: Bytes looked at in one read, before zeros are written.
_LOOK = 1 << 20


class ThriftyTarget(Target):
    """A target that writes zeros only where something else is.

    A thin volume reads as zeros where nothing was written and takes a block of its pool for every zero that is; its
    pool may be smaller than all its volumes together.
    """

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros. Raises DeviceError."""
        for at in range(offset, offset + length, _LOOK):
            size = min(_LOOK, offset + length - at)
            if any(self.read_at(at, size)):
                self.write_at(at, bytes(size))


@contextlib.contextmanager
def open_device(node: str, sector_size: int, *, thin: bool = False) -> Iterator[Target]:
    """Open a device of the stack for writing.

    Args:
        thin: it is a thin volume.

    Raises:
        RefusedError: something else uses it.
    """
    with Path(node).open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
    if not size:
        raise DeviceError(f"{node} has no bytes.")
    candidate = Candidate(
        node=node,
        file="",
        identity=DiskIdentity(),
        size=size,
        sector_size=sector_size,
        contents=(),
        obstacles=(),
    )
    with open_target(candidate, ThriftyTarget if thin else Target) as target:
        yield target
