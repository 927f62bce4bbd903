"""The step that makes a filesystem smaller, with what it will take: read from the stored image's metadata alone."""

from collections.abc import Iterable

from images.browse.point import VolumeSource
from images.model.extents import Extent
from images.model.layout import FilesystemKind
from restore.plan.steps import ShrinkVolume
from restore.shrink.kinds import SHRINKERS
from restore.shrink.room import scratch_needed


def shrink_step(
    source: VolumeSource, kind: FilesystemKind, number: int, extent: Extent, *, stored: int, verify: bool
) -> ShrinkVolume:
    """The step that brings a volume to a smaller place.

    Args:
        kind: one of SHRINKERS. number: of the partition, 0 for a device of the stack. extent: its place on the target.
        stored: bytes of the volume in the repository.
    """
    volume = source.volume
    return ShrinkVolume(
        disk=volume.disk,
        volume=volume.id,
        number=number,
        offset=extent.start,
        size=extent.size,
        kind=kind,
        data=min(volume.allocated, extent.size),
        stored=stored,
        scratch=scratch_needed(_used(source, kind), extent.size, volume.size),
        verify=verify,
    )


def _used(source: VolumeSource, kind: FilesystemKind) -> Iterable[Extent]:
    """What the filesystem uses, or what was stored of it where its map is not believed."""
    read = SHRINKERS[kind].read
    found = read(source) if read is not None else None
    return found.extents() if found is not None and found.trusted else source.allocated()
