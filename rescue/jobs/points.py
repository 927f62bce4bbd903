"""Listing and showing recovery points."""

from images.model.layout import Disk
from images.model.manifest import Manifest, Volume
from images.store.access import Access
from images.store.catalogue import PointSummary
from images.store.connect import open_repository


def list_points(repository: str, access: Access | None = None) -> tuple[PointSummary, ...]:
    """The recovery points of a repository, oldest first."""
    return open_repository(repository, access).points()


def list_with_damage(repository: str, access: Access | None = None) -> tuple[tuple[PointSummary, ...], tuple[str, ...]]:
    """The same, and a sentence for each recovery point that cannot be listed."""
    return open_repository(repository, access).read_points()


def show_point(repository: str, point: str, access: Access | None = None) -> tuple[str, Manifest]:
    """One recovery point: its full id and manifest."""
    opened = open_repository(repository, access)
    identifier = opened.resolve(point)
    return identifier, opened.manifest(identifier)


def show_with_targets(
    repository: str, point: str, access: Access | None = None
) -> tuple[str, Manifest, tuple[int, ...]]:
    """One recovery point, and the bytes of the smallest target for each of its disks, read from the image."""
    # Who lists recovery points does not wait for the readers of filesystems.
    from restore.fit.fitting import smallest_target
    from restore.fit.wishes import Wishes
    from restore.planning.contents import Contents

    opened = open_repository(repository, access)
    identifier = opened.resolve(point)
    manifest = opened.manifest(identifier)
    contents = [Contents(opened, identifier, manifest, disk) for disk in manifest.layout.disks]
    smallest = [
        smallest_target(disk, Wishes(least=stored.bare_least))
        for disk, stored in zip(manifest.layout.disks, contents, strict=True)
    ]
    return identifier, manifest, tuple(smallest)


def volume_of(manifest: Manifest, disk: Disk, partition: str) -> Volume | None:
    """The captured volume of a partition."""
    found = (volume for volume in manifest.volumes if volume.disk == disk.id and volume.partition == partition)
    return next(found, None)
