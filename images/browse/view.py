"""One tree of all volumes, as the machine itself saw its files: the root filesystem with the others mounted in it.

``/etc/fstab`` of the root filesystem says what was mounted where; volumes are found by filesystem UUID, label,
partition GUID or partition name, and by the nodes of arrays, LUKS and LVM, which stay the same; never by a disk's
node. Symbolic links are followed inside the view, never outside.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import msgspec

from core.errors import DamagedError, RefusedError, UnreachableError, UsageError
from core.units import MIB
from images.browse.entry import Kind
from images.browse.tree import Found, NotThereError, Tree, join, shown
from images.fstab import FstabLine, Tag, parse_fstab
from images.model.layout import Filesystem, Partition
from images.model.manifest import Manifest, Volume
from images.stack.nodes import stable_nodes

T = TypeVar("T")

#: Symbolic links followed in one path at most, as the kernel does.
_LINKS = 40
#: Bytes of a text file that are read.
_TEXT_LIMIT = MIB
#: Where distributions put the root subvolume of a btrfs, when it is not the default one.
_ROOTS = ("/", "/@", "/root", "/@rootfs", "/@/.snapshots/1/snapshot")


class Mount(msgspec.Struct, frozen=True):
    """A volume in the view.

    Attributes:
        place: where it is mounted: ``/``, ``/boot``.
        tree: its files.
        top: the folder of it that is mounted: ``/``, or a btrfs subvolume.
    """

    place: str
    tree: Tree
    top: str = "/"


class Closed(msgspec.Struct, frozen=True):
    """A volume that was mounted at ``place`` and cannot be opened: ``error`` says why."""

    place: str
    volume: str
    error: RefusedError | DamagedError


class View:
    """Mounts, the deepest first. Paths begin with ``/``.

    Attributes:
        closed: volumes that belong into the view and cannot be opened. A path on one of them is an error: the empty
            folder that it was mounted on would be a wrong answer.
    """

    def __init__(self, mounts: tuple[Mount, ...], closed: tuple[Closed, ...] = ()) -> None:
        self.mounts = tuple(sorted(mounts, key=lambda mount: -len(mount.place)))
        self.closed = closed

    def find(self, path: str, *, follow_last: bool = False) -> tuple[Tree, Found]:
        """The entry at a path.

        Args:
            follow_last: follow a symbolic link at the end of the path too; a path that ends in ``/`` asks for it.

        Raises:
            NotThereError: there is none. DamagedError: a folder on the way cannot be read. RefusedError: it lies on a
                volume that liferaft reads no files from.
        """
        follow_last = follow_last or path.endswith("/")
        waiting = [part for part in path.split("/") if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop(0)
            if part == "..":
                del done[-1:]
                continue
            done.append(part)
            _, found = self._at("/" + "/".join(done), path)
            if found.entry.kind is not Kind.LINK or not (waiting or follow_last):
                continue
            links += 1
            if links > _LINKS:
                raise NotThereError(f"{shown(path)}: too many symbolic links, one points to itself.")
            done.pop()
            if found.entry.target.startswith("/"):
                done = []
            waiting = [part for part in found.entry.target.split("/") if part not in ("", ".")] + waiting
        return self._at("/" + "/".join(done), path)

    def _at(self, path: str, asked: str) -> tuple[Tree, Found]:
        """An entry whose folders are none of them links; what is mounted there, where something is."""
        for mount in self.mounts:
            if not _holds(mount.place, path):
                continue
            for closed in self.closed:
                if _holds(closed.place, path) and len(closed.place) > len(mount.place):
                    raise closed.error
            inside = path[len(mount.place.rstrip("/")) :]
            found = mount.tree.root
            for part in [part for part in (mount.top + inside).split("/") if part]:
                if found.entry.kind is not Kind.FOLDER:
                    raise NotThereError(f"{mount.tree.source.name}:{shown(asked)}: {shown(found.path)} is no folder.")
                below = mount.tree.child(found, part) or mount.tree.stream(found, part)
                if below is None:
                    raise NotThereError(f"{mount.tree.source.name} has no {shown(join(found.path, part))}.")
                found = below
            return mount.tree, found
        raise NotThereError(f"There is no {shown(asked)}.")

    def place_of(self, tree: Tree, path: str) -> str | None:
        """Where the machine saw a path of a volume; None when that part of the volume was mounted nowhere."""
        for mount in self.mounts:
            if mount.tree is tree and _holds(mount.top, path):
                return join(mount.place, path[len(mount.top.rstrip("/")) :].strip("/")).rstrip("/") or "/"
        return None

    def below(self, place: str) -> tuple[str, ...]:
        """Where other volumes were mounted below a place."""
        places = {mount.place for mount in self.mounts} | {closed.place for closed in self.closed}
        return tuple(sorted(other for other in places if other != place and _holds(place, other)))


def _holds(place: str, path: str) -> bool:
    """Is a path that place, or below it?"""
    return path == place or path.startswith(place.rstrip("/") + "/")


def volume_named(manifest: Manifest, line: FstabLine) -> Volume | None:
    """The volume a line of fstab means; None when none or several answer to it."""
    found = [volume for volume in manifest.volumes if _answers(manifest, volume, line)]
    return found[0] if len(found) == 1 else None


def _answers(manifest: Manifest, volume: Volume, line: FstabLine) -> bool:
    if line.tag is None:
        return False
    if line.tag is Tag.DEVICE:
        # What lies in /dev itself (/dev/sda1) is numbered anew at each boot, and is none of these.
        return stable_nodes(manifest.layout).get(line.value) == volume.disk
    partition, filesystem = parts_of(manifest, volume)
    wanted = line.value.lower()
    if line.tag is Tag.UUID:
        return filesystem is not None and bool(wanted) and filesystem.uuid.lower() == wanted
    if line.tag is Tag.LABEL:
        return filesystem is not None and bool(line.value) and filesystem.label == line.value
    if partition is None:
        return False
    if line.tag is Tag.PARTLABEL:
        return bool(line.value) and partition.name == line.value
    if partition.uuid is not None:
        with contextlib.suppress(ValueError):
            return partition.uuid == UUID(wanted)
        return False
    table = manifest.layout.disk(volume.disk).table
    return table is not None and wanted == f"{table.identifier.removeprefix('0x').lower()}-{partition.number:02x}"


def parts_of(manifest: Manifest, volume: Volume) -> tuple[Partition | None, Filesystem | None]:
    """The partition a volume was, and the filesystem in it."""
    if not volume.partition:
        return None, manifest.layout.device(volume.disk).filesystem
    table = manifest.layout.disk(volume.disk).table
    found = (partition for partition in table.partitions if partition.id == volume.partition) if table else ()
    partition = next(iter(found), None)
    return partition, partition.filesystem if partition else None


def machine_view(trees: Callable[[Volume], Tree], manifest: Manifest, candidates: tuple[Volume, ...]) -> View | None:
    """The view of the machine; None when not exactly one volume is its root.

    Args:
        trees: opens a volume.
        candidates: volumes that may hold a root filesystem.
    """
    roots: list[tuple[Mount, str]] = []
    for volume in candidates:
        candidate = _tried(functools.partial(_root_of, trees, volume))
        if candidate is not None:
            roots.append(candidate)
    if len(roots) != 1:
        return None
    root, fstab = roots[0]
    mounts, closed = [root], []
    for line in parse_fstab(fstab):
        named = volume_named(manifest, line)
        if named is None or line.place == "/":
            continue
        try:
            tree = trees(named)
        except UnreachableError:
            raise
        except (RefusedError, DamagedError) as error:
            closed.append(Closed(line.place, named.id, error))
        else:
            # By its number it would have to be looked up: the top of the volume is shown then.
            subvolume = line.subvolume if line.subvolume.startswith("subvol=") else ""
            mounts.append(Mount(line.place, tree, "/" + subvolume.removeprefix("subvol=").strip("/")))
    return View(tuple(mounts), tuple(closed))


def _tried(opening: Callable[[], T | None]) -> T | None:
    """What opening a volume gives; None when it holds no files or is damaged. A server that is gone is an error."""
    try:
        return opening()
    except UnreachableError:
        raise
    except (RefusedError, DamagedError):
        return None


def _root_of(trees: Callable[[Volume], Tree], volume: Volume) -> tuple[Mount, str] | None:
    return root_in(trees(volume))


def root_in(tree: Tree) -> tuple[Mount, str] | None:
    """The folder of a volume that has ``etc/fstab``, and its text; None when it has none.

    Raises:
        DamagedError, RefusedError: it cannot be read.
    """
    # The default first: after a rollback of snapper's, what lies beside it is older.
    tops = (tree.default.path, *_ROOTS) if tree.filesystem.name == "btrfs" else _ROOTS[:1]
    for top in dict.fromkeys(tops):
        mount = Mount("/", tree, top)
        text = text_in(mount, "/etc/fstab")
        if text is not None:
            return mount, text
    return None


def text_in(root: Mount, path: str) -> str | None:
    """A short text file of a root filesystem; None when it has none there. Raises as :func:`root_in` does."""
    try:
        tree, found = View((root,)).find(path, follow_last=True)
    except UsageError:
        return None
    if found.entry.kind is not Kind.FILE:
        return None
    return tree.content(found).read(_TEXT_LIMIT).decode("utf-8", "replace")


def whole_volume(tree: Tree) -> View:
    """The view of one volume alone."""
    return View((Mount("/", tree),))


def unique_view(views: tuple[View, ...], path: str, closed: tuple[str, ...] = ()) -> View:
    """The only one of several views that has a path.

    Args:
        closed: why other volumes, that could have it too, cannot be read.

    Raises:
        NotThereError: none has it. UsageError: several have it; the message names them. DamagedError: a volume cannot
            be read, so that nobody can say whether it has it.
    """
    having = []
    problems = list(closed)
    for view in views:
        try:
            view.find(path)
            having.append(view)
        except NotThereError:
            continue
        except DamagedError as error:
            problems.append(error.message)
    names = [view.mounts[0].tree.source.volume.id for view in having]
    hint = f"Say which: ID:{names[0]}{shown(path)}" if names else ""
    if problems and not names:
        raise DamagedError(f"{shown(path)} was not found, but a volume could not be read: {problems[0]}")
    if problems:
        raise DamagedError(
            f"{shown(path)} is on {', '.join(names)}; but the volume that is meant may be one that could not be read: "
            f"{problems[0]}",
            hint=hint,
        )
    if len(names) > 1:
        raise UsageError(f"{shown(path)} is on {len(names)} volumes: {', '.join(names)}.", hint=hint)
    if not names:
        raise NotThereError(f"No volume has {shown(path)}.")
    return having[0]
