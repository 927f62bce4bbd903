"""Disks with stacks that are to become smaller, made, asked and checked by their own tools in a lab guest: scripts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.units import MIB

_SECTOR = 512
#: Bytes of the guest's disks, vda and so on: five sources, the repository, five targets. Two of each end within a page.
SIZES = (
    900 * MIB,
    260 * MIB + 3 * _SECTOR,
    660 * MIB,
    220 * MIB + 7 * _SECTOR,
    400 * MIB,
    1000 * MIB,
    420 * MIB,
    200 * MIB + 5 * _SECTOR,
    460 * MIB,
    150 * MIB + _SECTOR,
    160 * MIB,
)
STORE = "vdf"

PREPARE = f"""
mkfs.ext4 -q /dev/{STORE}
mkdir -p /run/store /run/m
mount /dev/{STORE} /run/store
printf first >/run/key
printf second >/run/key2
"""

#: A container with two key slots on $1, in sectors of $2 bytes, opened as $3.
FORMAT = """
format() {
  weak="--pbkdf pbkdf2 --pbkdf-force-iterations 1000"
  cryptsetup luksFormat -q --type luks2 $weak --sector-size $2 --label $3 --key-file /run/key $1
  cryptsetup luksAddKey -q $weak --key-file /run/key $1 /run/key2
  cryptsetup open --key-file /run/key $1 $3
}
"""

#: Files of every kind, the last of them a system that boot repair finds.
FILL = """
mount {node} /run/m
cp -r /usr/lib/python3.13/asyncio /run/m/
head -c 3M /dev/urandom >/run/m/random
ln /run/m/random /run/m/asyncio/again
ln -s random /run/m/link
truncate -s 5M /run/m/holes
printf end >>/run/m/holes
chmod 4750 /run/m/asyncio
chown 7:8 /run/m/asyncio
umount /run/m
"""
SYSTEM = """
mount {node} /run/m
mkdir -p /run/m/{{etc,usr/lib,boot,srv,dev,proc,sys,run}}
echo 'PRETTY_NAME="Stack Linux"' >/run/m/usr/lib/os-release
printf 'LABEL=system / ext4\\n/dev/lone/data /srv ext4\\n' >/run/m/etc/fstab
umount /run/m
"""

#: How large folders are is the filesystem's own business.
DIGESTS = """
mount -o ro{options} {node} /run/m
(cd /run/m; find . -type f -exec sha256sum {{}} + | sort -k 2; find . -printf '%p %y %m %U %G %n %s %T@ %l\\n' |
  sed -E '/ d /s/ [0-9]+ ([0-9.]+) *$/ \\1/' | sort)
umount /run/m
"""
CHECKS = {"ext4": "e2fsck -fn {node}\n", "xfs": "xfs_repair -n {node}\n"}
#: What mkfs.xfs was asked for, and no sizes.
XFS_FEATURES = (
    "xfs_info {node} | grep -oE "
    "'(isize|sectsz|crc|finobt|sparse|rmapbt|reflink|bigtime|inobtcount|nrext64|ascii-ci|ftype|bsize)=[0-9]+'\n"
)

GROUP = """
vgck {group}
vgs --noheadings -o vg_name,vg_uuid,vg_extent_size {group}
pvs --noheadings -o pv_uuid,pe_start -S vg_name={group}
lvs -a --noheadings -o lv_name,lv_uuid,segtype {group}
"""
CONTAINER = """
cryptsetup luksDump {node}
cryptsetup open --test-passphrase --key-file /run/key {node}
cryptsetup open --test-passphrase --key-file /run/key2 {node}
"""


@dataclass(frozen=True)
class Case:
    """One disk and what lies on it.

    Attributes:
        source, target: names in /dev.
        make: a script; ``$d`` is the disk. It leaves everything open.
        containers: by the name under which they are opened, what is behind the disk's own name ("" for all of it).
        groups: on the disk or in the containers.
        filesystems: kinds by node, ``{d}`` is the disk.
        swaps: nodes of swap.
    """

    name: str
    source: str
    target: str
    make: str
    containers: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    filesystems: Mapping[str, str] = field(default_factory=dict)
    swaps: tuple[str, ...] = ()

    def open(self, disk: str) -> str:
        """A script that opens all of it."""
        lines = [
            f"cryptsetup open --key-file /run/key /dev/{disk}{part} {name}" for name, part in self.containers.items()
        ]
        lines += ["udevadm settle", *(f"vgchange -q -ay {group} >/dev/null" for group in self.groups), "udevadm settle"]
        return "\n".join(lines)

    @property
    def close(self) -> str:
        """A script that closes all of it."""
        lines = ["udevadm settle", *(f"vgchange -q -an {group} >/dev/null" for group in self.groups)]
        lines += ["udevadm settle", *(f"cryptsetup close {name}" for name in self.containers)]
        return "\n".join(lines)

    def nodes(self, disk: str) -> dict[str, str]:
        """The kinds of the filesystems by their nodes."""
        return {node.format(d=f"/dev/{disk}"): kind for node, kind in self.filesystems.items()}

    def identities(self, disk: str) -> str:
        """A script that asks for everything by which the layers are known; no sizes, no device names."""
        script = "".join(CONTAINER.format(node=f"/dev/{disk}{part}") for part in self.containers.values())
        script += "".join(GROUP.format(group=group) for group in self.groups)
        for node, kind in (self.nodes(disk) | dict.fromkeys(self.swaps, "swap")).items():
            script += f"blkid -p -o export -s UUID -s LABEL -s TYPE {node} | grep -v DEVNAME\n"
            script += XFS_FEATURES.format(node=node) if kind == "xfs" else ""
        return script

    def digests(self, disk: str) -> str:
        """A script that names every file with its digest and all that is known of it."""
        return "".join(
            DIGESTS.format(node=node, options=",norecovery" if kind == "xfs" else "")
            for node, kind in self.nodes(disk).items()
        )

    def checks(self, disk: str) -> str:
        """A script in which the filesystems' own checkers answer with their exit codes."""
        return "".join(CHECKS[kind].format(node=node) for node, kind in self.nodes(disk).items())

    def sizes(self, disk: str) -> str:
        """A script that says the bytes of each filesystem's device, and of each container."""
        nodes = [*self.nodes(disk), *(f"/dev/mapper/{name}" for name in self.containers)]
        return "".join(f"blockdev --getsize64 {node}\n" for node in nodes)


XFS_ON_LVM = Case(
    name="xfs",
    source="vda",
    target="vdg",
    make="""
printf 'label: gpt\\nsize=32M, name=first\\nsize=860M, type=lvm\\n' | sfdisk -q $d
udevadm settle
mkfs.ext4 -q -L first ${d}1
pvcreate -q ${d}2
vgcreate -q vg-x ${d}2
lvcreate -q -n data -L 768M vg-x
lvcreate -q -n swap -L 16M vg-x
mkfs.xfs -q -L data /dev/vg-x/data
mkswap -q -L swappy /dev/vg-x/swap
""",
    groups=("vg-x",),
    filesystems={"{d}1": "ext4", "/dev/vg-x/data": "xfs"},
    swaps=("/dev/vg-x/swap",),
)
EXT_IN_LUKS = Case(
    name="luks-ext",
    source="vdb",
    target="vdh",
    make="""
format $d 512 whole
mkfs.ext4 -q -L whole /dev/mapper/whole
""",
    containers={"whole": ""},
    filesystems={"/dev/mapper/whole": "ext4"},
)
LVM_IN_LUKS = Case(
    name="luks-lvm",
    source="vdd",
    target="vdj",
    make="""
format $d 512 under
pvcreate -q /dev/mapper/under
vgcreate -q vg-under /dev/mapper/under
lvcreate -q -n root -L 160M vg-under
lvcreate -q -n swap -L 8M vg-under
mkfs.ext4 -q -L root /dev/vg-under/root
mkswap -q -L swap /dev/vg-under/swap
""",
    containers={"under": ""},
    groups=("vg-under",),
    filesystems={"/dev/vg-under/root": "ext4"},
    swaps=("/dev/vg-under/swap",),
)
ENCRYPTED_PARTITIONS = Case(
    name="luks-parts",
    source="vdc",
    target="vdi",
    make="""
printf 'label: gpt\\nsize=32M, name=first\\nsize=300M\\nsize=614403\\n' | sfdisk -q $d
udevadm settle
mkfs.ext4 -q -L first ${d}1
format ${d}2 4096 large
format ${d}3 512 odd
pvcreate -q /dev/mapper/large
vgcreate -q vg-large /dev/mapper/large
lvcreate -q -n root -L 200M vg-large
lvcreate -q -n swap -L 16M vg-large
mkfs.ext4 -q -L root /dev/vg-large/root
mkswap -q -L swap /dev/vg-large/swap
mkfs.xfs -q --unsupported -L odd /dev/mapper/odd
""",
    containers={"large": "2", "odd": "3"},
    groups=("vg-large",),
    filesystems={"{d}1": "ext4", "/dev/vg-large/root": "ext4", "/dev/mapper/odd": "xfs"},
    swaps=("/dev/vg-large/swap",),
)
LEFT_OUT = Case(
    name="left-out",
    source="vde",
    target="vdk",
    make=f"""
printf 'label: gpt\\nsize=64M, name=system\\nsize=200M, type=lvm\\nsize=64M, name=last, attrs="GUID:60"\\n' |
  sfdisk -q $d
udevadm settle
mkfs.ext4 -q -L system ${{d}}1
mkfs.ext4 -q -L last ${{d}}3
pvcreate -q ${{d}}2
vgcreate -q lone ${{d}}2
lvcreate -q -n data -L 160M lone
mkfs.ext4 -q -L data /dev/lone/data
{SYSTEM.format(node="${d}1")}
""",
    groups=("lone",),
    filesystems={"{d}1": "ext4", "{d}3": "ext4", "/dev/lone/data": "ext4"},
)
KEPT = Case(name="left-out", source="vde", target="vdk", make="", filesystems={"{d}1": "ext4", "{d}3": "ext4"})
LARGE_SECTORS = Case(
    name="luks-large",
    source="vdg",
    target="vdh",
    make="""
format $d 4096 large
mkfs.ext4 -q -L large /dev/mapper/large
""",
    containers={"large": ""},
    filesystems={"/dev/mapper/large": "ext4"},
)
