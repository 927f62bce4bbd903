"""Mounting a restored system as its own fstab says, ready to run its own tools in it.

Everything is undone by structure: the context manager unmounts in reverse, whatever happened.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import msgspec

from core.errors import LiferaftError, ProcessError
from core.process import Runner
from core.stopping import lasting
from images.fstab import FstabLine, parse_fstab
from images.model.layout import BARE_ROLES, FilesystemKind
from restore.boot.held import Held, HeldPartition, nodes_for
from restore.boot.within import folder_within
from restore.planning.abilities import MOVABLE_CONTAINERS

#: Places without which neither kernel nor boot loader can be made again.
_NEEDED = frozenset({"/boot", "/usr"})
#: Places that boot repair looks into, though the system itself may mount them on demand alone (noauto).
_BOOT = _NEEDED | {"/boot/efi", "/efi"}
#: What the system's own tools need to see (docs of initramfs-tools, grub-install, lvm).
_BINDS = ("/dev", "/dev/pts", "/proc", "/sys", "/run")


#: The inode number of the top of every subvolume (kernel: include/uapi/linux/btrfs_tree.h, BTRFS_FIRST_FREE_OBJECTID).
_SUBVOLUME_INODE = 256
#: What installers call the subvolume of the root: Ubuntu and Arch, Fedora, Debian.
_USUAL = ("@", "root", "@rootfs")


class Root(msgspec.Struct, frozen=True):
    """Where the root of a system lies. ``subvolume``: of a btrfs, by name; empty for what is mounted without one."""

    node: str
    subvolume: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The options with which it is mounted."""
        return ("--options", f"subvol={self.subvolume}") if self.subvolume else ()


class Absent(msgspec.Struct, frozen=True):
    """A place of a system's fstab that is not mounted.

    Attributes:
        spec: what the line names. reason: why it could not be mounted; empty when it is on none of the restored disks.
    """

    place: str
    spec: str
    reason: str = ""

    @property
    def text(self) -> str:
        """For people."""
        if self.reason:
            return f"{self.place} ({self.spec}) could not be mounted: {self.reason}"
        return f"{self.place} ({self.spec}) of the system's fstab is not on the restored disks"


class MountedSystem(msgspec.Struct, frozen=True):
    """A mounted system.

    Attributes:
        root: the folder of its root.
        absent: the places of its fstab that are not mounted.
        nodes: by place, what is mounted there.
    """

    root: Path
    absent: tuple[Absent, ...]
    nodes: Mapping[str, str] = MappingProxyType({})

    @property
    def lacking(self) -> tuple[Absent, ...]:
        """Those without which neither kernel nor boot loader can be made again."""
        return tuple(absent for absent in self.absent if absent.place in _NEEDED)


@contextlib.contextmanager
def mounted_system(found: Root, nodes: Mapping[str, Held], runner: Runner) -> Iterator[MountedSystem]:
    """The system whose root was found, mounted with its other filesystems and the kernel's.

    Args:
        nodes: the partitions of the restored disks and the devices of their stack, by device node.
    """
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(mount_point("liferaft-system-"))
        stack.enter_context(mount_held(found.node, nodes[found.node], root, runner, *found.words))
        absent: list[Absent] = []
        places = {"/": found.node}
        for line in parse_fstab((root / "etc/fstab").read_text(errors="replace")):
            if line.place == "/" or line.kind in ("swap", "tmpfs", "proc"):
                continue
            if "noauto" in line.options and line.place not in _BOOT:
                continue
            meant = nodes_for(line, nodes)
            if len(meant) != 1:
                absent.append(Absent(line.place, line.spec, f"{', '.join(meant)} are all called so" if meant else ""))
                continue
            try:
                stack.enter_context(_mount_line(line, meant[0], nodes[meant[0]], root, runner))
                places[line.place] = meant[0]
            except LiferaftError as error:
                # A dirty volume, a filesystem this kernel does not know: what repair has to do may lie elsewhere.
                absent.append(Absent(line.place, line.spec, error.message))
        for folder in _BINDS:
            place = folder_within(root, folder)
            if place is not None:
                stack.enter_context(mount(folder, place, runner, "--bind"))
        yield MountedSystem(root, tuple(absent), places)


@contextlib.contextmanager
def _mount_line(line: FstabLine, node: str, held: Held, root: Path, runner: Runner) -> Iterator[Path]:
    """One line of the fstab of the system at ``root``, mounted.

    Raises:
        LiferaftError: there is no such place in the system, or it could not be mounted.
    """
    place = folder_within(root, line.place)
    if place is None:
        raise LiferaftError("the links on the way to it go round in circles")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LiferaftError(f"there is no such folder, and none can be made ({error.strerror})") from None
    words = ("--options", line.subvolume) if line.subvolume else ()
    with mount_held(node, held, place, runner, *words):
        yield place


@contextlib.contextmanager
def mount_point(prefix: str, where: Path | None = None) -> Iterator[Path]:
    """An empty folder to mount something in; it goes with the block.

    Not a :class:`tempfile.TemporaryDirectory`: were a filesystem still mounted there, that would delete its files.

    Args:
        where: the folder that it is made in; TMPDIR's by default.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    try:
        yield folder
    finally:
        if not folder.is_mount():
            shutil.rmtree(folder)


@contextlib.contextmanager
def mount(what: str, place: Path, runner: Runner, *options: str) -> Iterator[Path]:
    """A mount that ends with the block."""
    begin = partial(runner.run, ["mount", *options, what, str(place)], timeout=120)
    with lasting(begin, lambda _: _unmount(place, runner)):
        yield place


def _unmount(place: Path, runner: Runner) -> None:
    try:
        runner.run(["umount", str(place)], timeout=300)
    except ProcessError:
        # A process of the chroot may linger for a moment; lazily is better than never.
        runner.run(["umount", "--lazy", str(place)], timeout=60)


@contextlib.contextmanager
def mount_held(node: str, held: Held, place: Path, runner: Runner, *options: str) -> Iterator[Path]:
    """The same for a filesystem that is known.

    Raises:
        LiferaftError: it is a btrfs, and the kernel mounted another disk with the same UUID instead.
    """
    if held.filesystem is None or held.filesystem.kind is not FilesystemKind.BTRFS:
        with mount(node, place, runner, *options):
            yield place
        return
    # The kernel knows the devices of a btrfs by its UUID: the disk that was captured may be in this machine, too.
    runner.run(["btrfs", "device", "scan", "--forget"], timeout=300)
    with mount(node, place, runner, *options):
        found = runner.run(["findmnt", "--noheadings", "--output", "SOURCE", str(place)], timeout=60).stdout.strip()
        # An array's node is a link (/dev/md/NAME), and the kernel says where it leads.
        if Path(found.split("[")[0]).resolve() != Path(node).resolve():
            raise LiferaftError(
                f"Mounting {node} gave the btrfs on {found}, which has the same UUID. Neither was changed.",
                hint="Detach the other disk and repair the boot of this one again.",
            )
        yield place


def find_root(nodes: Mapping[str, Held], runner: Runner, tell: Callable[[str], None]) -> Root | None:
    """The first partition, device or subvolume that holds an operating system: etc/fstab and os-release.

    Args:
        tell: is told of those that could not be looked into.
    """
    for node, held in nodes.items():
        filesystem = held.filesystem
        if filesystem is None or filesystem.kind.startswith(("fat", "swap")):
            continue
        if filesystem.detail in MOVABLE_CONTAINERS:
            continue
        if isinstance(held, HeldPartition) and held.partition.role in BARE_ROLES:
            continue
        with mount_point("liferaft-look-") as folder:
            try:
                with mount_held(node, held, folder, runner, "--options", "ro"):
                    if _is_system(folder):
                        return Root(node)
                if filesystem.kind is FilesystemKind.BTRFS:
                    with mount_held(node, held, folder, runner, "--options", "ro,subvolid=5"):
                        name = _root_subvolume(folder)
                    if name:
                        return Root(node, name)
            except LiferaftError as error:
                name = f"partition {held.partition.number}" if isinstance(held, HeldPartition) else held.id
                tell(f"{name} could not be looked into: {error.message}")
    return None


def _is_system(root: Path) -> bool:
    release = (root / "etc/os-release").is_symlink() or (root / "usr/lib/os-release").exists()
    return release and (root / "etc/fstab").is_file()


def _root_subvolume(top: Path) -> str:
    """The name of the subvolume with the system, among those at the top of a btrfs; empty for none.

    A snapshot of it is the same system, too: the one that its own fstab names is meant, else what installers call it.
    """
    found = [
        path
        for path in sorted(top.iterdir())
        if "," not in path.name and path.lstat().st_ino == _SUBVOLUME_INODE and path.is_dir() and _is_system(path)
    ]
    for path in found:
        lines = parse_fstab((path / "etc/fstab").read_text(errors="replace"))
        named = {line.subvolume.removeprefix("subvol=").strip("/") for line in lines if line.place == "/"}
        if path.name in named:
            return path.name
    usual = [path for path in found if path.name in _USUAL]
    return (usual or found)[0].name if found else ""
