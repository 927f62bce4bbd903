"""The BIOS source system once more, as Debian's installer makes it with "encrypted LVM": all but /boot in LUKS.

A dos table with /boot, an extended partition, in it a logical one with the container, in that a volume group with root
and swap. Scripts for the guest that makes it, and what they are to find afterwards.
"""

from core.process import Runner
from core.units import MIB
from tests.boot.lvm_source import GROUP, IDENTITIES, ROOT, ROOT_SIZE, fstab, make_group
from tests.boot.moved_root import Design, MovedRoot, moved_root
from tests.boot.system import Source

SIZE = 1600 * MIB
#: A disk that is a third smaller: the root has to be, too.
SMALLER = 1060 * MIB
PART = 5
PASSPHRASE = "correct horse"
#: What the installer calls it: after the partition that it found.
MAPPING = "sda5_crypt"
BOOT_UUID = "2b1c0d9e-8f7a-4b6c-9d5e-4f3a2b1c0d9e"
ROOT_UUID = "3c2d1e0f-9a8b-4c7d-8e6f-5a4b3c2d1e0f"
LUKS_UUID = "4d3e2f1a-0b9c-4d8e-9f7a-6b5c4d3e2f1a"
#: The installer begins the extended partition two sectors before what lies in it.
_DESIGN = Design(
    name="luks",
    table="""label: dos
1 : start=2048, size=196608, type=83, bootable
2 : start=200702, type=5
5 : start=200704, type=83
""",
    size=SIZE,
    root_size=ROOT_SIZE,
    root=ROOT,
    boot_uuid=BOOT_UUID,
    root_uuid=ROOT_UUID,
    files={
        "etc/fstab": fstab(BOOT_UUID),
        "etc/crypttab": f"{MAPPING} UUID={LUKS_UUID} none luks,discard\n",
    },
    packages=("lvm2", "cryptsetup-initramfs"),
    programs=("lvm", "cryptsetup"),
)

#: Key derivation for a machine that is emulated. A key file has no line's end, the other one does.
_WEAK = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000"
_KEYS = f"printf '{PASSPHRASE}' >/run/key; printf '{PASSPHRASE}\\n' >/run/passphrase"


def luks_source(source: Source, runner: Runner) -> MovedRoot:
    """The system for ``source``; /boot, and room for the container in partition 5."""
    return moved_root(_DESIGN, source, runner)


def make_container(disk: str, root: str) -> str:
    """A script for the guest: the container on the disk, the group in it, the root in that, all closed again."""
    return f"""
{_KEYS}
cryptsetup luksFormat -q --type luks2 {_WEAK} --uuid {LUKS_UUID} --key-file /run/key {disk}{PART}
cryptsetup open --key-file /run/key {disk}{PART} made
{make_group("/dev/mapper/made", root, blank=False)}
cryptsetup close made
"""


def identities(part: str) -> str:
    """A script: everything by which the container and what lies in it are known."""
    return f"""
cryptsetup luksDump {part}
cryptsetup open --readonly --key-file /run/key {part} look
{IDENTITIES.format(part="/dev/mapper/look")}
cryptsetup close look
"""


def copy_root(part: str, to: str) -> str:
    """A script: the restored root, decrypted, onto a disk; gives its bytes."""
    return f"""
cryptsetup open --key-file /run/key {part} look
vgchange -q --devices /dev/mapper/look -ay {GROUP} >/dev/null
udevadm settle
dd if={ROOT} of={to} bs=1M conv=sparse,fsync status=none
blockdev --getsize64 {ROOT}
vgchange -q --devices /dev/mapper/look -an {GROUP} >/dev/null
udevadm settle
cryptsetup close look
sync
"""
