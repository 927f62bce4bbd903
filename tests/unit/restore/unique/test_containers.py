"""New identities for arrays, LUKS containers and volume groups. The group is one that LVM wrote, with all it hides."""

import re
from pathlib import Path

import msgspec
import pytest

from core.units import MIB
from images.model.filesystem import Filesystem
from images.model.layout import Disk, DiskIdentity, FilesystemKind, Layout
from images.model.stack import Array, ArrayMember, LogicalVolume, Luks, PhysicalVolume, VolumeGroup
from images.stack.lvm_text import Group, parse_group
from restore.unique.containers import renewed_containers
from restore.unique.references import rewrite
from restore.unique.renewal import Sort

TEXT = (Path(__file__).parents[2] / "images" / "stack" / "data" / "vgcfgbackup.txt").read_text()
OLD = parse_group(TEXT)
LUKS_UUID = "11111111-2222-4333-8444-555555555555"
EXT4 = Filesystem(kind=FilesystemKind.EXT4, uuid="7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2a001")
#: lib/uuid/uuid.c, id_write_format; mdadm(8), "--uuid".
LVM_FORM = r"[0-9A-Za-z]{6}(-[0-9A-Za-z]{4}){5}-[0-9A-Za-z]{6}"
MD_FORM = r"[0-9a-f]{8}(:[0-9a-f]{8}){3}"


def layout() -> Layout:
    disks = tuple(
        Disk(id=f"disk{number}", identity=DiskIdentity(), size=400 * MIB, sector_size=512) for number in range(2)
    )
    array = Array(
        id="md0",
        uuid="01234567:89abcdef:01234567:89abcdef",
        name="",
        level=1,
        metadata="1.2",
        slots=1,
        members=(ArrayMember(device="disk0", slot=0),),
        size=200 * MIB,
    )
    luks = Luks(
        id="luks0",
        uuid=LUKS_UUID,
        device="disk1",
        version=2,
        payload_offset=16 * MIB,
        size=200 * MIB,
        name=f"luks-{LUKS_UUID}",
    )
    group = VolumeGroup(
        id="vg0",
        uuid=OLD.uuid,
        name=OLD.name,
        extent_size=OLD.extent_size,
        members=tuple(
            PhysicalVolume(device=device, uuid=one.uuid, size=one.size)
            for device, one in zip(("md0", "luks0"), OLD.physical, strict=True)
        ),
        volumes=tuple(
            LogicalVolume(
                id=f"vg0-{one.name}",
                name=one.name,
                uuid=one.uuid,
                size=one.size,
                segments=one.segments,
                filesystem=EXT4 if one.name == "striped" else None,
            )
            for one in OLD.logical
            if one.visible
        ),
        backup=TEXT,
    )
    return Layout(disks=disks, containers=(array, luks, group))


def identifiers(group: Group) -> list[str]:
    return [group.uuid, *(one.uuid for one in group.physical), *(one.uuid for one in group.logical)]


def test_every_container_gets_another_identity_and_nothing_else() -> None:
    source = layout()
    (array, luks, group), renewals = renewed_containers(source)
    assert isinstance(array, Array) and isinstance(luks, Luks) and isinstance(group, VolumeGroup)
    new = {renewal.old: renewal.new for renewal in renewals}
    assert re.fullmatch(MD_FORM, array.uuid)
    assert luks.name == f"luks-{luks.uuid}" != f"luks-{LUKS_UUID}"
    assert msgspec.structs.replace(array, uuid=source.containers[0].uuid) == source.containers[0]
    assert msgspec.structs.replace(luks, uuid=LUKS_UUID, name=f"luks-{LUKS_UUID}") == source.containers[1]
    parsed = parse_group(group.backup)
    # A group, two physical volumes and six logical ones, of which three are hidden.
    assert len(identifiers(parsed)) == 9
    assert all(re.fullmatch(LVM_FORM, found) for found in identifiers(parsed))
    assert identifiers(parsed) == [new[found] for found in identifiers(OLD)]
    assert not set(identifiers(parsed)) & set(identifiers(OLD))
    assert [one.uuid for one in group.members] == [one.uuid for one in parsed.physical]
    assert {one.name: one.uuid for one in group.volumes} == {
        one.name: one.uuid for one in parsed.logical if one.visible
    }
    # Only they differ: put the old ones back, and the text is what it was.
    text = group.backup
    for was, now in new.items():
        text = text.replace(now, was)
    assert text == TEXT


def test_what_lies_on_a_volume_is_renewed_as_on_a_partition() -> None:
    containers, renewals = renewed_containers(layout())
    (found,) = [renewal for renewal in renewals if renewal.sort is Sort.FILESYSTEM]
    assert (found.disk, found.number, found.kind, found.old) == ("vg0-striped", 0, FilesystemKind.EXT4, EXT4.uuid)
    held = [device.filesystem for device in Layout(disks=layout().disks, containers=containers).devices()]
    assert [one.uuid for one in held if one] == [found.new]
    assert all(len(renewal.old) == len(renewal.new) for renewal in renewals)


@pytest.mark.parametrize("name", ["luks-{}", "crypt-{}", "cryptroot_{}-a", "vault{}", "{}", "data{}", "sda3_crypt"])
def test_a_mapping_is_opened_under_the_name_that_crypttab_gets(name: str) -> None:
    source = layout()
    old = name.format(LUKS_UUID)
    named = msgspec.structs.replace(source.containers[1], name=old)
    containers, renewals = renewed_containers(
        msgspec.structs.replace(source, containers=(source.containers[0], named, source.containers[2]))
    )
    luks = containers[1]
    assert isinstance(luks, Luks)
    line = f"{old} UUID={LUKS_UUID} none luks\n/dev/mapper/{old} / ext4\n"
    new = f"{luks.name} UUID={luks.uuid} none luks\n/dev/mapper/{luks.name} / ext4\n"
    assert rewrite(line.encode(), renewals).decode() == new


def test_two_clones_have_nothing_in_common() -> None:
    one, other = ({renewal.new for renewal in renewed_containers(layout())[1]} for _ in range(2))
    assert not one & other
