"""Listing and showing recovery points."""

from images.model.layout import Disk
from images.model.manifest import Manifest, Volume
from images.store.repository import PointSummary, Repository, connect


def list_points(repository: str) -> tuple[PointSummary, ...]:
    """The recovery points of a repository, oldest first."""
    return Repository(connect(repository)).points()


def list_with_damage(repository: str) -> tuple[tuple[PointSummary, ...], tuple[str, ...]]:
    """The same, and a sentence for each recovery point that cannot be listed."""
    return Repository(connect(repository)).read_points()


def show_point(repository: str, point: str) -> tuple[str, Manifest]:
    """One recovery point: its full id and manifest."""
    opened = Repository(connect(repository))
    identifier = opened.resolve(point)
    return identifier, opened.manifest(identifier)


def volume_of(manifest: Manifest, disk: Disk, partition: str) -> Volume | None:
    """The captured volume of a partition."""
    found = (volume for volume in manifest.volumes if volume.disk == disk.id and volume.partition == partition)
    return next(found, None)
