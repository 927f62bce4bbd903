"""Filesystems of every kind on loop devices: made, filled, thinned out, grown, shrunk and checked by their own tools.

Knows nothing of liferaft. Used by the cross-check of used blocks.
"""

import contextlib
import errno
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, run


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """How a filesystem is handled. ``{}`` in a command stands for the device, ``{folder}`` for where it is mounted,
    ``{size}`` for bytes, ``{sector}`` for the size of a sector.

    Attributes:
        make, check: commands; the check fails on any fault and writes nothing.
        mount: how it is mounted; empty when mtools speak for it.
        sizes: MiB at first, grown, and shrunk; 0 where the filesystem cannot do that.
        grow, shrink: commands for the unmounted, ``online`` says: for the mounted filesystem.
        partclone: who is asked for a map that ours must cover; empty when it is known to be wrong or is not needed.
    """

    make: str
    check: str
    mount: str = "mount {} {folder}"
    sizes: tuple[int, int, int] = (0, 0, 0)
    grow: tuple[str, ...] = ()
    shrink: tuple[str, ...] = ()
    online: bool = False
    partclone: str = ""

    @property
    def tools(self) -> tuple[str, ...]:
        commands = (self.make, self.check, self.mount, *self.grow, *self.shrink)
        return tuple({"losetup", *(command.split()[0] for command in commands if command)})


_E2FSCK = "e2fsck -fn {}"
_RESIZE = ("e2fsck -fp {}", "resize2fs {} {size}K")


def _ext(make: str, partclone: str = "partclone.extfs") -> Kind:
    return Kind(
        make=f"mke2fs -q -F {make} {{}}",
        check=_E2FSCK,
        sizes=(64, 130, 50),
        grow=_RESIZE,
        shrink=_RESIZE,
        partclone=partclone,
    )


def _fat(bits: int, size: int) -> Kind:
    return Kind(
        make=f"mkfs.vfat -F {bits} -S {{sector}} {{}}",
        check="fsck.fat -n {}",
        mount="",
        sizes=(size, 0, 0),
        partclone="" if bits == 12 else "partclone.fat",  # partclone 0.3.23 misreads FAT12
    )


def _xfs(make: str) -> Kind:
    return Kind(
        make=f"mkfs.xfs -q -f -s size={{sector}} {make} {{}}",
        check="xfs_repair -n {}",
        sizes=(64, 150, 0),
        grow=("xfs_growfs {folder}",),
        online=True,
        partclone="partclone.xfs",
    )


def _btrfs(make: str) -> Kind:
    return Kind(
        make=f"mkfs.btrfs -q -f {make} {{}}",
        check="btrfs check --readonly --check-data-csum {}",
        # below 256 MiB the kernel resizes nothing
        sizes=(290, 360, 270),
        grow=("btrfs filesystem resize max {folder}",),
        shrink=("btrfs filesystem resize {size}K {folder}",),
        online=True,
    )


KINDS = {
    "ext2": _ext("-t ext2 -b 4096"),
    "ext3": _ext("-t ext3 -b 4096"),
    "ext4": _ext("-t ext4 -b 4096"),
    # resize2fs 1.47 will not touch clusters
    "ext4-bigalloc": msgspec.structs.replace(_ext("-t ext4 -b 4096 -O bigalloc", ""), sizes=(64, 0, 0)),
    "fat12": _fat(12, 12),
    "fat16": _fat(16, 80),
    "fat32": _fat(32, 320),
    "exfat": Kind(
        make="mkfs.exfat {}",
        check="fsck.exfat -n {}",
        mount="mount.exfat-fuse {} {folder}",
        sizes=(48, 0, 0),
        partclone="partclone.exfat",
    ),
    "ntfs": Kind(
        make="mkntfs -q -F -f -s {sector} {}",
        check="ntfsfix -n {}",
        mount="ntfs-3g {} {folder}",
        sizes=(48, 80, 40),
        grow=("ntfsresize -f -f -P {}", "ntfsfix -d {}"),
        shrink=("ntfsresize -f -f -P -s {size}k {}", "ntfsfix -d {}"),
        partclone="partclone.ntfs",
    ),
    "xfs": _xfs(""),
    "xfs-rmap": _xfs("-m rmapbt=1,reflink=1 -d agcount=4"),
    "btrfs": _btrfs(""),
    "btrfs-mixed": msgspec.structs.replace(_btrfs("-M -O ^no-holes"), sizes=(120, 0, 0)),
}


class Volume:
    """A filesystem in a file, with sectors of one size."""

    def __init__(self, kind: Kind, folder: Path, sector_size: int) -> None:
        self.kind = kind
        self.path = folder / "volume.img"
        self.size = kind.sizes[0] * MIB
        self._sector = sector_size
        self._folder = folder / "mounted"
        self._folder.mkdir()
        with self.path.open("wb") as file:
            file.truncate(self.size)
        with self.device() as device:
            self._run(kind.make, device)

    @contextlib.contextmanager
    def device(self, path: Path | None = None) -> Iterator[Path]:
        """The node of a loop device over the volume, or over a copy of it."""
        words = ("losetup", "--find", "--show", f"--sector-size={self._sector}")
        node = run(*words, path or self.path).strip()
        try:
            yield Path(node)
        finally:
            run("losetup", "--detach", node)

    @contextlib.contextmanager
    def mounted(self, path: Path | None = None) -> Iterator[Path]:
        with self.device(path) as device:
            self._run(self.kind.mount, device)
            try:
                yield self._folder
            finally:
                run("umount", self._folder)

    def fill(self, tree: Path) -> None:
        if self.kind.mount:
            with self.mounted() as folder:
                shutil.copytree(tree, folder / "tree")
        else:
            run("mcopy", "-s", "-i", self.path, tree, "::tree")

    def thin_out(self) -> None:
        """Delete every other file."""
        if self.kind.mount:
            with self.mounted() as folder:
                for path in sorted(path for path in folder.rglob("*") if path.is_file())[::2]:
                    path.unlink()
        else:
            for name in sorted(self.digests())[::2]:
                run("mdel", "-i", self.path, f"::{name}")

    def fill_up(self) -> None:
        """One file that takes what is left."""
        random_ = random.Random(9)
        if not self.kind.mount:
            left = int(re.sub(r"\s", "", re.search(r"([\d\s]+) bytes free", run("mdir", "-i", self.path, "::"))[1]))
            with (self._folder / "big").open("wb") as file:
                while left:
                    left -= file.write(random_.randbytes(min(left, MIB)))
            run("mcopy", "-i", self.path, self._folder / "big", "::big")
            (self._folder / "big").unlink()
            return
        with self.mounted() as folder, (folder / "big").open("wb", buffering=0) as file:
            piece = random_.randbytes(MIB)
            while True:
                try:
                    file.write(piece)
                    os.fsync(file.fileno())
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    return

    def empty_again(self) -> None:
        with self.mounted() as folder:
            (folder / "big").unlink()

    def resize(self, megabytes: int) -> None:
        """Grow with the volume, or shrink inside it."""
        commands = self.kind.grow if megabytes * MIB > self.size else self.kind.shrink
        self.size = megabytes * MIB
        os.truncate(self.path, max(self.size, self.path.stat().st_size))
        with self.mounted() if self.kind.online else self.device() as place:
            for command in commands:
                self._run(command, place)

    def check(self, path: Path) -> None:
        with self.device(path) as device:
            self._run(self.kind.check, device)
        if self.kind.make.startswith("mkfs.btrfs"):  # every copy of everything
            with self.mounted(path) as folder:
                run("btrfs", "scrub", "start", "-B", "-r", folder)

    def digests(self, path: Path | None = None) -> dict[str, str]:
        if self.kind.mount:
            with self.mounted(path) as folder:
                return real.digests(folder)
        out = self._folder / "out"
        out.mkdir()
        run("mcopy", "-s", "-n", "-i", path or self.path, "::", out)
        found = real.digests(out)
        shutil.rmtree(out)
        return found

    def _run(self, command: str, place: Path) -> None:
        values = {"folder": self._folder, "size": self.size // 1024, "sector": self._sector}
        env = {"TEST_DIR": "x", "TEST_DEV": "x", "QA_CHECK_FS": "x"}  # mkfs.xfs refuses small volumes to others
        run("env", *(f"{name}={value}" for name, value in env.items()), *command.format(place, **values).split())
