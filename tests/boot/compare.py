"""Is the restored disk the source? Partition identities, every file with all it carries, and what fsck says.

Both disks are read on the host, at rest: the root filesystems mounted read-only without journal replay, the ESP with
mtools. The restored system must not have been booted yet. Only the files that boot repair rewrites may differ, and
what differs is returned so that it can be shown.
"""

import errno
import fnmatch
import os
import stat
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from core.process import Runner
from core.units import MIB
from tests.boot.disk import Partition, Table, loop, read_table, root_filesystem
from tests.boot.system import Source

#: What boot repair may rewrite, as paths below / (``*`` crosses folders).
REPAIRED = (
    "boot/initrd.img-*",
    "boot/grub/*",
    "etc/initramfs-tools/modules",
    "etc/initramfs-tools/conf.d/*",
    "etc/lvm/devices/*",
    "var/lib/initramfs-tools/*",
    "var/cache/debconf/*",
)
#: Folders whose times move because a file in them was replaced.
REPAIRED_FOLDERS = (
    "boot",
    "boot/grub",
    "etc/initramfs-tools",
    "etc/initramfs-tools/conf.d",
    "etc/lvm/devices",
    "etc/lvm/devices/backup",
    "var/cache/debconf",
    "var/lib/initramfs-tools",
    "var/tmp",  # where mkinitramfs works
)
#: The same on the ESP, lower case: FAT does not keep case apart.
REPAIRED_ESP = ("efi/*",)

#: Kinds of difference that are more than "written again".
_NEW = frozenset(("content", "size", "mode", "owner", "attributes", "only on the restored disk", "only on the source"))


@dataclass(frozen=True)
class Facts:
    """All that a file carries. ``size`` of a folder is left out: it never shrinks again after a rename in it."""

    mode: int
    owner: tuple[int, int]
    size: int
    changed: int
    device: int
    links: int
    inode: int
    attributes: tuple[tuple[str, bytes], ...]
    content: str


@dataclass(frozen=True)
class Difference:
    """One path that is not the same on both disks."""

    path: str
    what: str
    allowed: bool

    def __str__(self) -> str:
        return f"{'repaired' if self.allowed else 'DIFFERENT'}: {self.path!r}: {self.what}"


@dataclass(frozen=True)
class Comparison:
    """The outcome: how much was compared, and every difference."""

    files: int
    content_bytes: int
    differences: tuple[Difference, ...]

    @property
    def wrong(self) -> tuple[Difference, ...]:
        """Differences that boot repair does not explain."""
        return tuple(difference for difference in self.differences if not difference.allowed)

    def told(self) -> list[str]:
        """The differences for people: files written again with the same content (GRUB's modules) as one line."""
        same = [one for one in self.differences if one.allowed and not _NEW.intersection(one.what.split(", "))]
        lines = [str(one) for one in self.differences if one not in same]
        if same:
            lines.append(f"repaired: {len(same)} files and folders that differ in time or inode number only")
        return lines


def compare_disks(source: Source, restored: Path, runner: Runner) -> Comparison:
    """Compare every file of the restored disk with the source's."""
    table = read_table(restored, runner)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lr-compare-")))
        number = source.root_number - 1
        old = stack.enter_context(
            root_filesystem(source.disk, source.table.partitions[number], work / "source", runner)
        )
        new = stack.enter_context(root_filesystem(restored, table.partitions[number], work / "restored", runner))
        old_facts, new_facts = read_tree(old), read_tree(new)
        differences = differences_between(old_facts, new_facts, REPAIRED, REPAIRED_FOLDERS, inodes=True)
        if len(source.table.partitions) > 1:
            esps = []
            for name, disk, part in (("a", source.disk, source.table), ("b", restored, table)):
                esps.append(_read_esp(disk, part.partitions[0], work / name, runner))
            differences += differences_between(esps[0], esps[1], REPAIRED_ESP, (), inodes=False)
            old_facts = {**old_facts, **{f"ESP:{path}": facts for path, facts in esps[0].items()}}
    total = sum(facts.size for facts in old_facts.values() if stat.S_ISREG(facts.mode))
    return Comparison(len(old_facts), total, tuple(differences))


def read_tree(root: Path) -> dict[str, Facts]:
    """Every path below ``root`` with its facts. Names that are not UTF-8 keep their bytes as surrogates."""
    found = {".": _facts(root)}
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(folder) / name
            found[str(path.relative_to(root))] = _facts(path)
    return found


def _facts(path: Path) -> Facts:
    status = path.lstat()
    content = ""
    if stat.S_ISREG(status.st_mode):
        content = _digest(path)
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    attributes = tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(os.listxattr(path, follow_symlinks=False))
    )
    folder = stat.S_ISDIR(status.st_mode)
    return Facts(
        mode=status.st_mode,
        owner=(status.st_uid, status.st_gid),
        size=0 if folder else status.st_size,
        changed=status.st_mtime_ns,
        device=status.st_rdev,
        links=0 if folder else status.st_nlink,
        inode=status.st_ino,
        attributes=attributes,
        content=content,
    )


def _digest(path: Path) -> str:
    """Digest of a file's data and of where it lies; holes are not read (one file has 2 GiB of them)."""
    digest = blake3()
    with path.open("rb") as stream:
        end = os.fstat(stream.fileno()).st_size
        offset = 0
        while offset < end:
            try:
                start = os.lseek(stream.fileno(), offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # ENXIO: nothing but a hole from here on
                    raise
                break
            offset = os.lseek(stream.fileno(), start, os.SEEK_HOLE)
            digest.update(f"{start}-{offset}:".encode())
            for place in range(start, offset, 4 * MIB):
                digest.update(os.pread(stream.fileno(), min(4 * MIB, offset - place), place))
    return digest.hexdigest()


def differences_between(
    old: dict[str, Facts],
    new: dict[str, Facts],
    repaired: tuple[str, ...],
    folders: tuple[str, ...],
    *,
    inodes: bool,
) -> list[Difference]:
    """Every path that is not the same in two trees.

    Args:
        repaired: patterns of paths that may differ; ``folders`` may differ in their time only.
        inodes: compare inode numbers too; without it (FAT has none) letter case of ``repaired`` is ignored.
    """
    found = []
    for path in sorted(old.keys() | new.keys()):
        what = _difference(old.get(path), new.get(path), inodes=inodes)
        if what:
            allowed = any(fnmatch.fnmatchcase(path if inodes else path.lower(), pattern) for pattern in repaired)
            # A folder that lost or won a file has a new time, and nothing else.
            allowed = allowed or (path in folders and what == "changed")
            found.append(Difference(path, what, allowed))
    return found


def _difference(old: Facts | None, new: Facts | None, *, inodes: bool) -> str:
    if old is None:
        return "only on the restored disk"
    if new is None:
        return "only on the source"
    names = [name for name in Facts.__dataclass_fields__ if inodes or name != "inode"]
    return ", ".join(name for name in names if getattr(old, name) != getattr(new, name))


def _read_esp(disk: Path, part: Partition, place: Path, runner: Runner) -> dict[str, Facts]:
    """The ESP's files with mtools (this machine's kernel need not know FAT). Times are kept."""
    place.mkdir()
    runner.run(["mcopy", "-s", "-m", "-n", "-i", f"{disk}@@{part.start}", "::/", str(place)])
    return read_tree(place)


def check_identities(source: Source, restored: Path, runner: Runner, *, grown: bool) -> None:
    """The table says the same as the source's, read by sfdisk; the last partition may be larger when ``grown``."""
    old, new = source.table, read_table(restored, runner)
    assert (new.label, new.id) == (old.label, old.id)
    assert len(new.partitions) == len(old.partitions)
    for before, after in zip(old.partitions, new.partitions, strict=True):
        last = before is old.partitions[-1]
        _check_partition(before, after, grown=grown and last)
        was, now = _filesystem(source.disk, before, runner), _filesystem(restored, after, runner)
        assert was == now, f"partition {before.number}: {was} became {now}"


def _check_partition(before: Partition, after: Partition, *, grown: bool) -> None:
    for name in ("number", "start", "type", "uuid", "name", "attrs", "bootable"):
        was, now = getattr(before, name), getattr(after, name)
        assert was == now, f"partition {before.number}: {name} {was!r} became {now!r}"
    if grown:
        assert after.size > before.size, f"partition {before.number} was not grown: {after.size} bytes"
    else:
        assert after.size == before.size, f"partition {before.number}: size {before.size} became {after.size}"


def _filesystem(disk: Path, part: Partition, runner: Runner) -> str:
    """Type, UUID and label as libblkid reads them."""
    argv = ["blkid", "-p", "-O", str(part.start), "-S", str(part.size), "-o", "export"]
    lines = runner.run([*argv, str(disk)]).stdout.splitlines()
    return " ".join(sorted(line for line in lines if line.startswith(("TYPE=", "UUID=", "LABEL="))))


def check_filesystems(restored: Path, table: Table, runner: Runner) -> list[str]:
    """``fsck -n`` on every filesystem of the disk; returns what each program said last.

    Raises:
        ProcessError: a filesystem is not clean.
    """
    said = []
    for part in table.partitions:
        with loop(restored, runner, part=part) as device:
            kind = runner.run(["blkid", "-p", "-s", "TYPE", "-o", "value", str(device)]).stdout.strip()
            argv = {"ext4": ["e2fsck", "-fn"], "vfat": ["fsck.vfat", "-n"]}.get(kind)
            if argv:
                output = runner.run([*argv, str(device)]).stdout
                said.append(f"{kind}: {output.strip().splitlines()[-1]}")
            else:
                assert kind == "swap", f"partition {part.number} holds {kind!r}"
    return said
