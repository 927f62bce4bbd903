"""The BIOS source system once more, as Debian's installer makes it with "encrypted LVM": all but /boot in LUKS.

A dos table with /boot, an extended partition, in it a logical one with the container, in that a volume group with root
and swap. Scripts for the guest that makes it, and what they are to find afterwards.
"""

from core.process import Runner
from core.units import MIB
from tests.boot.lvm_source import DEVICE_LIST, GROUP, IDENTITIES, ROOT, ROOT_SIZE, device_list, fstab, make_group
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
#: What a clone must not have; nobody ever took it for a key.
HOST_KEY = {
    "ssh_host_ed25519_key": "the private key of the source\n",
    "ssh_host_ed25519_key.pub": "ssh-ed25519 of-the-source root@rescue-me\n",
}
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
        # By what the kernel says of a mapping (dm/uuid in sysfs), which is what the initramfs opens it as.
        **device_list(f"IDTYPE=crypt_uuid IDNAME=CRYPT-LUKS2-{LUKS_UUID.replace('-', '')}-{MAPPING}"),
        **{f"etc/ssh/{name}": text for name, text in HOST_KEY.items()},
    },
    packages=("lvm2", "cryptsetup-initramfs", "openssh-client"),
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


#: Opens what is on the container ``{part}`` under the name ``look``; and closes it.
_OPEN = f"""
cryptsetup open --key-file /run/key {{part}} look
vgchange -q --devices /dev/mapper/look -ay {GROUP} >/dev/null
udevadm settle
"""
_CLOSE = f"""
vgchange -q --devices /dev/mapper/look -an {GROUP} >/dev/null
udevadm settle
cryptsetup close look
"""


def all_identities(disk: str, separator: str = "") -> str:
    """A script: every identity of the disk and of what lies on it, one a line, as the tools of each say it.

    Args:
        separator: between the disk's node and the number of a partition.
    """
    part = f"{disk}{separator}{PART}"
    return f"""
sfdisk --disk-id {disk} | sed s/0x//
blkid -p -o value -s UUID {disk}{separator}1
cryptsetup luksUUID {part}
{_OPEN.format(part=part)}
vgs --devices /dev/mapper/look --noheadings -o vg_uuid
pvs --devices /dev/mapper/look --noheadings -o pv_uuid
lvs --devices /dev/mapper/look --noheadings -o lv_uuid {GROUP}
for v in root swap_1; do blkid -p -o value -s UUID /dev/{GROUP}/$v; done
{_CLOSE}
"""


def old_left(disk: str, old: tuple[str, ...], separator: str) -> str:
    """A script: the files of a restored system that hold one of these words, those in its initramfs among them.

    And the boot area of its disk as ``area``. First a line for each file that the search has to have seen.
    """
    part = f"{disk}{separator}{PART}"
    words = "\n".join(old)
    return f"""
printf '{words}\n' >/run/old
{_OPEN.format(part=part)}
mkdir -p /run/clone
mount -o ro {ROOT} /run/clone
mount -o ro {disk}{separator}1 /run/clone/boot
mount -t tmpfs none /run/clone/tmp
for image in /run/clone/boot/initrd.img-*; do
  chroot /run/clone unmkinitramfs ${{image#/run/clone}} /tmp/$(basename $image)
done
cd /run/clone
find . -path './tmp/*' -name system.devices
find . -path './tmp/*' -path '*cryptroot/crypttab'
ls etc/fstab etc/crypttab {DEVICE_LIST} boot/grub/grub.cfg etc/ssh/ssh_host_ed25519_key.pub
echo left:
grep -rlaiF -f /run/old etc boot tmp || test $? = 1
if head -c 1M {disk} | grep -qaiF -f /run/old; then echo area; fi
cd /
umount /run/clone/tmp /run/clone/boot /run/clone
{_CLOSE}
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
{_OPEN.format(part=part)}
dd if={ROOT} of={to} bs=1M conv=sparse,fsync status=none
blockdev --getsize64 {ROOT}
{_CLOSE}
sync
"""
