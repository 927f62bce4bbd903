"""Listing and showing recovery points."""

from images.model.layout import Disk
from images.model.manifest import Manifest, Volume
from images.store.access import Access
from images.store.connect import open_repository
from images.store.repository import PointSummary


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


def volume_of(manifest: Manifest, disk: Disk, partition: str) -> Volume | None:
    """The captured volume of a partition."""
    found = (volume for volume in manifest.volumes if volume.disk == disk.id and volume.partition == partition)
    return next(found, None)
