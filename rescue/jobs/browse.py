"""Looking into recovery points: which volumes one has, what lies at a path, and the files below it.

A place is written ``ID:PATH``. PATH is one of

- nothing: the volumes;
- ``disk0-part2`` or ``disk0-part2/etc``: exactly that volume;
- ``/etc``: as the machine saw it: the root filesystem, with the others where its fstab mounts them. When no volume or
  several have an fstab, or the path is not there, the only volume that has such a path.
"""

from collections.abc import Iterator

import msgspec

from core.errors import DamagedError, RefusedError, UnreachableError, UsageError
from images.browse.entry import Kind, UnreadableError
from images.browse.point import ChunkCache, filesystem_volumes, open_volume
from images.browse.tree import Found, NotThereError, Tree, Walk, join, shown
from images.browse.view import View, machine_view, parts_of, unique_view, whole_volume
from images.model.layout import FilesystemKind
from images.model.manifest import Manifest, Volume
from images.store.access import Access
from images.store.connect import open_repository
from images.store.repository import Repository

#: Filesystems that a machine's root may lie on, as far as files can be read from them.
_ROOTS = frozenset(
    {FilesystemKind.EXT2, FilesystemKind.EXT3, FilesystemKind.EXT4, FilesystemKind.XFS, FilesystemKind.BTRFS}
)
_ROOT_NAMES = frozenset({"xfs", "btrfs", "ext2", "ext3", "ext4"})


class Place(msgspec.Struct, frozen=True):
    """``ID:PATH``, taken apart."""

    point: str
    path: str


class VolumeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A volume in a list. Sizes in bytes.

    Attributes:
        filesystem: its name; empty when nothing was recognised.
        mounted: where the machine had it, by its fstab; empty when that is not known.
        problem: why files cannot be read from it; empty when they can.
    """

    id: str
    filesystem: str
    label: str
    size: int
    allocated: int
    mounted: str = ""
    problem: str = ""


class EntryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in a list: what :class:`images.browse.entry.Entry` says, with its path in the volume.

    Attributes:
        path: UTF-8, other bytes escaped as ``\\xff``; ``path_hex`` has the bytes then.
        kind: file, folder, link …
        mtime: nanoseconds since 1970; ``mode`` in decimal, as JSON has no other.
    """

    path: str
    kind: Kind
    size: int
    mode: int
    uid: int
    gid: int
    mtime: int
    links: int = 1
    target: str = ""
    major: int = 0
    minor: int = 0
    path_hex: str = ""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What ``ls`` gives: the volumes, or entries of one of them."""

    id: str
    volume: str = ""
    volumes: tuple[VolumeFacts, ...] = ()
    entries: tuple[EntryFacts, ...] = ()
    problems: tuple[str, ...] = ()


def parse_place(text: str) -> Place:
    """Take ``ID:PATH`` apart.

    Raises:
        UsageError: there is no colon.
    """
    point, colon, path = text.partition(":")
    if not colon or not point:
        raise UsageError(
            f"{text!r} does not say what to look into.",
            hint=f"Write ID:PATH: {point or 'latest'}: for its volumes, {point or 'latest'}:/etc for a folder.",
        )
    return Place(point, path)


class OpenPoint:
    """A recovery point that is being looked into.

    Attributes:
        id: its full id.
        manifest: what it is made of.
        cache: decoded chunks; may be shared with other points of the repository.
    """

    def __init__(self, repository: Repository, point: str, cache: ChunkCache | None = None) -> None:
        self.id = repository.resolve(point)
        self.manifest: Manifest = repository.manifest(self.id)
        self.cache = cache or ChunkCache(repository)
        self._trees: dict[str, Tree] = {}
        self._problems: dict[str, RefusedError | DamagedError] = {}
        self._view: View | None = None
        self._looked = False

    def tree(self, volume: Volume) -> Tree:
        """The files of a volume; opened once.

        Raises:
            RefusedError: it holds none that liferaft reads. DamagedError: its filesystem cannot be opened.
        """
        if volume.id in self._problems:
            raise self._problems[volume.id]
        if volume.id not in self._trees:
            try:
                self._trees[volume.id] = Tree(open_volume(self.cache, self.id, self.manifest, volume))
            except UnreachableError:
                raise
            except (RefusedError, DamagedError) as error:
                self._problems[volume.id] = error
                raise
        return self._trees[volume.id]

    def view(self) -> View | None:
        """The machine's own view of its files; None when that is not clear."""
        if not self._looked:
            self._looked = True
            candidates = tuple(volume for volume in filesystem_volumes(self.manifest) if self._may_be_root(volume))
            self._view = machine_view(self.tree, self.manifest, candidates)
        return self._view

    def volumes(self) -> Iterator[VolumeFacts]:
        """What ``ID:`` lists."""
        view = self.view()
        mounted = {mount.tree.source.volume.id: mount.place for mount in view.mounts} if view else {}
        mounted.update({closed.volume: closed.place for closed in view.closed} if view else {})
        for volume in filesystem_volumes(self.manifest):
            _, filesystem = parts_of(self.manifest, volume)
            name, problem = (filesystem.detail or filesystem.kind.value) if filesystem else "", ""
            try:
                name = self.tree(volume).filesystem.name
            except UnreachableError:
                raise
            except (RefusedError, DamagedError) as error:
                problem = error.message
            yield VolumeFacts(
                id=volume.id,
                filesystem="" if name == FilesystemKind.UNKNOWN else name,
                label=filesystem.label if filesystem else "",
                size=volume.size,
                allocated=volume.allocated,
                mounted=mounted.get(volume.id, ""),
                problem=problem,
            )

    def find(self, path: str) -> tuple[Tree, Found]:
        """What lies at a path of a place.

        Raises:
            UsageError: nothing, or it is not clear which. RefusedError, DamagedError: the volume cannot be read.
        """
        if not path.startswith("/"):
            return self._find_exactly(path)
        view = self.view()
        if view is not None:
            try:
                return view.find(path)
            except NotThereError:
                # It may be on a volume that is mounted nowhere.
                pass
        return self._find_anywhere(path)

    def place(self, path: str, tree: Tree, inside: str) -> str:
        """How a path in a volume is shown to who asked for ``path``: as the machine saw it when ``path`` is of that
        sort and it is known, else as it is in the volume."""
        view = self.view() if path.startswith("/") else None
        return (view.place_of(tree, inside) if view else None) or inside

    def left_out(self, path: str, tree: Tree, found: Found) -> str:
        """A sentence when other volumes were mounted below the folder that ``path`` names; empty when none were."""
        view = self.view() if path.startswith("/") else None
        place = view.place_of(tree, found.path) if view else None
        below = view.below(place) if view and place and found.entry.kind is Kind.FOLDER else ()
        if not below:
            return ""
        return f"Only one volume is looked into: what was mounted on {', '.join(below)} is not part of this."

    def _find_exactly(self, path: str) -> tuple[Tree, Found]:
        name, _, inside = path.partition("/")
        known = filesystem_volumes(self.manifest)
        volume = next((volume for volume in known if volume.id == name), None)
        if volume is None:
            raise UsageError(
                f"Recovery point {self.id[:12]} has no volume {shown(name)!r}.",
                hint=f"It has {', '.join(volume.id for volume in known)}. A path as the machine saw it begins with /.",
            )
        return whole_volume(self.tree(volume)).find("/" + inside)

    def _find_anywhere(self, path: str) -> tuple[Tree, Found]:
        views, problems = [], []
        for volume in filesystem_volumes(self.manifest):
            try:
                views.append(whole_volume(self.tree(volume)))
            except UnreachableError:
                raise
            except RefusedError:
                continue
            except DamagedError as error:
                problems.append(error.message)
        try:
            return unique_view(tuple(views), path, tuple(problems)).find(path)
        except NotThereError:
            if not views:
                raise RefusedError(
                    f"Recovery point {self.id[:12]} has no volume liferaft can read files from.",
                    hint=f"liferaft ls {self.id[:12]}: says why.",
                ) from None
            raise

    def _may_be_root(self, volume: Volume) -> bool:
        _, filesystem = parts_of(self.manifest, volume)
        return filesystem is not None and (filesystem.kind in _ROOTS or filesystem.detail in _ROOT_NAMES)


def open_point(repository: str, point: str, access: Access | None = None) -> OpenPoint:
    """A recovery point of the repository at an address.

    Raises:
        UsageError: there is none of that name. Others as :func:`images.store.connect.open_repository`.
    """
    return OpenPoint(open_repository(repository, access), point)


def walk(tree: Tree, found: Found, problems: list[str], *, deep: bool) -> Iterator[Found]:
    """What is in a folder, streams of files behind their owners; with ``deep`` everything below it.

    Args:
        problems: takes the sentence for each entry or folder that cannot be read; the walk goes on.
    """
    waiting, listed = [found], Walk(tree)
    while waiting:
        folder = waiting.pop()
        try:
            names = listed.names(folder)
        except (DamagedError, UnreadableError) as error:
            problems.append(error.message)
            continue
        below = []
        for name, node, _ in names:
            try:
                child = tree.node(join(folder.path, name), node)
                yield child
                yield from tree.streams(child)
            except (DamagedError, UnreadableError) as error:
                problems.append(error.message)
                continue
            if child.entry.kind is Kind.FOLDER:
                below.append(child)
        if deep:
            waiting += reversed(below)


def path_text(path: str) -> tuple[str, str]:
    """A path as UTF-8, other bytes escaped as ``\\xff``; and its bytes in hexadecimal when that was needed."""
    raw = path.encode("utf-8", "surrogateescape")
    text = raw.decode("utf-8", "backslashreplace")
    return text, "" if raw == text.encode() else raw.hex()


def facts(found: Found) -> EntryFacts:
    """An entry as a document has it."""
    entry = found.entry
    text, path_hex = path_text(found.path)
    return EntryFacts(
        path=text,
        kind=entry.kind,
        size=entry.size,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=entry.mtime,
        links=entry.links,
        target=path_text(entry.target)[0],
        major=entry.major,
        minor=entry.minor,
        path_hex=path_hex,
    )
