"""Disks that fail while they are restored: scripts for a lab guest, and what the host gives it.

The guest's kernel makes the faults: device-mapper's ``error`` target under the disk, and a disk that is taken out of
the running machine (PCI hot removal through sysfs) and put in again. Its first disk is the target; nothing is judged
here.
"""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

from core.process import Runner
from core.units import MIB
from tests.boot.lab import blank_disk
from tests.boot.restoring import liferaft

#: MiB: the target, a disk with a stack, and one that it is restored to.
SIZES = (160, 128, 128)
#: The target's serial number, as the lab names its first disk.
SERIAL = "LAB0"
_PARTITION = MIB
_CONTENT = 48 * MIB
#: Behind the partitions and before the copy of the GPT: nothing may be written there.
_BEHIND = 128
_BEHIND_SIZE = 16


@dataclass(frozen=True)
class Captured:
    """A disk in a repository in the shared folder.

    Attributes:
        digest: SHA-256 of the one file on its first partition.
        bad: a sector of the disk in which that file has content.
    """

    digest: str
    bad: int


def capture(folder: Path, runner: Runner) -> Captured:
    """Make a disk of two partitions, capture it as ``plain`` into ``folder``/repo, and forget the disk."""
    disk, tree, empty = blank_disk(folder / "source.raw", 100 * MIB), folder / "tree", folder / "empty"
    tree.mkdir()
    empty.mkdir()
    content = random.Random(4).randbytes(_CONTENT)
    (tree / "random").write_bytes(content)
    runner.run(["sfdisk", "-q", str(disk)], stdin="label: gpt\nstart=1MiB, size=70MiB\nsize=10MiB\n")
    for start, size, files in ((1, 70, tree), (71, 10, empty)):
        argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-E", f"offset={start * MIB}", "-d", str(files)]
        runner.run([*argv, str(disk), f"{size}M"])
    middle = _CONTENT // 2 // 1024
    block = runner.run(["debugfs", "-R", f"bmap /random {middle}", f"{disk}?offset={_PARTITION}"]).stdout
    liferaft(["capture", str(disk), "--repo", str(folder / "repo"), "--name", "plain", "--progress", "none"], runner)
    disk.unlink()
    return Captured(hashlib.sha256(content).hexdigest(), (_PARTITION + int(block.split()[0]) * 1024) // 512)


#: A blank target with something behind the partitions; ``bad`` sectors from one on cannot be read or written.
#: The loop device passes them on as a disk does: without a page cache in between, and as a whole disk.
BREAK = f"""
blkdiscard -f -q /dev/vda
head -c {_BEHIND_SIZE}M /dev/urandom >/run/behind
dd if=/run/behind of=/dev/vda bs=1M seek={_BEHIND} oflag=direct status=none
all=$(blockdev --getsz /dev/vda)
dmsetup create faulty <<END
0 BAD linear /dev/vda 0
BAD 8 error
$((BAD + 8)) $((all - BAD - 8)) linear /dev/vda $((BAD + 8))
END
losetup --direct-io=on /dev/loop7 /dev/mapper/faulty
udevadm settle
"""

MEND = """
echo "0 $(blockdev --getsz /dev/vda) linear /dev/vda 0" | dmsetup load faulty
dmsetup suspend faulty
dmsetup resume faulty
"""

#: The disk itself again, blank, with the same behind the partitions.
UNDO = f"""
losetup -d /dev/loop7
udevadm settle
dmsetup remove --retry faulty
blkdiscard -f -q /dev/vda
dd if=/run/behind of=/dev/vda bs=1M seek={_BEHIND} oflag=direct status=none
udevadm settle
"""

#: Taken out of the running machine when 16 MiB were written, as the kernel counts them.
VANISH = """
pci=$(dirname "$(readlink -f /sys/block/vda/device)")
written() { awk '{ print $7 }' /sys/block/vda/stat; }
before=$(written)
liferaft restore plain --repo /run/lab/repo --target /dev/vda --boot no --yes --progress none >/run/said 2>&1 &
restore=$!
until [ $(($(written) - before)) -gt 32768 ]; do
  kill -0 $restore || break
  sleep 0.05
done
echo 1 >$pci/remove
wait $restore
echo "code $?"
cat /run/said
[ -e /dev/vda ] || echo "no such disk"
echo 1 >/sys/bus/pci/rescan
for n in $(seq 100); do [ -e /dev/disk/by-id/virtio-LAB0 ] && break; sleep 0.1; done
udevadm settle
readlink -f /dev/disk/by-id/virtio-LAB0
"""

#: RAID 1 → LUKS → LVM → ext4 on two partitions of one disk; closed again.
STACK = """
printf 'label: gpt\\nsize=48M\\nsize=48M\\n' | sfdisk -q /dev/vdb
udevadm settle
mdadm --create /dev/md/pair --run --homehost=any --metadata=1.2 --assume-clean --bitmap=none --level=1 \\
  --raid-devices=2 /dev/vdb1 /dev/vdb2
printf first >/run/key
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/key /dev/md/pair
cryptsetup open --key-file /run/key /dev/md/pair crypt
vgcreate -q whole /dev/mapper/crypt
lvcreate -q -n data -l 100%FREE whole
mkfs.ext4 -q /dev/whole/data
mkdir -p /run/m
mount /dev/whole/data /run/m
head -c 5M /dev/urandom >/run/m/random
sha256sum /run/m/random
umount /run/m
"""

CLOSE = """
vgchange -q -an whole >/dev/null
cryptsetup close crypt
mdadm --stop --quiet /dev/md/pair
udevadm settle
"""

OPEN = """
mdadm --assemble --scan --config=partitions --quiet
udevadm settle
cryptsetup open --key-file /run/key /dev/md/pair crypt
vgchange -q -ay whole >/dev/null
udevadm settle
e2fsck -fn /dev/whole/data >/dev/null 2>&1
mount -o ro /dev/whole/data /run/m
sha256sum /run/m/random
umount /run/m
"""


def broken(captured: Captured) -> str:
    """The script that breaks the target at the captured file."""
    return BREAK.replace("BAD", str(captured.bad))


def restore(target: str, *options: str) -> str:
    """The command that restores ``plain``."""
    words = " ".join(options)
    return f"liferaft restore plain --repo /run/lab/repo --target {target} --boot no --yes --progress none {words}\n"


def behind(node: str) -> str:
    """Whether what lies behind the partitions is as it was."""
    return f"cmp -n {_BEHIND_SIZE * MIB} /run/behind {node} 0 {_BEHIND * MIB} && echo untouched\n"


def content(node: str) -> str:
    """What the restored filesystems' own tools say, and the digest of the file. ``node``: a disk or loop device."""
    return f"""
at=$(losetup -f --show -r -o {_PARTITION} --sizelimit {70 * MIB} {node})
e2fsck -fn $at >/dev/null 2>&1
mkdir -p /run/m
mount -o ro,noload $at /run/m
sha256sum </run/m/random
umount /run/m
losetup -d $at
"""
