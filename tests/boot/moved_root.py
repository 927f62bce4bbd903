"""A source system once more, its root filesystem as an image of its own: for what only a guest's kernel makes.

A disk with an empty partition for a volume group, a container or an array, and the root beside it, which a guest copies
to where the system's own fstab, crypttab and boot menu look for it; /boot lies on the first partition, or with the
root. It starts with the source system's machine-id and marker, which it was booted with. Cached like the systems of
``system.py``; takes about half a minute.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from core.process import Runner
from core.units import MIB
from tests.boot.compare import REPAIRED, REPAIRED_FOLDERS, Difference, differences_between, read_tree
from tests.boot.disk import Partition, loop, make_nodes, mounted, read_table, root_filesystem
from tests.boot.place import made_once
from tests.boot.system import Source

#: Where the boot area of a dos table ends, and the first partition of both disks begins.
AREA = MIB
#: Bytes of the boot code in LBA 0 (UEFI specification, table "Legacy MBR").
_BOOT_CODE = 440


@dataclass(frozen=True)
class Design:
    """What becomes of the source.

    Attributes:
        table: for sfdisk. ``size`` and ``root_size`` are bytes.
        root: the device that the boot menu names.
        boot_uuid: of /boot on the first partition; empty when it lies on the root. Then the disk has GRUB's boot code
            and not its core, which would have to know what the root lies on.
        files: what the system says of its volumes, by path below /.
        packages: what it takes to open them; ``programs``: what its initramfs has then.
    """

    name: str
    table: str
    size: int
    root_size: int
    root: str
    root_uuid: str
    files: Mapping[str, str]
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    boot_uuid: str = ""


@dataclass(frozen=True)
class MovedRoot:
    """``disk``: with /boot, and room for the rest; ``root``: the root filesystem. Read-only files."""

    disk: Path
    root: Path


def moved_root(design: Design, source: Source, runner: Runner) -> MovedRoot:
    """The system for ``source``, the one that starts by BIOS: from the cache, or made now."""
    making = Path(__file__).read_bytes() + repr(design).encode() + source.disk.parent.name.encode()
    folder = made_once(
        f"source-{design.name}-{hashlib.blake2s(making, digest_size=6).hexdigest()}",
        lambda made: _make(design, source, _files(made), runner),
    )
    return _files(folder)


def _files(folder: Path) -> MovedRoot:
    return MovedRoot(folder / "disk.raw", folder / "root.raw")


def compare_roots(source: MovedRoot, restored: Path, place: Partition, runner: Runner) -> tuple[Difference, ...]:
    """What differs between the root filesystem and a restored one, at rest, beyond what boot repair writes.

    Args:
        place: of the restored root in the file or disk ``restored``; its filesystem may be shorter.

    Raises:
        ProcessError: the restored one does not pass its check.
    """
    whole = Partition(
        number=0, start=0, size=source.root.stat().st_size, type="", uuid="", name="", attrs="", bootable=False
    )
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lr-compare-")))
        with loop(restored, runner, part=place) as device:
            runner.run(["e2fsck", "-fn", str(device)])
        old = stack.enter_context(root_filesystem(source.root, whole, work / "source", runner))
        new = stack.enter_context(root_filesystem(restored, place, work / "restored", runner))
        # resize2fs gives the inodes of the groups that go other numbers.
        found = differences_between(read_tree(old), read_tree(new), REPAIRED, REPAIRED_FOLDERS, inodes=False)
    return tuple(difference for difference in found if not difference.allowed)


def _make(design: Design, source: Source, made: MovedRoot, runner: Runner) -> None:
    for path, size in ((made.disk, design.size), (made.root, design.root_size)):
        with path.open("xb") as stream:
            stream.truncate(size)
    runner.run(["sfdisk", "--quiet", str(made.disk)], stdin=design.table)
    _copy_loader(source.disk, made.disk, core=bool(design.boot_uuid))
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"lr-{design.name}-")))
        runner.run(["mke2fs", "-q", "-t", "ext4", "-U", design.root_uuid, "-L", "rescue-me", str(made.root)])
        root_loop = stack.enter_context(loop(made.root, runner, readonly=False))
        root = stack.enter_context(mounted(root_loop, work / "root", runner))
        old = source.table.partitions[source.root_number - 1]
        with root_filesystem(source.disk, old, work / "old", runner) as system:
            runner.run(["cp", "--archive", "--one-file-system", "--no-target-directory", str(system), str(root)])
        shutil.rmtree(root / "srv/files")
        if design.boot_uuid:
            _move_boot(design, made.disk, root, stack, runner)
        _name_volumes(design, root, source.check.root_uuid)
        _install(design, root, work / "dev", runner)
    for path in (made.disk, made.root):
        path.chmod(0o444)


def _move_boot(design: Design, disk: Path, root: Path, stack: ExitStack, runner: Runner) -> None:
    """/boot onto the first partition, which stays mounted there."""
    part = read_table(disk, runner).partitions[0]
    boot = stack.enter_context(loop(disk, runner, part=part, readonly=False))
    runner.run(["mke2fs", "-q", "-t", "ext4", "-U", design.boot_uuid, "-L", "boot", str(boot)])
    (root / "boot").rename(root / "boot.old")
    stack.enter_context(mounted(boot, root / "boot", runner))
    shutil.copytree(root / "boot.old", root / "boot", symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(root / "boot.old")
    # GRUB's core was made for a /boot on the root filesystem: its paths begin with /boot.
    (root / "boot/boot").symlink_to(".")


def _copy_loader(old: Path, new: Path, *, core: bool) -> None:
    """Boot code, and GRUB's core in the gap behind a dos table; the new table stays."""
    with old.open("rb") as source, new.open("r+b") as target:
        target.write(source.read(_BOOT_CODE))
        if not core:
            return
        for stream in (source, target):
            stream.seek(512)
        target.write(source.read(AREA - 512))


def _name_volumes(design: Design, root: Path, old_uuid: str) -> None:
    """What named the old root filesystem names the new ones, as Debian's own tools write it."""
    for name, text in design.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    menu = root / "boot/grub/grub.cfg"
    text = menu.read_text().replace(f"root=UUID={old_uuid}", f"root={design.root}")
    menu.write_text(text.replace(old_uuid, design.boot_uuid or design.root_uuid))


def _install(design: Design, root: Path, nodes: Path, runner: Runner) -> None:
    """Packages from Debian's archive, which make the initramfs again with what they bring in it."""
    nodes.mkdir()
    make_nodes(nodes)
    with ExitStack() as stack:
        stack.enter_context(mounted(Path("proc"), root / "proc", runner, kind="proc"))
        runner.run(["mount", "--bind", str(nodes), str(root / "dev")])
        stack.callback(runner.run, ["umount", str(root / "dev")])
        resolver = root / "etc/resolv.conf"
        shutil.copy("/etc/resolv.conf", resolver)
        chroot = ["chroot", str(root)]
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        runner.run([*chroot, "apt-get", "-q", "update"], env=quiet, timeout=300)
        # Configuration that is there already is the system's own, and no question.
        kept = ("-o", "Dpkg::Options::=--force-confold")
        words = ["apt-get", "-q", "-y", *kept, "install", "--no-install-recommends", *design.packages]
        runner.run([*chroot, *words], env=quiet, timeout=300)
        runner.run([*chroot, "apt-get", "clean"], env=quiet)
        shutil.rmtree(root / "var/lib/apt/lists")
        resolver.unlink()
        found = runner.run([*chroot, "lsinitramfs", *(str(path).removeprefix(str(root)) for path in _images(root))])
        for program in design.programs:
            assert f"sbin/{program}\n" in found.stdout, f"the initramfs of the source has no {program}"
        assert "ahci" not in found.stdout, "the initramfs has the driver that boot repair is to put in"


def _images(root: Path) -> list[Path]:
    return sorted((root / "boot").glob("initrd.img-*"))
