"""Disks with a stack on them, made, asked and wiped by their own tools in a lab guest. Scripts, and what they print.

Two disks: a boot partition, RAID 1 → LUKS2 (two key slots) → LVM (swap, XFS, thin pool with a volume, ext4 root), and
a physical volume each for a striped volume. Three small disks: RAID 5 → ext4.
"""

PAIR = ("vda", "vdb")
TRIPLE = ("vdc", "vdd", "vde")
STORE = "vdf"
LARGER_PAIR = ("vdg", "vdh")
LARGER_TRIPLE = ("vdi", "vdj", "vdk")
#: MiB, in the order of the guest's disks.
SIZES = (700, 700, 80, 80, 80, 1024, 900, 900, 90, 90, 90)
FILESYSTEMS = ("vg-0/root", "vg-0/xfs", "vg-0/thin", "vg1/striped", "md/five")

#: The arrays are made as clean: blank disks are, whatever their parity.
MAKE = """
for d in vda vdb; do printf 'label: gpt\\nsize=40M\\nsize=520M\\nsize=60M\\n' | sfdisk -q /dev/$d; done
udevadm settle
mkfs.ext4 -q -L boot /dev/vda1
mkfs.ext4 -q -L spare /dev/vdb1
create="mdadm --create --run --homehost=any --metadata=1.2 --assume-clean"
$create /dev/md/root --name=root --level=1 --raid-devices=2 --bitmap=internal /dev/vda2 /dev/vdb2
$create /dev/md/five --name=five --level=5 --raid-devices=3 --chunk=64 --bitmap=none /dev/vdc /dev/vdd /dev/vde
printf first >/run/key; printf second >/run/key2; printf none >/run/wrong
weak="--pbkdf pbkdf2 --pbkdf-force-iterations 1000"
cryptsetup luksFormat -q --type luks2 $weak --label safe --key-file /run/key /dev/md/root
cryptsetup luksAddKey -q $weak --key-file /run/key /dev/md/root /run/key2
cryptsetup open --key-file /run/key /dev/md/root crypt
pvcreate -q /dev/mapper/crypt
pvcreate -q --pvmetadatacopies 2 /dev/vda3
pvcreate -q --pvmetadatacopies 0 /dev/vdb3
vgcreate -q vg-0 /dev/mapper/crypt
vgcreate -q vg1 /dev/vda3 /dev/vdb3
lvcreate -q -n swap -L 16M vg-0
lvcreate -q -n xfs -L 304M vg-0
lvcreate -q --type thin-pool -n pool -L 32M vg-0
lvcreate -q -V 60M --thin -n thin vg-0/pool
lvcreate -q -n root -L 48M vg-0
lvcreate -q -n striped --stripes 2 -L 80M vg1
mkswap -q -L swappy /dev/vg-0/swap
mkfs.xfs -q -L data /dev/vg-0/xfs
for v in vg-0/root vg-0/thin vg1/striped md/five; do mkfs.ext4 -q -L $(basename $v) /dev/$v; done
mkdir -p /run/m
for v in FILESYSTEMS; do
  mount /dev/$v /run/m
  cp -r /usr/lib/python3.13/asyncio /run/m/
  head -c 3M /dev/urandom >/run/m/random
  umount /run/m
done
mount /dev/vg-0/root /run/m
mkdir -p /run/m/{etc,usr/lib,boot,srv,dev,proc,sys,run}
echo 'PRETTY_NAME="Stack Linux"' >/run/m/usr/lib/os-release
printf '/dev/mapper/vg--0-root / ext4\\nLABEL=boot /boot ext4\\n/dev/vg-0/xfs /srv xfs\\n' >/run/m/etc/fstab
echo "crypt UUID=$(cryptsetup luksUUID /dev/md/root) none luks" >/run/m/etc/crypttab
mdadm --detail --scan >/run/m/etc/mdadm.conf
umount /run/m
mkfs.ext4 -q /dev/vdf
mkdir -p /run/store
mount /dev/vdf /run/store
""".replace("FILESYSTEMS", " ".join(FILESYSTEMS))

OPEN = """
mdadm --assemble --scan --config=partitions --quiet
udevadm settle
cryptsetup open --key-file /run/key /dev/md/root crypt
vgchange -q -ay vg-0 vg1 >/dev/null
udevadm settle
"""

CLOSE = """
vgchange -q -an vg-0 vg1 >/dev/null
cryptsetup close crypt
mdadm --stop --scan --quiet
udevadm settle
"""

#: Everything by which the layers are known; no sizes, no device names. A grown volume may have a segment more.
IDENTITIES = """
for a in root five; do
  mdadm --detail --export /dev/md/$a | grep -E '^MD_(LEVEL|DEVICES|METADATA|UUID|NAME)='
  mdadm --detail /dev/md/$a | grep -E 'Chunk Size|Layout|Consistency Policy'
done
cryptsetup luksDump /dev/md/root
vgs --noheadings -o vg_name,vg_uuid,vg_extent_size
pvs --noheadings -o pv_uuid,pe_start,pv_mda_count | sort
lvs -a --noheadings -o lv_name,lv_uuid,segtype,stripes,stripe_size,chunk_size,pool_lv,thin_id,transaction_id | sort -u
for v in vg-0/swap FILESYSTEMS; do blkid -p -o export -s UUID -s LABEL -s TYPE /dev/$v | grep -v DEVNAME; done
""".replace("FILESYSTEMS", " ".join(FILESYSTEMS))

DIGESTS = """
for v in FILESYSTEMS; do
  mount -o ro /dev/$v /run/m
  (cd /run/m; find . -type f -exec sha256sum {} + | sort -k 2 | sed "s|  \\.|  $v|")
  umount /run/m
done
""".replace("FILESYSTEMS", " ".join(FILESYSTEMS))

#: Whether the files that name the layers by their UUIDs name those that there are.
REFERENCES = """
mount -o ro /dev/vg-0/root /run/m
grep "UUID=$(cryptsetup luksUUID /dev/md/root) " /run/m/etc/crypttab
for a in root five; do
  grep "UUID=$(mdadm --detail --export /dev/md/$a | sed -n 's/^MD_UUID=//p')" /run/m/etc/mdadm.conf
done
umount /run/m
"""

#: What the filesystems' own checkers say; they answer with an exit code.
CHECK = """
for v in vg-0/root vg-0/thin vg1/striped md/five; do e2fsck -fn /dev/$v; done
xfs_repair -n /dev/vg-0/xfs
"""

SPACE = (
    "for v in FILESYSTEMS; do mount -o ro /dev/$v /run/m; df -B1 --output=size /run/m | tail -1; umount /run/m; done"
)
SPACE = SPACE.replace("FILESYSTEMS", " ".join(FILESYSTEMS))


#: What is left of it on one disk of each array: the group across both disks of the pair has no redundancy.
WITHOUT = {"disk0": "vdg", "disk2": "vdi", "disk3": "vdj"}
LEFT_OUT = "--skip disk1 --skip disk4 --rule disk0:3=drop"
OPEN_LEFT, CLOSE_LEFT = OPEN.replace(" vg1", ""), CLOSE.replace(" vg1", "")
DIGESTS_LEFT, CHECK_LEFT = DIGESTS.replace(" vg1/striped", ""), CHECK.replace(" vg1/striped", "")
STATES = "mdadm --detail {arrays} | sed -n 's/^ *State : //p'"
#: As the plan says it; then what was restored is taken away, and only what md has put onto the new disks is there.
ADD = """
mdadm --manage /dev/md/root --add /dev/vdh
mdadm --manage /dev/md/five --add /dev/vdk
mdadm --readwrite /dev/md/five || true
mdadm --wait /dev/md/root /dev/md/five || true
""" + STATES.format(arrays="/dev/md/root /dev/md/five")
TAKE_AWAY = "mdadm --manage /dev/md/root --fail /dev/vdg2; mdadm --manage /dev/md/five --fail /dev/vdi"

#: Two arrays across four disks, of 6 and of 10.
FOUR = ("vdc", "vdd", "vde", "vdi")
MAKE_FOUR = """
for d in DISKS; do printf 'label: gpt\\nsize=34M\\nsize=34M\\n' | sfdisk -q /dev/$d; done
udevadm settle
create="mdadm --create --run --homehost=any --assume-clean --bitmap=none --raid-devices=4"
$create /dev/md/six --name=six --level=6 --chunk=64 $(printf '/dev/%s1 ' DISKS)
$create /dev/md/ten --name=ten --level=10 --layout=n2 --chunk=64 $(printf '/dev/%s2 ' DISKS)
for a in six ten; do
  mkfs.ext4 -q /dev/md/$a
  mount /dev/md/$a /run/m
  cp -r /usr/lib/python3.13/asyncio /run/m/
  head -c 12M /dev/urandom >/run/m/random
  umount /run/m
done
""".replace("DISKS", " ".join(FOUR))
DIGESTS_FOUR = DIGESTS.replace(" ".join(FILESYSTEMS), "md/six md/ten")
CHECK_FOUR = "e2fsck -fn /dev/md/six; e2fsck -fn /dev/md/ten"
#: KiB in a second that md reckons in the background: nearly nothing, so that it is not done before it is stopped.
SLOWLY = "echo 1 >/proc/sys/dev/raid/speed_limit_min; echo 4 >/proc/sys/dev/raid/speed_limit_max"
QUICKLY = "echo 1000 >/proc/sys/dev/raid/speed_limit_min; echo 200000 >/proc/sys/dev/raid/speed_limit_max"


def wipe(disks: tuple[str, ...]) -> str:
    """Blank disks again."""
    return "".join(f"blkdiscard -f -q /dev/{disk}\nblockdev --rereadpt /dev/{disk}\n" for disk in disks)


def restore(disks: tuple[str, ...], *options: str) -> str:
    """The command that restores everything to these disks, in the order of the captured ones."""
    return f"liferaft restore stack --repo /run/store/r --yes --progress text {_targets(disks)} {' '.join(options)}\n"


def plan_and_restore(disks: tuple[str, ...], planning: str, restoring: str) -> str:
    """The same in two steps; prints the estimate of the plan and the report, each as one line of JSON."""
    return f"""
liferaft plan stack --repo /run/store/r {_targets(disks)} {planning} -o /run/plan.json 2>/run/said
digest=$(sed -n 's/.*--confirm //p' /run/said)
liferaft restore --plan /run/plan.json --confirm $digest --progress none {restoring} --json >/run/report.json
python3 -c 'import json; print(json.dumps(json.load(open("/run/plan.json"))["estimate"]))'
python3 -c 'import json; print(json.dumps(json.load(open("/run/report.json"))))'
"""


def _targets(disks: tuple[str, ...]) -> str:
    return " ".join(f"--target disk{number}=/dev/{disk}" for number, disk in enumerate(disks))
