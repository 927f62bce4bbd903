"""Making a stored volume smaller: from a source to a result that passed its check, on scratch alone."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from core.errors import DamagedError, ProcessError
from core.process import Runner
from images.model.extents import Extent
from images.model.layout import FilesystemKind
from images.overlay import Overlay, open_overlay
from images.sources import BlockSource
from images.store.backend import Heard, deaf
from restore.shrink.kinds import SHRINKERS, Shrinker
from restore.shrink.mount import mounted_overlay
from restore.shrink.result import Shrunk


@contextlib.contextmanager
def shrunk_volume(
    source: BlockSource,
    kind: FilesystemKind,
    size: int,
    folder: Path,
    runner: Runner,
    name: str,
    heard: Heard = deaf,
) -> Iterator[Shrunk]:
    """The volume with its filesystem made smaller; the source is read, and scratch in ``folder`` is written.

    Args:
        kind: one of SHRINKERS.
        size: bytes of the new partition.
        name: the volume, for errors.
        heard: takes the bytes that the tools read and write, as they do.

    Raises:
        LiferaftError: it cannot be made as small, scratch is full, a tool failed, or a chunk is damaged.
    """
    shrinker = SHRINKERS[kind]
    with open_overlay(source, folder) as overlay:
        try:
            with mounted_overlay(overlay, runner, heard) as path:
                notes = shrinker.shrink(path, size, runner)
        except ProcessError as error:
            hint = "Give the partition more room, or restore to a larger disk."
            raise ProcessError(error.argv, error.returncode, f"{name}: {_output(error)}", hint=hint) from None
        overlay.resize(min(size, source.size))
        yield Shrunk(overlay, _used(overlay, shrinker, name), notes)


def _used(overlay: Overlay, shrinker: Shrinker, name: str) -> Callable[[], Iterator[Extent]] | None:
    """What the result uses, by its own reader.

    Raises:
        DamagedError: the reader does not believe what the tools left behind.
    """
    if shrinker.read is None:
        return None
    found = shrinker.read(overlay)
    if found is None or not found.trusted:
        reason = found.reason if found else "no filesystem of its kind is found in it"
        raise DamagedError(f"{name}: what was made of it is not believed: {reason}.")
    return found.extents


def _output(error: ProcessError) -> str:
    lines = error.output.strip().splitlines()
    return lines[-1] if lines else "it printed nothing"
