"""Comparing two recovery points by file."""

from collections.abc import Iterator

import msgspec

from core.errors import DamagedError, RefusedError, UnreachableError, UsageError
from core.events import Event, Meter, Sink, Stage, ticking
from images.browse.compare import Change, ChangedChunks, Difference, TreeComparison
from images.browse.entry import Kind
from images.browse.point import ChunkCache, filesystem_volumes
from images.browse.tree import Found, NotThereError, Tree
from images.browse.view import parts_of
from images.model.manifest import Manifest, Volume
from images.store.access import Access
from images.store.connect import open_repository
from rescue.jobs.browse import OpenPoint, path_text


class PathDifference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A path that differs, as a document has it. Sizes in bytes; None where the path is not there.

    Attributes:
        path: UTF-8, other bytes escaped as ``\\xff``; ``path_hex`` has the bytes then.
        content: whether the bytes differ; metadata: which facts differ.
    """

    path: str
    change: Change
    kind: Kind
    old_size: int | None = None
    new_size: int | None = None
    content: bool = False
    metadata: tuple[str, ...] = ()
    path_hex: str = ""


class VolumeComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two volumes that were taken for the same, or one that has no counterpart (the other id is empty).

    Attributes:
        changed_chunks: in how many chunks they differ.
        note: why there is no list of files; empty when there is one.
    """

    old: str
    new: str
    changed_chunks: int = 0
    note: str = ""
    differences: tuple[PathDifference, ...] = ()


class PointComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two recovery points. ``problems`` names what could not be compared."""

    old: str
    new: str
    volumes: tuple[VolumeComparison, ...]
    problems: tuple[str, ...] = ()


class _Pair(msgspec.Struct, frozen=True):
    old: Volume | None
    new: Volume | None


def compare_points(
    repository: str, old: str, new: str, *, path: str = "", sink: Sink, access: Access | None = None
) -> PointComparison:
    """What differs between two recovery points, or at and below one path of them.

    Volumes are paired by partition GUID, then filesystem UUID, then id.

    Raises:
        UsageError: a point or the path is not there. RefusedError, DamagedError: a recovery point cannot be read.
    """
    opened = open_repository(repository, access)
    cache = ChunkCache(opened)
    points = OpenPoint(opened, old, cache), OpenPoint(opened, new, cache)
    meter = Meter(sink, Stage.COMPARE, 0)
    problems: list[str] = []
    with ticking(meter):
        if path:
            volumes = [_compare_path(points, path, meter, problems)]
        else:
            volumes = [_compare_pair(points, pair, meter, sink, problems) for pair in _pairs(points)]
    return PointComparison(old=points[0].id, new=points[1].id, volumes=tuple(volumes), problems=tuple(problems))


def _compare_pair(
    points: tuple[OpenPoint, OpenPoint], pair: _Pair, meter: Meter, sink: Sink, problems: list[str]
) -> VolumeComparison:
    if pair.old is None or pair.new is None:
        gone = "it is not in the new recovery point" if pair.new is None else "it is not in the old recovery point"
        return VolumeComparison(old=pair.old.id if pair.old else "", new=pair.new.id if pair.new else "", note=gone)
    old, new = pair.old.id, pair.new.id
    if (pair.old.root, pair.old.size) == (pair.new.root, pair.new.size):
        return VolumeComparison(old=old, new=new)
    changed = _changed(points[0], pair.old, pair.new)
    sink(Event(stage=Stage.COMPARE, message=f"{pair.new.id}: {len(changed.numbers)} chunks differ"))
    try:
        trees = points[0].tree(pair.old), points[1].tree(pair.new)
    except UnreachableError:
        raise
    except RefusedError as error:
        return VolumeComparison(old=old, new=new, changed_chunks=len(changed.numbers), note=error.message)
    except DamagedError as error:
        problems.append(error.message)
        return VolumeComparison(old=old, new=new, changed_chunks=len(changed.numbers), note=error.message)
    comparison = TreeComparison(*trees, changed, meter)
    found = tuple(_as_document(item) for item in comparison.differences(trees[0].root, trees[1].root))
    problems += comparison.problems
    return VolumeComparison(old=old, new=new, changed_chunks=len(changed.numbers), differences=found)


def _compare_path(
    points: tuple[OpenPoint, OpenPoint], path: str, meter: Meter, problems: list[str]
) -> VolumeComparison:
    sides = tuple(_find(point, path) for point in points)
    if sides[0] is None and sides[1] is None:
        raise UsageError(f"Neither recovery point has {path}.", hint=f"liferaft ls {points[1].id[:12]}: lists volumes.")
    if sides[0] is None or sides[1] is None:
        tree, found = sides[0] or sides[1]  # type: ignore[misc]
        comparison = TreeComparison(tree, tree, ChangedChunks([], 1), meter)
        change = Change.ADDED if sides[0] is None else Change.REMOVED
        listed = comparison.alone(found, change)
        volume = tree.source.volume.id
        old, new = volume if sides[0] else "", volume if sides[1] else ""
    else:
        (old_tree, old_found), (new_tree, new_found) = sides[0], sides[1]
        changed = _changed(points[0], old_tree.source.volume, new_tree.source.volume)
        comparison = TreeComparison(old_tree, new_tree, changed, meter)
        listed = comparison.differences(old_found, new_found)
        old, new = old_tree.source.volume.id, new_tree.source.volume.id
    found_documents = tuple(_as_document(item) for item in listed)
    problems += comparison.problems
    return VolumeComparison(old=old, new=new, differences=found_documents)


def _find(point: OpenPoint, path: str) -> tuple[Tree, Found] | None:
    try:
        return point.find(path)
    except NotThereError:
        return None


def _changed(point: OpenPoint, old: Volume, new: Volume) -> ChangedChunks:
    repository = point.cache.repository
    numbers = [change.number for change in repository.changes(old, new, f"{old.id} and {new.id}")]
    return ChangedChunks(numbers, repository.chunk_size)


def _pairs(points: tuple[OpenPoint, OpenPoint]) -> Iterator[_Pair]:
    """The volumes of both, the old ones in their order, then those only the new one has."""
    manifests = points[0].manifest, points[1].manifest
    left = list(filesystem_volumes(manifests[1]))
    for old in filesystem_volumes(manifests[0]):
        new = _counterpart(manifests, old, left)
        if new is not None:
            left.remove(new)
        yield _Pair(old, new)
    for new in left:
        yield _Pair(None, new)


def _counterpart(manifests: tuple[Manifest, Manifest], old: Volume, candidates: list[Volume]) -> Volume | None:
    for name in (_partition_guid, _filesystem_uuid, _volume_id):
        wanted = name(manifests[0], old)
        found = [volume for volume in candidates if wanted and name(manifests[1], volume) == wanted]
        if len(found) == 1:
            return found[0]
    return None


def _partition_guid(manifest: Manifest, volume: Volume) -> str:
    partition, _ = parts_of(manifest, volume)
    return str(partition.uuid) if partition and partition.uuid else ""


def _filesystem_uuid(manifest: Manifest, volume: Volume) -> str:
    _, filesystem = parts_of(manifest, volume)
    return filesystem.uuid if filesystem else ""


def _volume_id(manifest: Manifest, volume: Volume) -> str:
    return volume.id


def _as_document(item: Difference) -> PathDifference:
    text, path_hex = path_text(item.path)
    return PathDifference(
        path=text,
        change=item.change,
        kind=item.kind,
        old_size=item.old.size if item.old else None,
        new_size=item.new.size if item.new else None,
        content=item.content,
        metadata=item.metadata,
        path_hex=path_hex,
    )
