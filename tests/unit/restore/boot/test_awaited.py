"""What a system waits for at its start, by the options that systemd documents, and what of that was not restored."""

from uuid import UUID

import msgspec
import pytest

from core.units import MIB
from images.fstab import Tag
from images.model.filesystem import Filesystem
from images.model.layout import (
    Disk,
    DiskIdentity,
    FilesystemKind,
    Layout,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from images.model.stack import Array, ArrayMember, LogicalVolume, Luks, PhysicalVolume, VolumeGroup
from restore.boot.awaited import Known, known, unmet

LUKS_UUID = "6d1a7f5e-2f0b-4c8a-9a0e-3b7f1c2d4e5f"
EXT4 = FilesystemKind.EXT4
MEMBER = Filesystem(kind=FilesystemKind.UNKNOWN, detail="LVM2_member")
#: What the tests below know: a root that is restored, and a filesystem that is left out.
HAS = Known(here=frozenset({(Tag.UUID, "aa")}), left=frozenset({(Tag.UUID, "bb-cc")}))


def _disk(number: int, *held: Filesystem | None, kind: TableKind = TableKind.GPT) -> Disk:
    parts = tuple(
        Partition(
            id=f"disk{number}-part{one}",
            number=one,
            start_lba=2048 * one,
            sector_count=2048,
            type="",
            role=PartitionRole.PRIMARY,
            uuid=UUID(int=10 * number + one) if kind is TableKind.GPT else None,
            name=f"name{number}{one}" if kind is TableKind.GPT else "",
            filesystem=filesystem,
        )
        for one, filesystem in enumerate(held, 1)
    )
    table = PartitionTable(kind=kind, identifier=f"0x000000A{number}", partitions=parts)
    return Disk(id=f"disk{number}", identity=DiskIdentity(), size=64 * MIB, sector_size=512, table=table)


def _held(uuid: str, label: str = "") -> Filesystem:
    return Filesystem(kind=EXT4, uuid=uuid, label=label)


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ("defaults", 1),
        ("ro,noatime", 1),
        ("defaults,nofail", 0),
        ("noauto,ro", 0),
        # The start waits for the automount point, and not for what is behind it.
        ("x-systemd.automount", 0),
    ],
)
def test_options_say_who_waits(options: str, lines: int) -> None:
    for fstab in (f"UUID=BB-CC /data ext4 {options} 0 2\n", f"UUID=bb-cc none swap {options} 0 0\n"):
        assert len(unmet(fstab, "", HAS)) == lines
    assert len(unmet("", f"data UUID=bb-cc none {options}\n", HAS)) == lines


def test_a_filesystem_stops_the_start_and_swap_holds_it_up() -> None:
    fstab = (
        "# /etc/fstab\nUUID=aa / ext4 defaults 0 1\nUUID=bb-cc /data ext4 defaults 0 2\n"
        "UUID=bb-cc none swap sw 0 0\nUUID=bb-cc /net ext4 _netdev 0 0\n"
    )
    found = unmet(fstab, "one UUID=aa none\ntwo UUID=bb-cc none luks\n", HAS)
    assert [(one.file, one.number, one.does, one.stops) for one in found] == [
        ("/etc/fstab", 3, "mounts /data", True),
        ("/etc/fstab", 5, "mounts /net", False),
        ("/etc/fstab", 4, "uses swap", False),
        ("/etc/crypttab", 2, "opens two", False),
    ]
    assert "line 3 of /etc/fstab of the restored system mounts /data (UUID=bb-cc), which is not restored" in str(
        found[0].text()
    )
    assert "emergency mode" in found[0].text() and "restore that part, too, or add nofail" in found[0].text()
    assert all("goes on without it" in one.text() and "emergency" not in one.text() for one in found[1:])


@pytest.mark.parametrize(
    ("spec", "awaited"),
    [
        ("UUID=aa", False),
        ("/dev/disk/by-uuid/bb-cc", True),
        # Nobody has captured it: a disk that stayed, or a stick.
        ("UUID=dd", True),
        ("LABEL=backup", True),
        ("/dev/mapper/mpatha-part1", True),
        ("/dev/vg0/old", True),
        ("/dev/disk/by-id/ata-DISK_1234-part2", True),
        # Given out anew at each start.
        ("/dev/sdb1", False),
        ("/dev/md127", False),
        # No device of a disk at all.
        ("server:/share", False),
        ("tmpfs", False),
        ("/swapfile", False),
    ],
)
def test_what_has_a_name_that_lasts_can_be_missed(spec: str, awaited: bool) -> None:
    found = unmet(f"{spec} /data auto defaults 0 2\n", "", HAS)
    assert [one.spec for one in found] == [spec] * awaited
    assert all(one.left is ("bb-cc" in spec) and one.by_disk is ("by-id" in spec) for one in found)


def test_what_may_lie_in_a_container_that_nobody_opened_is_not_missed() -> None:
    closed = msgspec.structs.replace(HAS, closed=True)
    assert unmet("UUID=dd /data ext4 defaults\n/dev/vg/home /home ext4\n", "", closed) == ()
    # But what is known to have been left out cannot lie there.
    assert len(unmet("UUID=bb-cc /data ext4 defaults\n", "", closed)) == 1


def test_what_the_system_opens_itself_is_there_when_its_container_is() -> None:
    fstab = "/dev/mapper/home_crypt /home ext4 defaults 0 2\n/dev/mapper/data_crypt /data ext4 defaults 0 2\n"
    # A container that was captured without its key has no name in the recovery point.
    (one, two) = unmet(fstab, "home_crypt UUID=aa none luks\ndata_crypt UUID=bb-cc none luks\n", HAS)
    assert (one.place, one.left) == ("/data", True)
    assert (two.does, two.left) == ("opens data_crypt", True)
    # nofail in the one file is nofail in that alone.
    (one,) = unmet(fstab, "home_crypt UUID=aa none luks\ndata_crypt UUID=bb-cc none luks,nofail\n", HAS)
    assert one.place == "/data"
    # Swap with a random key on a path.
    assert unmet("/dev/mapper/swap1 none swap sw\n", "swap1 /dev/sda3 /dev/urandom swap\n", HAS) == ()


def test_every_name_of_what_is_restored_answers_and_of_what_is_not_does_not() -> None:
    luks = Luks(id="luks0", uuid=LUKS_UUID, device="disk0-part2", version=2, payload_offset=0, size=MIB, name="safe")
    group = VolumeGroup(
        id="lvm0",
        uuid="u",
        name="vg-a",
        extent_size=4 * MIB,
        members=(PhysicalVolume(device="luks0", uuid="p", size=MIB, data_offset=MIB),),
        # Nobody knows what is on it: a swap with a random key, say.
        volumes=(LogicalVolume(id="lv0", name="lv", uuid="l", size=MIB, segments=("linear",)),),
        backup="",
    )
    array = Array(
        id="md0",
        uuid="a",
        name="host:7",
        level=1,
        metadata="1.2",
        slots=2,
        members=(ArrayMember(device="disk1-part1", slot=0),),
        size=MIB,
        filesystem=_held("md-uuid"),
    )
    first = _disk(0, _held("AA", "root"), Filesystem(kind=FilesystemKind.UNKNOWN, detail="crypto_LUKS"))
    second = _disk(1, MEMBER, _held("bb", "data"), kind=TableKind.DOS)
    bare = Disk(
        id="disk2", identity=DiskIdentity(), size=MIB, sector_size=512, filesystem=_held("whole", "archive"), table=None
    )
    whole = Layout(disks=(first, second, bare), containers=(luks, group, array))
    of_first = [
        "UUID=aa",
        "LABEL=root",
        f"PARTUUID={UUID(int=1)}",
        "PARTLABEL=name02",
        f"UUID={LUKS_UUID.upper()}",
        "/dev/mapper/safe",
        "/dev/vg-a/lv",
        "/dev/mapper/vg--a-lv",
    ]
    of_others = ["UUID=BB", "LABEL=data", "PARTUUID=000000a1-02", "UUID=md-uuid", "/dev/md/7", "/dev/md7"]
    of_others += ["UUID=whole", "LABEL=archive"]
    fstab = "".join(f"{spec} /{number} auto defaults\n" for number, spec in enumerate([*of_first, *of_others]))
    assert unmet(fstab, "", known(whole, whole.disks, whole.containers)) == ()
    has = known(whole, (first,), (luks, group))
    assert not has.closed
    found = unmet(fstab, "", has)
    assert sorted(one.spec for one in found) == sorted(of_others)
    assert all(one.left for one in found)
    # Of the same disk without its container, nobody knows what is in there.
    assert known(whole, (first,), ()).closed
