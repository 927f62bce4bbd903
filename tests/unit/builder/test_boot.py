"""The boot menu: judged by GRUB's own syntax check and by what must be on every command line."""

import shutil
import subprocess
from pathlib import Path

import pytest

from builder.architecture import Architecture
from builder.boot import base_parameters, grub_menu, mark_name, menu_entries

MENU = grub_menu("0123abcd", ("liferaft.job=http://10.0.0.1/j", "console=ttyS1"))


@pytest.mark.parametrize("architecture", Architecture)
def test_grub_understands_the_menu(architecture: Architecture, tmp_path: Path) -> None:
    if shutil.which("grub-script-check") is None:
        pytest.skip("grub-script-check (grub-common) is not installed")
    path = tmp_path / "grub.cfg"
    path.write_text(grub_menu("0123abcd", ("console=ttyS1",), architecture=architecture))
    subprocess.run(["grub-script-check", str(path)], check=True)


def test_every_entry_says_all_that_keeps_the_disks_alone_and_the_recipe_has_the_last_word() -> None:
    lines = [line.split() for line in MENU.splitlines() if line.startswith("  linux /live/")]
    assert len(lines) == len(menu_entries())
    for words in lines:
        assert words[1] == "/live/vmlinuz"
        assert set(base_parameters()) <= set(words)
        assert words[-2:] == ["liferaft.job=http://10.0.0.1/j", "console=ttyS1"]
        assert {"boot=live", "noswap", "systemd.gpt_auto=no"} <= set(words)


def test_only_this_medium_is_started() -> None:
    searched = f"  search --no-floppy --file --set=root /.disk/{mark_name('0123abcd')}\n"
    assert MENU.startswith('if [ -z "$liferaft_words" ]; then\n' + searched + "fi\n")


def test_one_entry_copies_to_ram_and_none_but_the_first_is_the_default() -> None:
    assert "set default=0" in MENU
    assert ["toram" in entry.parameters for entry in menu_entries()] == [False, True, False, False, False]


def test_arm64_talks_on_its_own_serial_port_and_has_nothing_of_pcs() -> None:
    """The kernel's names of serial ports: drivers/tty/serial/amba-pl011.c (ttyAMA), 8250 (ttyS). UEFI's own names of
    programs end in AA64 (UEFI 2.10, 3.5.1.1)."""
    menu = grub_menu("0123abcd", (), architecture=Architecture.ARM64)
    lines = [line.split() for line in menu.splitlines() if line.startswith("  linux /live/")]
    assert lines
    for words in lines:
        consoles = [word for word in words if word.startswith("console=")]
        assert consoles[0] == "console=tty0" and consoles[-1] == "console=ttyAMA0,115200n8"
    assert "memtest" not in menu and "x64" not in menu and "COM2" not in menu
    assert "/EFI/debian/shimaa64.efi" in menu
    assert not [word for word in base_parameters() if "ttyAMA" in word]
