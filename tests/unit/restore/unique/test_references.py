"""References to identities: what is rewritten, and that no other byte changes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.model.layout import FilesystemKind
from restore.unique.references import places_still_old, rewrite, rewrite_places, still_old
from restore.unique.renewal import Renewal, Sort

ROOT_OLD, ROOT_NEW = "7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2a001", "0d5d3cb2-9a1c-4b4e-9d54-000000000002"
ESP_OLD, ESP_NEW = "ABCD-1234", "5678-EF90"
PART_OLD, PART_NEW = "1a2b3c4d-01", "99887766-01"


def renewal(old: str, new: str, sort: Sort = Sort.FILESYSTEM) -> Renewal:
    return Renewal(sort=sort, disk="disk0", number=1, old=old, new=new, kind=FilesystemKind.EXT4)


def _escaped(identity: str) -> str:
    return identity.replace("-", "\\x2d")


ALL = (renewal(ROOT_OLD, ROOT_NEW), renewal(ESP_OLD, ESP_NEW), renewal(PART_OLD, PART_NEW, Sort.PARTITION))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"UUID={ROOT_OLD} / ext4 errors=remount-ro 0 1\n", f"UUID={ROOT_NEW} / ext4 errors=remount-ro 0 1\n"),
        (f'UUID="{ROOT_OLD.upper()}" / ext4', f'UUID="{ROOT_NEW.upper()}" / ext4'),
        (f"/dev/disk/by-uuid/{ESP_OLD} /boot/efi vfat", f"/dev/disk/by-uuid/{ESP_NEW} /boot/efi vfat"),
        (f"search --fs-uuid --set=root {ESP_OLD.lower()}", f"search --fs-uuid --set=root {ESP_NEW.lower()}"),
        (f"root=PARTUUID={PART_OLD} ro", f"root=PARTUUID={PART_NEW} ro"),
        # systemd-escape(1) --path --suffix=device /dev/disk/by-uuid/…
        (
            f"After=dev-disk-by\\x2duuid-{_escaped(ROOT_OLD)}.device\n",
            f"After=dev-disk-by\\x2duuid-{_escaped(ROOT_NEW)}.device\n",
        ),
        (
            f"BindsTo=dev-disk-by\\x2duuid-{_escaped(ESP_OLD)}.device",
            f"BindsTo=dev-disk-by\\x2duuid-{_escaped(ESP_NEW)}.device",
        ),
        (f"x-{_escaped(ESP_OLD)}\\x2d00 a{_escaped(ESP_OLD)}", f"x-{_escaped(ESP_OLD)}\\x2d00 a{_escaped(ESP_OLD)}"),
        # GRUB names the entries of its menu so (grub-mkconfig's 10_linux), and the chosen one in grubenv.
        (f"$menuentry_id_option 'gnulinux-simple-{ROOT_OLD}'", f"$menuentry_id_option 'gnulinux-simple-{ROOT_NEW}'"),
        (
            f"saved_entry=gnulinux-advanced-{ROOT_OLD}>gnulinux-6.12.9-advanced-{ROOT_OLD}\n",
            f"saved_entry=gnulinux-advanced-{ROOT_NEW}>gnulinux-6.12.9-advanced-{ROOT_NEW}\n",
        ),
        # Something longer that contains it is something else.
        (f"{ROOT_OLD}0 x{ESP_OLD} {ESP_OLD}-00 {PART_OLD}1", f"{ROOT_OLD}0 x{ESP_OLD} {ESP_OLD}-00 {PART_OLD}1"),
    ],
)
def test_an_identity_is_replaced_as_a_whole(before: str, after: str) -> None:
    assert rewrite(before.encode(), ALL).decode() == after


LUKS_OLD, LUKS_NEW = "11111111-2222-4333-8444-555555555555", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
MD_OLD, MD_NEW = "01234567:89abcdef:01234567:89abcdef", "fedcba98:76543210:fedcba98:76543210"
VG_OLD, VG_NEW = "9c3s4E-9Wum-NpKS-HfAb-Jmtf-CXZH-A9LOnf", "AAAAAA-BBBB-CCCC-DDDD-EEEE-FFFF-GGGGgg"
LV_OLD, LV_NEW = "YZP0pB-uqEL-Iu9l-3CHA-DJlq-ykzB-O4wIf6", "HHHHHH-IIII-JJJJ-KKKK-LLLL-MMMM-NNNNnn"
STACK = (
    renewal(LUKS_OLD, LUKS_NEW, Sort.LUKS),
    renewal(MD_OLD, MD_NEW, Sort.ARRAY),
    renewal(VG_OLD, VG_NEW, Sort.LVM),
    renewal(LV_OLD, LV_NEW, Sort.LVM),
)


def _dashless(identity: str) -> str:
    return identity.replace("-", "")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # crypttab(5); Fedora's installer names the mapping so, and dracut.cmdline(7) the parameter.
        (f"luks-{LUKS_OLD} UUID={LUKS_OLD} none discard", f"luks-{LUKS_NEW} UUID={LUKS_NEW} none discard"),
        (f"rd.luks.uuid=luks-{LUKS_OLD} ro", f"rd.luks.uuid=luks-{LUKS_NEW} ro"),
        (
            f"After=systemd-cryptsetup@luks\\x2d{_escaped(LUKS_OLD)}.service",
            f"After=systemd-cryptsetup@luks\\x2d{_escaped(LUKS_NEW)}.service",
        ),
        # A mapping may have any name with it: it is opened under the new one (containers.py).
        (f"crypt-{LUKS_OLD} UUID={LUKS_OLD} none", f"crypt-{LUKS_NEW} UUID={LUKS_NEW} none"),
        (f"/dev/mapper/cryptroot_{LUKS_OLD}-a / ext4", f"/dev/mapper/cryptroot_{LUKS_NEW}-a / ext4"),
        (f"rd.luks.name={LUKS_OLD}=crypt-{LUKS_OLD}", f"rd.luks.name={LUKS_NEW}=crypt-{LUKS_NEW}"),
        (
            f"After=systemd-cryptsetup@crypt\\x2d{_escaped(LUKS_OLD)}.service",
            f"After=systemd-cryptsetup@crypt\\x2d{_escaped(LUKS_NEW)}.service",
        ),
        # udev: 63-md-raid-arrays.rules, and the same for a partition of an array; 69-lvm.rules.
        (f"/dev/disk/by-id/md-uuid-{MD_OLD} / ext4", f"/dev/disk/by-id/md-uuid-{MD_NEW} / ext4"),
        (f"/dev/disk/by-id/md-uuid-{MD_OLD}-part1 / ext4", f"/dev/disk/by-id/md-uuid-{MD_NEW}-part1 / ext4"),
        (
            f"After=dev-disk-by\\x2did-md\\x2duuid\\x2d{MD_OLD}.device",
            f"After=dev-disk-by\\x2did-md\\x2duuid\\x2d{MD_NEW}.device",
        ),
        (f"/dev/disk/by-id/lvm-pv-uuid-{VG_OLD}", f"/dev/disk/by-id/lvm-pv-uuid-{VG_NEW}"),
        # GRUB, "Device syntax" and cryptomount.
        (f"cryptomount -u {_dashless(LUKS_OLD)}", f"cryptomount -u {_dashless(LUKS_NEW)}"),
        ("set root='mduuid/0123456789abcdef0123456789abcdef'", "set root='mduuid/fedcba9876543210fedcba9876543210'"),
        (f"set root='lvmid/{VG_OLD}/{LV_OLD}'", f"set root='lvmid/{VG_NEW}/{LV_NEW}'"),
        # LVM's list of devices (lvmdevices(8)): the kernel writes an array's UUID in a third way (md/uuid in sysfs).
        (
            "IDTYPE=md_uuid IDNAME=01234567-89ab-cdef-0123-456789abcdef PVID=x",
            "IDTYPE=md_uuid IDNAME=fedcba98-7654-3210-fedc-ba9876543210 PVID=x",
        ),
        (
            f"IDTYPE=crypt_uuid IDNAME=CRYPT-LUKS2-{_dashless(LUKS_OLD)}-sda5_crypt PVID={_dashless(VG_OLD)}",
            f"IDTYPE=crypt_uuid IDNAME=CRYPT-LUKS2-{_dashless(LUKS_NEW)}-sda5_crypt PVID={_dashless(VG_NEW)}",
        ),
        # mdadm.conf(5).
        (
            f"ARRAY /dev/md/0 metadata=1.2 UUID={MD_OLD} name=a:0",
            f"ARRAY /dev/md/0 metadata=1.2 UUID={MD_NEW} name=a:0",
        ),
        # Ubuntu's installer names the root in fstab so; udev: 13-dm-disk.rules.
        (
            f"/dev/disk/by-id/dm-uuid-LVM-{_dashless(VG_OLD)}{_dashless(LV_OLD)} / ext4",
            f"/dev/disk/by-id/dm-uuid-LVM-{_dashless(VG_NEW)}{_dashless(LV_NEW)} / ext4",
        ),
    ],
)
def test_identities_of_the_stack_in_all_their_spellings(before: str, after: str) -> None:
    assert rewrite(before.encode(), STACK).decode() == after
    assert bool(still_old(before.encode(), STACK)) == (before != after)
    assert before == after or not still_old(after.encode(), STACK)


@pytest.mark.parametrize("one", [*STACK, ALL[0]], ids=lambda one: f"{one.sort}-{one.old}")
def test_an_old_identity_in_a_longer_word_stays_and_is_reported(one: Renewal) -> None:
    for text in (f"a{one.old}0", f"f{_escaped(one.old)}", f"x-{one.old}f"):
        content = text.encode()
        assert rewrite(content, [one]) == content
        assert still_old(content, [one]) == (one,)


def test_a_short_identity_in_a_longer_word_is_another_one() -> None:
    assert still_old(b"UUID=00000000-abcd-1234-9d54-000000000002", ALL) == ()


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_no_other_byte_changes(pieces: list[bytes]) -> None:
    # Pieces between identities, never glued to them: " " ends an identity.
    content = (b" " + ROOT_OLD.encode() + b" ").join(pieces)
    assert rewrite(content, ALL) == content.replace(
        b" " + ROOT_OLD.encode() + b" ", b" " + ROOT_NEW.encode() + b" "
    ) or any(word.encode().lower() in piece.lower() for word in (ROOT_OLD, ESP_OLD, PART_OLD) for piece in pieces)


def test_files_of_a_system_are_rewritten_in_place(tmp_path: Path) -> None:
    fstab = tmp_path / "etc/fstab"
    env = tmp_path / "boot/grub/grubenv"
    unit = tmp_path / f"etc/systemd/system/dev-disk-by\\x2duuid-{ROOT_OLD.replace('-', chr(92) + 'x2d')}.swap"
    for path in (fstab, env, unit):
        path.parent.mkdir(parents=True, exist_ok=True)
    fstab.write_text(f"UUID={ROOT_OLD} / ext4 defaults 0 1\n")
    fstab.chmod(0o640)
    env.write_bytes(b"# GRUB Environment Block\nroot=" + ROOT_OLD.encode() + b"\n" + b"#" * 900)
    unit.write_text("[Swap]\n")
    outside = tmp_path.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "a.cfg").write_text(ROOT_OLD)
    (tmp_path / "boot/grub2").symlink_to(outside)
    inode, size = env.stat().st_ino, env.stat().st_size
    assert rewrite_places(tmp_path, ALL) == ("/etc/fstab", "/boot/grub/grubenv")
    assert fstab.read_text() == f"UUID={ROOT_NEW} / ext4 defaults 0 1\n"
    assert fstab.stat().st_mode & 0o777 == 0o640
    assert (env.stat().st_ino, env.stat().st_size) == (inode, size)
    assert (outside / "a.cfg").read_text() == ROOT_OLD, "a link that leads out of the system was followed"
    [left] = places_still_old(tmp_path, ALL)
    assert "the name of /etc/systemd/system/" in left
    assert rewrite_places(tmp_path, ALL) == (), "doing it again changes nothing"


@pytest.mark.parametrize("esp", ["boot/efi", "efi", "boot"])
@pytest.mark.parametrize("name", ["grub.cfg", "grubenv"])
def test_the_esp_is_searched_wherever_it_is_mounted(esp: str, name: str, tmp_path: Path) -> None:
    stub = tmp_path / esp / "EFI/fedora" / name
    stub.parent.mkdir(parents=True)
    stub.write_text(f"search --fs-uuid --set=root {ROOT_OLD}\n")
    assert rewrite_places(tmp_path, ALL) == (f"/{esp}/EFI/fedora/{name}",)
    assert stub.read_text() == f"search --fs-uuid --set=root {ROOT_NEW}\n"


@pytest.mark.parametrize(
    "name",
    [
        "devices/system.devices",
        "devices/backup/system.devices-20261121.210802.0002",
        "backup/rescue-vg",
        "archive/rescue-vg_00001-1234.vg",
    ],
)
def test_what_lvm_keeps_of_its_groups_and_devices_is_rewritten(name: str, tmp_path: Path) -> None:
    path = tmp_path / "etc/lvm" / name
    path.parent.mkdir(parents=True)
    path.write_text(f'PVID={_dashless(VG_OLD)} id = "{LV_OLD}"\n')
    assert rewrite_places(tmp_path, STACK) == (f"/etc/lvm/{name}",)
    assert path.read_text() == f'PVID={_dashless(VG_NEW)} id = "{LV_NEW}"\n'
