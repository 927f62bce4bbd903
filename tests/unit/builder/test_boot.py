"""The boot menu: judged by GRUB's own syntax check and by what must be on every command line."""

import shutil
import subprocess
from pathlib import Path

import pytest

from builder.boot import BASE_PARAMETERS, grub_menu, mark_name, menu_entries

MENU = grub_menu("0123abcd", ("liferaft.job=http://10.0.0.1/j", "console=ttyS1"))


def test_grub_understands_the_menu(tmp_path: Path) -> None:
    if shutil.which("grub-script-check") is None:
        pytest.skip("grub-script-check (grub-common) is not installed")
    path = tmp_path / "grub.cfg"
    path.write_text(MENU)
    subprocess.run(["grub-script-check", str(path)], check=True)


def test_every_entry_says_all_that_keeps_the_disks_alone_and_the_recipe_has_the_last_word() -> None:
    lines = [line.split() for line in MENU.splitlines() if line.startswith("  linux /live/")]
    assert len(lines) == len(menu_entries())
    for words in lines:
        assert words[1] == "/live/vmlinuz"
        assert set(BASE_PARAMETERS) <= set(words)
        assert words[-2:] == ["liferaft.job=http://10.0.0.1/j", "console=ttyS1"]
        assert {"boot=live", "noswap", "systemd.gpt_auto=no"} <= set(words)


def test_only_this_medium_is_started() -> None:
    searched = f"  search --no-floppy --file --set=root /.disk/{mark_name('0123abcd')}\n"
    assert MENU.startswith('if [ -z "$liferaft_words" ]; then\n' + searched + "fi\n")


def test_one_entry_copies_to_ram_and_none_but_the_first_is_the_default() -> None:
    assert "set default=0" in MENU
    assert ["toram" in entry.parameters for entry in menu_entries()] == [False, True, False, False, False]
