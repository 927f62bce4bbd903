"""The BIOS source system once more, with its root and swap on logical volumes, as Debian's installer lays them out.

A disk with /boot on a partition and an empty partition for the volume group, and the root filesystem as an image beside
it: this host's kernel makes no logical volumes, so that a guest makes the group and copies the root into it (``MAKE``).
It starts with the source system's machine-id and marker, which it was booted with. Cached like the systems of
``system.py``; takes about half a minute.

Also what a test asks of the restored one.
"""

import errno
import hashlib
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from core.process import Runner
from core.units import MIB
from tests.boot.compare import REPAIRED, REPAIRED_FOLDERS, Difference, differences_between, read_tree
from tests.boot.disk import Partition, loop, make_nodes, mounted, read_table, root_filesystem
from tests.boot.place import cache
from tests.boot.system import Source

GROUP, ROOT = "rescue-vg", "/dev/mapper/rescue--vg-root"
SIZE, BOOT, ROOT_SIZE = 1536 * MIB, 96 * MIB, 1200 * MIB
#: A disk that is 35 % smaller: the root has to be, too.
SMALLER = 998 * MIB
#: So that nothing has to be asked of the guest before the fstab is written.
BOOT_UUID = "6d1a7f5e-2f0b-4c8a-9a0e-3b7f1c2d4e5f"
ROOT_UUID = "0c9b8a7d-6e5f-4d3c-8b2a-1f0e9d8c7b6a"
SWAP_UUID = "5e4d3c2b-1a0f-4e9d-8c7b-6a5f4e3d2c1b"
#: Where the boot area of a dos table ends, and the first partition of both disks begins.
_AREA = MIB
#: Bytes of the boot code in LBA 0 (UEFI specification, table "Legacy MBR").
_BOOT_CODE = 440
_FSTAB = f"""{ROOT} / ext4 errors=remount-ro 0 1
UUID={BOOT_UUID} /boot ext4 defaults 0 2
/dev/mapper/rescue--vg-swap_1 none swap sw 0 0
"""


#: For the guest, of the physical volume ``{part}``: all UUIDs; and where the root lies on it, as byte offset.
IDENTITIES = f"""
vgs --devices {{part}} --noheadings -o vg_name,vg_uuid,vg_extent_size
pvs --devices {{part}} --noheadings -o pv_uuid,pe_start
lvs --devices {{part}} --noheadings -o lv_name,lv_uuid,segtype {GROUP}
"""
ROOT_OFFSET = f"""
start=$(pvs --devices {{part}} --noheadings --nosuffix --units b -o pe_start)
extent=$(vgs --devices {{part}} --noheadings --nosuffix --units b -o vg_extent_size {GROUP})
first=$(lvs --devices {{part}} --noheadings -o seg_pe_ranges {GROUP}/root | sed 's/.*://; s/-.*//')
echo $((start + first * extent))
"""


@dataclass(frozen=True)
class LvmSource:
    """``disk``: with /boot, and room for the group in partition 2; ``root``: the root filesystem. Read-only files."""

    disk: Path
    root: Path


def make_group(disk: str, root: str) -> str:
    """A script for the guest: the volume group on a disk, the root filesystem in it, all closed again."""
    return f"""
pvcreate -q {disk}2
vgcreate -q {GROUP} {disk}2
lvcreate -q -n root -L {ROOT_SIZE // MIB}M {GROUP}
lvcreate -q -n swap_1 -L 64M {GROUP}
dd if={root} of={ROOT} bs=1M conv=sparse,fsync status=none
mkswap -q -U {SWAP_UUID} /dev/{GROUP}/swap_1
vgchange -q -an {GROUP}
udevadm settle
"""


def lvm_source(source: Source, runner: Runner) -> LvmSource:
    """The system for ``source``, the one that starts by BIOS: from the cache, or made now."""
    key = hashlib.blake2s(Path(__file__).read_bytes() + source.disk.parent.name.encode(), digest_size=6).hexdigest()
    folder = cache() / f"source-lvm-{key}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache(), prefix=".making-") as making:
            made = Path(making) / "system"
            made.mkdir()
            _make(source, LvmSource(made / "disk.raw", made / "root.raw"), runner)
            try:
                made.rename(folder)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:  # another run made it meanwhile: either is as good
                    raise
    return LvmSource(folder / "disk.raw", folder / "root.raw")


def compare_roots(source: LvmSource, restored: Path, offset: int, runner: Runner) -> tuple[Difference, ...]:
    """What differs between the root filesystem and that on the restored disk, at rest, beyond what boot repair writes.

    Args:
        offset: of the root's first byte in the physical volume, as LVM said it.

    Raises:
        ProcessError: the restored one does not pass its check.
    """
    pv = read_table(restored, runner).partitions[1]
    place = replace(pv, start=pv.start + offset, size=pv.size - offset)
    whole = Partition(number=0, start=0, size=ROOT_SIZE, type="", uuid="", name="", attrs="", bootable=False)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lr-compare-")))
        with loop(restored, runner, part=place) as device:
            runner.run(["e2fsck", "-fn", str(device)])
        old = stack.enter_context(root_filesystem(source.root, whole, work / "source", runner))
        new = stack.enter_context(root_filesystem(restored, place, work / "restored", runner))
        # resize2fs gives the inodes of the groups that go other numbers.
        found = differences_between(read_tree(old), read_tree(new), REPAIRED, REPAIRED_FOLDERS, inodes=False)
    return tuple(difference for difference in found if not difference.allowed)


def _make(source: Source, made: LvmSource, runner: Runner) -> None:
    for path, size in ((made.disk, SIZE), (made.root, ROOT_SIZE)):
        with path.open("xb") as stream:
            stream.truncate(size)
    table = f"label: dos\nstart={_AREA // MIB}MiB, size={BOOT // MIB}MiB, type=83, bootable\ntype=8e\n"
    runner.run(["sfdisk", "--quiet", str(made.disk)], stdin=table)
    _copy_loader(source.disk, made.disk)
    part = read_table(made.disk, runner).partitions[0]
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lr-lvm-")))
        boot = stack.enter_context(loop(made.disk, runner, part=part, readonly=False))
        runner.run(["mke2fs", "-q", "-t", "ext4", "-U", BOOT_UUID, "-L", "boot", str(boot)])
        runner.run(["mke2fs", "-q", "-t", "ext4", "-U", ROOT_UUID, "-L", "rescue-me", str(made.root)])
        root_loop = stack.enter_context(loop(made.root, runner, readonly=False))
        root = stack.enter_context(mounted(root_loop, work / "root", runner))
        old = source.table.partitions[source.root_number - 1]
        with root_filesystem(source.disk, old, work / "old", runner) as system:
            runner.run(["cp", "--archive", "--one-file-system", "--no-target-directory", str(system), str(root)])
        shutil.rmtree(root / "srv/files")
        (root / "boot").rename(root / "boot.old")
        stack.enter_context(mounted(boot, root / "boot", runner))
        shutil.copytree(root / "boot.old", root / "boot", symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(root / "boot.old")
        # GRUB's core was made for a /boot on the root filesystem: its paths begin with /boot.
        (root / "boot/boot").symlink_to(".")
        _name_volumes(root, source.check.root_uuid)
        _install_lvm(root, work / "dev", runner)
    for path in (made.disk, made.root):
        path.chmod(0o444)


def _copy_loader(old: Path, new: Path) -> None:
    """Boot code and GRUB's core in the gap behind the table; the new table stays."""
    with old.open("rb") as source, new.open("r+b") as target:
        target.write(source.read(_BOOT_CODE))
        for stream in (source, target):
            stream.seek(512)
        target.write(source.read(_AREA - 512))


def _name_volumes(root: Path, old_uuid: str) -> None:
    """What named the old root filesystem names the new ones, as Debian's own tools write it for LVM."""
    (root / "etc/fstab").write_text(_FSTAB)
    menu = root / "boot/grub/grub.cfg"
    text = menu.read_text().replace(f"root=UUID={old_uuid}", f"root={ROOT}").replace(old_uuid, BOOT_UUID)
    menu.write_text(text)


def _install_lvm(root: Path, nodes: Path, runner: Runner) -> None:
    """lvm2 from Debian's archive, which makes the initramfs again with LVM in it."""
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
        words = ["apt-get", "-q", "-y", "install", "--no-install-recommends", "lvm2"]
        runner.run([*chroot, *words], env=quiet, timeout=300)
        runner.run([*chroot, "apt-get", "clean"], env=quiet)
        shutil.rmtree(root / "var/lib/apt/lists")
        resolver.unlink()
        found = runner.run([*chroot, "lsinitramfs", *(str(path).removeprefix(str(root)) for path in _images(root))])
        assert "sbin/lvm" in found.stdout, "the initramfs of the source has no LVM"
        assert "ahci" not in found.stdout, "the initramfs has the driver that boot repair is to put in"


def _images(root: Path) -> list[Path]:
    return sorted((root / "boot").glob("initrd.img-*"))
