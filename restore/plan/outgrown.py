"""Outgrown: filesystems that a plan grows beyond what their own fields can count, found before the first write.

The tools that grow would say so too, when everything is restored. A plan that somebody edited is asked the same as one
that was just made: the size that counts is the partition's, for that is what its filesystem is grown to.
"""

from collections.abc import Iterator, Mapping, Sequence

from core.errors import DamagedError, RefusedError
from core.units import format_size
from images.browse.point import ChunkCache, VolumeSource, open_volume
from images.browse.view import parts_of
from images.model.extents import Extent
from images.model.layout import FilesystemKind, Partition
from images.model.manifest import Manifest, Volume, VolumeRole
from restore.filesystems.limits import limit
from restore.plan.steps import CreateTable, GrowFilesystem, RemakeFat, RemakeVolume, RestoreVolume, ShrinkVolume, Step


def growth_reason(source: VolumeSource, kind: FilesystemKind, size: int) -> str:
    """Why a stored filesystem cannot grow to so many bytes; empty when it can."""
    try:
        found = limit(source, kind)
    except (DamagedError, RefusedError) as error:
        return error.message.rstrip(".")
    if found is None or size <= found.size:
        return ""
    return f"{kind} cannot grow to {format_size(size)}: {found.why}, which ends at {format_size(found.size)}"


def outgrown(
    steps: Sequence[Step], sector_sizes: Mapping[str, int], cache: ChunkCache, point: str, manifest: Manifest
) -> Iterator[str]:
    """Every reason why the growing steps among ``steps`` cannot be carried out.

    Args:
        steps: of a plan that holds together (``soundness.py``), or those of its stack alone.
        sector_sizes: of the targets, by source disk.
        point: the full id.
    """
    for step in steps:
        if not isinstance(step, GrowFilesystem):
            continue
        where, size, volume = step.disk, step.size, None
        if step.number:
            where = f"{step.disk}, partition {step.number}"
            extent = _extent(steps, step, sector_sizes)
            if extent is None:
                yield f"{where}: the plan grows it, and does not make it"
                continue
            size, volume = extent.size, _content(steps, step.disk, extent, manifest)
        else:
            volume = next((found for found in manifest.volumes if _is_on(found, step.disk)), None)
        reason = _reason(step.kind, size, volume, cache, point, manifest)
        if reason:
            yield f"{where}: {reason}"


def _reason(
    kind: FilesystemKind, size: int, volume: Volume | None, cache: ChunkCache, point: str, manifest: Manifest
) -> str:
    if volume is None:
        return f"the plan grows its {kind}, and puts none there"
    _, filesystem = parts_of(manifest, volume)
    held = filesystem.kind if filesystem is not None else FilesystemKind.UNKNOWN
    if held is not kind:
        return f"the plan grows its {kind}, and {volume.id} holds {held}"
    return growth_reason(open_volume(cache, point, manifest, volume), kind, size)


def _extent(steps: Sequence[Step], grown: GrowFilesystem, sector_sizes: Mapping[str, int]) -> Extent | None:
    """The place of the partition on its target; None where there is none."""
    parts: list[Partition] = []
    for step in steps:
        if isinstance(step, CreateTable) and step.disk == grown.disk and step.disk in sector_sizes:
            parts += [part for part in step.table.partitions if part.number == grown.number]
    return parts[0].extent(sector_sizes[grown.disk]) if parts else None


def _content(steps: Sequence[Step], disk: str, extent: Extent, manifest: Manifest) -> Volume | None:
    """The volume that is put at the beginning of a place, whatever its partition was called before."""
    named = {
        step.volume
        for step in steps
        if isinstance(step, RestoreVolume | ShrinkVolume | RemakeVolume | RemakeFat)
        and (step.disk, step.offset) == (disk, extent.start)
    }
    return next((volume for volume in manifest.volumes if volume.id in named), None)


def _is_on(volume: Volume, device: str) -> bool:
    return volume.disk == device and not volume.partition and volume.role is not VolumeRole.HEAD
