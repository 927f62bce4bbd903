"""What was lost when a recovery point was taken from a disk with unreadable sectors: ranges, and the files in them."""

import msgspec

from core.errors import LiferaftError
from core.units import covering_sectors
from images.browse.holders import Holder, HolderSearch
from images.browse.point import ChunkCache, open_volume
from images.browse.tree import Tree
from images.model.manifest import Manifest, Volume
from images.store.access import Access
from images.store.connect import open_repository
from images.store.repository import Repository


class LostSectors(msgspec.Struct, frozen=True, kw_only=True):
    """A run of sectors of the source disk that could not be read, and is zero in the recovery point."""

    first_lba: int
    sector_count: int


class VolumeLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What one volume lost.

    Attributes:
        size: bytes.
        sectors: where, on the source disk.
        files: which files lie there.
        notes: why files may be missing from that list, one sentence each.
    """

    volume: str
    size: int
    sectors: tuple[LostSectors, ...]
    files: tuple[Holder, ...]
    notes: tuple[str, ...]


def losses(repository: Repository, point: str, manifest: Manifest) -> tuple[VolumeLoss, ...]:
    """What a recovery point lacks of its source; empty for a sound one."""
    cache = ChunkCache(repository)
    return tuple(_loss(cache, point, manifest, volume) for volume in manifest.volumes if volume.lost)


def lost_in(repository: str, point: str, access: Access | None = None) -> tuple[VolumeLoss, ...]:
    """What a recovery point lacks because its source could not be read."""
    opened = open_repository(repository, access)
    identifier = opened.resolve(point)
    return losses(opened, identifier, opened.manifest(identifier))


def _loss(cache: ChunkCache, point: str, manifest: Manifest, volume: Volume) -> VolumeLoss:
    files: tuple[Holder, ...] = ()
    notes: tuple[str, ...] = ()
    try:
        search = HolderSearch(Tree(open_volume(cache, point, manifest, volume)), volume.lost)
        files = tuple(sorted(search.holders(), key=lambda holder: holder.path))
        notes = tuple(search.problems)
    except LiferaftError as error:
        notes = (f"Which files that hits cannot be said: {error.message}",)
    sector = manifest.layout.device(volume.disk).sector_size
    runs = []
    for extent in volume.lost:
        first, count = covering_sectors(volume.offset + extent.start, volume.offset + extent.end, sector)
        runs.append(LostSectors(first_lba=first, sector_count=count))
    return VolumeLoss(
        volume=volume.id,
        size=sum(extent.size for extent in volume.lost),
        sectors=tuple(runs),
        files=files,
        notes=notes,
    )


def loss_warnings(found: tuple[VolumeLoss, ...]) -> tuple[str, ...]:
    """One sentence for each volume that lost something, for the list of warnings."""
    sentences = []
    for loss in found:
        count = sum(run.sector_count for run in loss.sectors)
        sectors = f"{count} sector{'s' * (count != 1)}"
        if loss.files:
            names = ", ".join(holder.path for holder in loss.files[:5])
            more = f" and {len(loss.files) - 5} more" if len(loss.files) > 5 else ""
            where = f"they belong to {names}{more}"
        elif loss.notes:
            where = loss.notes[0].rstrip(".")
        else:
            where = "no file lies there: they are free space or the filesystem's own"
        sentences.append(f"{loss.volume}: {sectors} could not be read and are zeros in the recovery point; {where}")
    return tuple(sentences)
