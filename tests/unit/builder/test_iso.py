"""The hybrid ISO, made with small files and judged by other tools: xorriso's report, sfdisk, mtools."""

import datetime
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.boot import bios_boot_code, grub_menu, make_bios_image, make_efi_image
from builder.iso import BootImages, replace_iso, write_iso
from builder.stick.layout import iso_table
from builder.stick.source import open_iso
from core.errors import DeviceError
from core.process import Result, Runner, SystemRunner, find_tool
from tests.runners import ScriptedRunner

_TOOLS = ("xorriso", "grub-mkimage", "mkfs.fat", "mcopy", "mdir", "sfdisk")
_BOOT_FILES = ("/usr/lib/grub/i386-pc/cdboot.img", "/usr/lib/shim/shimx64.efi.signed")
_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [tool for tool in _TOOLS if find_tool(tool) is None]
    missing += [path for path in _BOOT_FILES if not Path(path).exists()]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (run make setup)")
    folder = tmp_path_factory.mktemp("iso")
    runner = SystemRunner()
    (folder / "grub.cfg").write_text(grub_menu("0123", ()))
    (folder / "vmlinuz").write_bytes(bytes(range(256)) * 64)
    files = {"boot/grub/grub.cfg": folder / "grub.cfg", "live/vmlinuz": folder / "vmlinuz"}
    boot = BootImages(bios_boot_code(), make_bios_image(folder, "0123", runner), make_efi_image(folder, runner))
    write_iso(files, boot, folder / "out.iso", runner)
    return folder / "out.iso"


def _said(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_both_firmwares_find_it_as_cd(iso: Path) -> None:
    report = _said("xorriso", "-indev", str(iso), "-report_el_torito", "plain")
    images = [line.split() for line in report.splitlines() if line.startswith("El Torito boot img :")]
    assert {words[6] for words in images} == {"BIOS", "UEFI"}


def test_both_firmwares_find_it_as_usb_stick(iso: Path) -> None:
    table = json.loads(_said("/usr/sbin/sfdisk", "--json", str(iso)))["partitiontable"]
    assert table["label"] == "gpt"
    esp = next(part for part in table["partitions"] if part["type"] == _ESP)
    head = iso.read_bytes()[:512]
    assert head[510:] == b"\x55\xaa" and any(head[:440])
    # Some BIOSes start a stick only when an entry of the protective MBR is active.
    assert any(head[446 + 16 * entry] == 0x80 for entry in range(4))
    listing = _said("mdir", "-b", "-i", f"{iso}@@{esp['start'] * 512}", "::/EFI/BOOT")
    assert {Path(line).name.lower() for line in listing.split()} == {"bootx64.efi", "grubx64.efi", "mmx64.efi"}


def test_files_come_back_as_they_went(iso: Path, tmp_path: Path) -> None:
    _said("xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", "/live/vmlinuz", str(tmp_path / "vmlinuz"))
    assert (tmp_path / "vmlinuz").read_bytes() == bytes(range(256)) * 64


def test_a_medium_without_bios_is_found_by_uefi_alone(tmp_path: Path) -> None:
    """A machine of arm64 knows the fallback path alone (UEFI 2.10, 3.5.1.1); no code lies where a BIOS would start."""
    missing = [tool for tool in _TOOLS if find_tool(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (run make setup)")
    (tmp_path / "program").write_bytes(b"MZ" * 4096)
    runner = SystemRunner()
    efi = make_efi_image(tmp_path, runner, {"BOOTAA64.EFI": tmp_path / "program"})
    files = {"boot/grub/grub.cfg": tmp_path / "program", "live/vmlinuz": tmp_path / "program"}
    write_iso(files, BootImages(None, None, efi), tmp_path / "out.iso", runner)
    report = _said("xorriso", "-indev", str(tmp_path / "out.iso"), "-report_el_torito", "plain")
    images = [line.split() for line in report.splitlines() if line.startswith("El Torito boot img :")]
    assert [words[6] for words in images] == ["UEFI"]
    table = json.loads(_said("/usr/sbin/sfdisk", "--json", str(tmp_path / "out.iso")))["partitiontable"]
    assert table["label"] == "gpt"
    esp = next(part for part in table["partitions"] if part["type"] == _ESP)
    assert _said("mdir", "-b", "-i", f"{tmp_path / 'out.iso'}@@{esp['start'] * 512}", "::/EFI/BOOT").split() == [
        "::/EFI/BOOT/BOOTAA64.EFI"
    ]
    assert not any((tmp_path / "out.iso").read_bytes()[:440])
    with open_iso(tmp_path / "out.iso") as source:
        found = iso_table(source)
    assert found is not None, "write-usb adds partitions only to an ISO whose table it knows"
    starts = {str(part.type).upper(): part.start_lba for part in found.partitions}
    assert starts[_ESP] == esp["start"]


class _WhileWriting(SystemRunner):
    """Does something else before each program starts."""

    def __init__(self, first: Callable[[], None]) -> None:
        super().__init__()
        self._first = first

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        self._first()
        return super().run(argv, **options)


def test_two_builds_of_one_iso_do_not_mix_and_what_a_killed_one_left_is_no_part_of_it(tmp_path: Path) -> None:
    if find_tool("xorriso") is None:
        pytest.skip("not installed: xorriso (run make setup)")
    (tmp_path / "efi").write_bytes(bytes(1 << 20))
    (tmp_path / "file").write_bytes(b"content" * 1000)
    boot = BootImages(None, None, tmp_path / "efi")
    built = datetime.datetime(2026, 9, 1, tzinfo=datetime.UTC)
    refused: list[str] = []

    def write(name: str, runner: Runner) -> bytes:
        replace_iso({"boot/file": tmp_path / "file"}, boot, tmp_path / name, built, runner, lambda _: None)
        return (tmp_path / name).read_bytes()

    def second() -> None:
        with pytest.raises(DeviceError) as raised:
            write("out.iso", SystemRunner())
        refused.append(raised.value.message)

    alone = write("alone.iso", SystemRunner())
    (tmp_path / "out.iso.partial").write_bytes(alone[:-4096] + b"left")
    assert write("out.iso", _WhileWriting(second)) == alone
    assert set(refused) == {f"Another build is writing {tmp_path / 'out.iso'}."}
    assert not list(tmp_path.glob("*.partial"))


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("code", "bios", "efi"):
        (tmp_path / name).write_bytes(b"x")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(shutil.disk_usage(tmp_path).total + 1)
    boot = BootImages(tmp_path / "code", tmp_path / "bios", tmp_path / "efi")
    with pytest.raises(DeviceError, match=f"No space is left for the ISO: {tmp_path} has .* free") as caught:
        write_iso({"large": tmp_path / "large"}, boot, tmp_path / "out.iso", ScriptedRunner(lambda _: ""))
    assert "another disk" in caught.value.hint
    assert not (tmp_path / "out.iso").exists()
