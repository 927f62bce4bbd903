"""The BIOS source system once more, with its root and swap on logical volumes, as Debian's installer lays them out.

And what a test asks of the restored one.
"""

from dataclasses import replace
from pathlib import Path

from core.process import Runner
from core.units import MIB
from tests.boot.compare import Difference
from tests.boot.disk import read_table
from tests.boot.moved_root import AREA, Design, MovedRoot, compare_roots, moved_root
from tests.boot.system import Source

DEVICE_LIST = "etc/lvm/devices/system.devices"
GROUP, ROOT = "rescue-vg", "/dev/mapper/rescue--vg-root"
SIZE, BOOT, ROOT_SIZE = 1536 * MIB, 96 * MIB, 1200 * MIB
#: A disk that is 35 % smaller: the root has to be, too.
SMALLER = 998 * MIB
#: So that nothing has to be asked of the guest before the fstab is written.
BOOT_UUID = "6d1a7f5e-2f0b-4c8a-9a0e-3b7f1c2d4e5f"
ROOT_UUID = "0c9b8a7d-6e5f-4d3c-8b2a-1f0e9d8c7b6a"
SWAP_UUID = "5e4d3c2b-1a0f-4e9d-8c7b-6a5f4e3d2c1b"
PV_UUID = "liFera-fTpv-0000-1111-2222-3333-444444"


def fstab(boot_uuid: str) -> str:
    """What the system mounts: root and swap by their mappings."""
    return f"""{ROOT} / ext4 errors=remount-ro 0 1
UUID={boot_uuid} /boot ext4 defaults 0 2
/dev/mapper/rescue--vg-swap_1 none swap sw 0 0
"""


def device_list(entry: str) -> dict[str, str]:
    """The files of a system in which LVM looks at the devices of its list alone, as RHEL and Fedora have it.

    Args:
        entry: by what it knows the physical volume (lvmdevices(8)).
    """
    pvid = PV_UUID.replace("-", "")
    return {
        "etc/lvm/lvmlocal.conf": "devices {\n\tuse_devicesfile = 1\n}\n",
        DEVICE_LIST: f"# LVM uses devices listed in this file.\nVERSION=1.1.1\n{entry} PVID={pvid}\n",
    }


_DESIGN = Design(
    name="lvm",
    table=f"label: dos\nstart={AREA // MIB}MiB, size={BOOT // MIB}MiB, type=83, bootable\ntype=8e\n",
    size=SIZE,
    root_size=ROOT_SIZE,
    root=ROOT,
    boot_uuid=BOOT_UUID,
    root_uuid=ROOT_UUID,
    # Of a disk that nobody has any more.
    files={"etc/fstab": fstab(BOOT_UUID)} | device_list("IDTYPE=sys_serial IDNAME=GONE DEVNAME=/dev/vda2 PART=2"),
    packages=("lvm2",),
    programs=("lvm",),
)


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


def make_group(volume: str, root: str, *, blank: bool = True) -> str:
    """A script for the guest: the volume group on a physical volume, the root filesystem in it, all closed again.

    Args:
        blank: the volume reads as zeros, so that those of the root need not be written. An opened container does not.
    """
    return f"""
pvcreate -q --uuid {PV_UUID} --norestorefile {volume}
vgcreate -q {GROUP} {volume}
lvcreate -q -n root -L {ROOT_SIZE // MIB}M {GROUP}
lvcreate -q -n swap_1 -L 64M {GROUP}
dd if={root} of={ROOT} bs=1M conv={"sparse," if blank else ""}fsync status=none
mkswap -q -U {SWAP_UUID} /dev/{GROUP}/swap_1
vgchange -q -an {GROUP}
udevadm settle
"""


def lvm_source(source: Source, runner: Runner) -> MovedRoot:
    """The system for ``source``; /boot, and room for the group in partition 2."""
    return moved_root(_DESIGN, source, runner)


def compare_lvm_roots(source: MovedRoot, restored: Path, offset: int, runner: Runner) -> tuple[Difference, ...]:
    """What differs between the root filesystem and that on the restored disk: :func:`compare_roots`.

    Args:
        offset: of the root's first byte in the physical volume, as LVM said it.
    """
    pv = read_table(restored, runner).partitions[1]
    place = replace(pv, start=pv.start + offset, size=pv.size - offset)
    return compare_roots(source, restored, place, runner)
