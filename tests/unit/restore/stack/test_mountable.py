"""Names of the stack's devices as fstab has them, and the kernel's modules below them."""

import msgspec

from images.fstab import FstabLine
from images.model.filesystem import Filesystem
from images.model.layout import Disk, DiskIdentity, FilesystemKind, Layout
from images.model.stack import Array, ArrayMember, LogicalVolume, Luks, PhysicalVolume, VolumeGroup
from restore.boot.held import partition_for
from restore.stack.mountable import ListedVolume, disks_below, modules_below, physical_volumes, stack_devices

EXT4 = Filesystem(kind=FilesystemKind.EXT4, uuid="a782f918-b74c-44bb-b474-ce19dc45a3f2", label="rootfs")


def volume(name: str, *segments: str) -> LogicalVolume:
    return LogicalVolume(id=f"lv-{name}", name=name, uuid=name, size=1 << 20, segments=segments, filesystem=EXT4)


LAYOUT = Layout(
    disks=(
        Disk(id="disk0", identity=DiskIdentity(), size=1 << 30, sector_size=512),
        Disk(id="disk1", identity=DiskIdentity(), size=1 << 30, sector_size=512),
    ),
    containers=(
        Array(
            id="md0",
            uuid="0:0:0:1",
            name="host:0",
            level=1,
            metadata="1.2",
            slots=2,
            members=(ArrayMember(device="disk0", slot=0), ArrayMember(device="disk1", slot=1)),
            size=1 << 29,
        ),
        Luks(id="luks0", uuid="u", device="md0", version=2, payload_offset=1 << 24, size=1 << 28, name="crypt"),
        VolumeGroup(
            id="vg0",
            uuid="v",
            name="my-vg",
            extent_size=4 << 20,
            members=(PhysicalVolume(device="luks0", uuid="p", size=1 << 28),),
            volumes=(volume("root", "linear"), volume("thin-one", "thin")),
            backup="",
        ),
    ),
)
NODES = {"md0": "/dev/md/0", "luks0": "/dev/mapper/crypt", "lv-root": "/dev/my-vg/root", "lv-thin-one": "/dev/x"}


def test_every_layer_below_a_volume_is_in_the_initramfs() -> None:
    # Names of the modules: lsinitramfs of a Debian 13 on such a stack.
    assert modules_below(LAYOUT, "lv-root") == {"dm_mod", "dm_crypt", "md_mod", "raid1"}
    assert modules_below(LAYOUT, "lv-thin-one") == {"dm_mod", "dm_crypt", "dm_thin_pool", "md_mod", "raid1"}
    assert modules_below(LAYOUT, "md0") == {"md_mod", "raid1"}
    assert modules_below(LAYOUT, "disk0") == frozenset()


def test_fstab_finds_a_volume_by_all_its_names() -> None:
    devices = stack_devices(LAYOUT, NODES)
    assert set(devices) == {"/dev/my-vg/root", "/dev/x"}
    # lvm(8): hyphens in names are doubled in the name of the mapping.
    for spec in ("/dev/mapper/my--vg-root", "/dev/my-vg/root", "UUID=a782f918-b74c-44bb-b474-ce19dc45a3f2"):
        assert partition_for(FstabLine(spec, "/", "ext4"), devices) == "/dev/my-vg/root"
    assert partition_for(FstabLine("/dev/mapper/my--vg-thin--one", "/", "ext4"), devices) == "/dev/x"
    assert partition_for(FstabLine("/dev/mapper/my-vg-root", "/", "ext4"), devices) is None


def test_a_device_knows_the_disks_below_all_layers() -> None:
    assert stack_devices(LAYOUT, NODES)["/dev/x"].disks == ("disk0", "disk1")
    assert disks_below(LAYOUT, "md0") == ("disk0", "disk1")
    assert disks_below(LAYOUT, "disk1") == ("disk1",)


def test_physical_volumes_are_those_of_groups_that_are_active() -> None:
    # LVM's list of devices writes a UUID without its dashes (lvmdevices(8), PVID).
    group = msgspec.structs.replace(
        LAYOUT.containers[2], members=(PhysicalVolume(device="luks0", uuid="a-b-c", size=1 << 28),)
    )
    layout = msgspec.structs.replace(LAYOUT, containers=(*LAYOUT.containers[:2], group))
    assert physical_volumes(layout, NODES, NODES.__getitem__) == (ListedVolume("abc", "/dev/mapper/crypt"),)
    assert physical_volumes(layout, {"md0": "/dev/md/0"}, NODES.__getitem__) == ()
