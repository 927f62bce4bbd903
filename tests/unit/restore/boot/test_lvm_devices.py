"""LVM's list of devices on other disks: what is in it, what the system's own tool is asked, what is left without it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import ProcessError
from core.process import Result
from restore.boot.lvm_devices import PLACE, Entry, parse_entries, renew_devices
from restore.stack.mountable import ListedVolume
from tests.runners import ScriptedRunner

#: As LVM 2.03 writes it (lib/device/device_id.c, device_ids_write): a disk, an opened container, an array, a data disk.
HEAD = """# LVM uses devices listed in this file.
# Created by LVM command vgimportdevices pid 6424 at Sun Jan 18 13:55:53 2026
# HASH=3984349505
PRODUCT_UUID=5e2a1c66-d554-5c95-8eb9-bcfce74db9d0
VERSION=1.1.29
"""
ROOT = "IDTYPE=sys_wwid IDNAME=naa.5000c500faed0560 DEVNAME=/dev/sda3 PVID=XQslOSnecUYGlf0WGrEA2HXQ0Oz1in0q PART=3\n"
LUKS = (
    "IDTYPE=crypt_uuid IDNAME=CRYPT-LUKS2-4d3e2f1a0b9c4d8e9f7a6b5c4d3e2f1a-luks-x DEVNAME=/dev/mapper/luks-x "
    "PVID=EOAf56s2OKi9QfqRee5AXYzeywVIAFpt\n"
)
MD = (
    "IDTYPE=md_uuid IDNAME=01234567-89ab-cdef-0123-456789abcdef DEVNAME=/dev/md0 "
    "PVID=phl0clFbAokp9UXqbIgI5YYQxuTIJVkD\n"
)
DATA = "IDTYPE=sys_serial IDNAME=WD-1 DEVNAME=/dev/sdb PVID=IoUGXYfv74B3YrmCoPfh9ZsWZsDrVKAN\n"
NEW = "IDTYPE=sys_wwid IDNAME=eui.00253845 DEVNAME=/dev/nvme0n1p3 PVID=XQslOSnecUYGlf0WGrEA2HXQ0Oz1in0q PART=3\n"
#: Everything but the data disk was restored.
VOLUMES = (
    ListedVolume("XQslOSnecUYGlf0WGrEA2HXQ0Oz1in0q", "/dev/nvme0n1p3"),
    ListedVolume("EOAf56s2OKi9QfqRee5AXYzeywVIAFpt", "/dev/mapper/luks-x"),
    ListedVolume("phl0clFbAokp9UXqbIgI5YYQxuTIJVkD", "/dev/md/0"),
)
SOURCE = HEAD + ROOT + LUKS + MD + DATA


def _tool(path: Path, added: str) -> Callable[[tuple[str, ...]], str]:
    """lvmdevices, as far as it is asked: it takes the entry of a PVID away, and puts ``added`` in."""

    def answer(argv: tuple[str, ...]) -> str:
        # By the one program: the link of the command's name is not everywhere.
        assert argv[0] == "chroot" and argv[2:4] == ("lvm", "lvmdevices"), argv
        lines = path.read_text().splitlines(keepends=True)
        if "--delpvid" in argv:
            lines = [line for line in lines if f"PVID={argv[-1]}" not in line]
        elif "--adddev" in argv:
            lines.append(added)
        path.write_text("".join(lines))
        return ""

    return answer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / PLACE
    path.parent.mkdir(parents=True)
    path.write_text(SOURCE)
    return path


def test_entries_are_read_as_lvm_writes_them() -> None:
    assert parse_entries(SOURCE)[0] == Entry("sys_wwid", "naa.5000c500faed0560", "XQslOSnecUYGlf0WGrEA2HXQ0Oz1in0q")
    assert [entry.kind for entry in parse_entries(SOURCE)] == ["sys_wwid", "crypt_uuid", "md_uuid", "sys_serial"]
    # A device that LVM found nothing on has no PVID.
    assert parse_entries("IDTYPE=devname IDNAME=/dev/sdc DEVNAME=/dev/sdc PVID=.") == (
        Entry("devname", "/dev/sdc", "."),
    )
    assert parse_entries("") == ()


def test_what_the_disk_is_known_by_is_written_again_and_nothing_else(path: Path, tmp_path: Path) -> None:
    runner = ScriptedRunner(_tool(path, NEW))
    renewed = renew_devices(tmp_path, VOLUMES, runner)
    assert (renewed.done, renewed.warning) == ("/etc/lvm/devices/system.devices names the disks of this machine", "")
    assert path.read_text() == HEAD + LUKS + MD + DATA + NEW
    # lvmdevices(8): by its PVID away, by its node in; the containers' entries hold on any disk.
    assert [call[-2:] for call in runner.calls] == [
        ("--delpvid", "XQslOSnecUYGlf0WGrEA2HXQ0Oz1in0q"),
        ("--adddev", "/dev/nvme0n1p3"),
    ]


def test_the_same_disk_keeps_its_list_to_the_byte(path: Path, tmp_path: Path) -> None:
    assert not renew_devices(tmp_path, VOLUMES, ScriptedRunner(_tool(path, ROOT))).changed
    assert path.read_text() == SOURCE


@pytest.mark.parametrize(
    ("added", "why"),
    [
        ("", "did not add /dev/nvme0n1p3"),
        (NEW.replace("sys_wwid", "loop_file"), "no hardware of this machine"),
    ],
)
def test_a_list_that_would_hide_the_disk_is_set_aside(added: str, why: str, path: Path, tmp_path: Path) -> None:
    renewed = renew_devices(tmp_path, VOLUMES, ScriptedRunner(_tool(path, added)))
    assert why in renewed.warning and "vgimportdevices" in renewed.warning
    assert [found.name for found in path.parent.iterdir()] == ["system.devices.before-restore"]
    assert path.with_name("system.devices.before-restore").read_text() == SOURCE


def test_a_system_whose_tool_fails_finds_its_disk_all_the_same(path: Path, tmp_path: Path) -> None:
    def answer(argv: tuple[str, ...]) -> Result:
        raise ProcessError(argv, 5, "no such thing")

    renewed = renew_devices(tmp_path, VOLUMES, ScriptedRunner(answer))
    assert renewed.changed and "(lvm failed with exit code 5" in renewed.warning
    assert not path.exists()


def test_on_a_full_filesystem_no_empty_list_hides_the_disks(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def answer(argv: tuple[str, ...]) -> Result:
        path.write_bytes(b"")
        raise ProcessError(argv, 5, "No space left on device")

    monkeypatch.setattr("restore.boot.lvm_devices.write_atomically", full)
    renewed = renew_devices(tmp_path, VOLUMES, ScriptedRunner(answer))
    assert "No space left" in renewed.warning
    assert not path.exists()
    assert path.with_name("system.devices.before-restore").exists()


def test_no_list_and_none_of_these_disks_is_no_business_of_ours(path: Path, tmp_path: Path) -> None:
    runner = ScriptedRunner(_tool(path, NEW))
    assert not renew_devices(tmp_path / "other", VOLUMES, runner).changed
    assert not renew_devices(tmp_path, VOLUMES[1:], runner).changed
    # Never through a link: it would be the rescue system's own.
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text(SOURCE)
    assert not renew_devices(tmp_path, VOLUMES, runner).changed
    assert runner.calls == []
