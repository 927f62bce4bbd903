"""The BIOS source system once more, as Debian's installer makes it on two disks with "RAID": all of it on a mirror.

Two disks, each with a GPT, a BIOS boot partition, an ESP and a member; / on the array, /boot in it. GRUB's boot code is
on both disks, and its core on neither: what starts from them afterwards was installed by boot repair. The ESPs are not
mounted, and have what Debian's GRUB for UEFI would have there. Scripts for the guest that makes it, and what they find.
"""

from core.process import Runner
from core.units import MIB
from tests.boot.moved_root import Design, MovedRoot, moved_root
from tests.boot.place import HERE
from tests.boot.system import Source

SIZE = 1400 * MIB
ROOT_SIZE = 1300 * MIB
#: Of each disk.
ESP, MEMBER = 2, 3
ARRAY_UUID = "5f6e7d8c:9bad4bce:8df0a1b2:c3d4e5f6"
ROOT_UUID = "6a5b4c3d-2e1f-4a0b-9c8d-7e6f5a4b3c2d"
NAME = "rescue-me:0"
_DESIGN = Design(
    name="md",
    table="""label: gpt
start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649
size=8MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
type=A19D880F-05FC-4D3B-A006-743F0F84911E
""",
    size=SIZE,
    root_size=ROOT_SIZE,
    root=f"UUID={ROOT_UUID}",
    root_uuid=ROOT_UUID,
    files={
        "etc/fstab": f"UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n",
        # As Debian's mkconf writes it.
        "etc/mdadm/mdadm.conf": f"""HOMEHOST <system>
MAILADDR root
ARRAY /dev/md/0 metadata=1.2 UUID={ARRAY_UUID} name={NAME}
""",
        # An array has no device of its own in sysfs: the search for the driver of its disk would not end.
        "usr/local/sbin/bootcheck": (HERE / "guest" / "bootcheck")
        .read_text()
        .replace('while [ "$path" != / ]', 'while [ "${path%.}" ] && [ "$path" != / ]'),
    },
    packages=("mdadm",),
    programs=("mdadm",),
)


def md_source(source: Source, runner: Runner) -> MovedRoot:
    """The system for ``source``: one of its disks, with an empty member."""
    return moved_root(_DESIGN, source, runner)


def make_array(first: str, second: str, root: str) -> str:
    """A script for the guest: the second disk like the first, the array on both, the root on it, and all closed again.

    Two disks have two GUIDs, and their ESPs two serial numbers.
    """
    host, _, name = NAME.partition(":")
    return f"""
sfdisk --dump {first} | sed '/^label-id/d; /^device/d; s/, uuid=[^,]*//; s/^.* : //' | sfdisk -q {second}
dd if={first} of={second} bs=440 count=1 conv=notrunc status=none
udevadm settle
for esp in {first}{ESP} {second}{ESP}; do
  mkfs.vfat $esp >/dev/null
  mmd -i $esp ::/EFI ::/EFI/debian
  echo 'search.fs_uuid {ROOT_UUID} root' | mcopy -i $esp - ::/EFI/debian/grub.cfg
  sleep 1
done
mdadm --create /dev/md/made --run --homehost={host} --name={name} --uuid={ARRAY_UUID} --metadata=1.2 --level=1 \
  --raid-devices=2 --bitmap=internal --assume-clean {first}{MEMBER} {second}{MEMBER}
dd if={root} of=/dev/md/made bs=1M conv=sparse,fsync status=none
udevadm settle
mdadm --stop /dev/md/made
"""


def identities(first: str, second: str, separator: str = "") -> str:
    """A script: everything by which disks, array and filesystem are known. It leaves the array stopped.

    Args:
        separator: between a disk's node and the number of a partition.
    """
    members = " ".join(f"{disk}{separator}{MEMBER}" for disk in (first, second))
    return f"""
for d in {first} {second}; do sfdisk --json $d | grep -oE '"(label|id|type|uuid|name|attrs)": *"[^"]*"'; done
for m in {members}; do mdadm --examine $m | grep -E 'Version|Array UUID|Name|Raid Level|Raid Devices|Data Offset'; done
mdadm --assemble /dev/md/look --readonly --config=none --run {members} >/dev/null 2>&1
udevadm settle
blkid -p -o export -s UUID -s LABEL -s TYPE /dev/md/look | grep -v DEVNAME
mdadm --stop /dev/md/look 2>/dev/null
"""


def data_offset(member: str) -> str:
    """A script: where the array's first byte lies on a member, bytes."""
    return f"echo $((512 * $(mdadm --examine {member} | sed -n 's/.*Data Offset : \\([0-9]*\\) sectors/\\1/p')))"


def search_words(separator: str, *disks: str) -> str:
    """A script: what GRUB on each disk's ESP looks for, a line each."""
    nodes = " ".join(f"{disk}{separator}{ESP}" for disk in disks)
    # What mtools says of the geometry beside it is no word of GRUB's.
    return f"for esp in {nodes}; do mtype -i $esp ::/EFI/debian/grub.cfg 2>/dev/null; done"
