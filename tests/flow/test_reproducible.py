"""What is packed twice, in other folders and at other times, is equal bit for bit: layers, boot images, the ISO.

The whole build, twice from nothing, is `make reproducible`; all above the base is tests/boot/test_reproducible.py.
"""

import datetime
import os
from pathlib import Path

import pytest

from builder.archive.origin import DatedRunner
from builder.boot import bios_boot_code, make_bios_image, make_efi_image
from builder.document import describe_files
from builder.iso import BootImages, write_iso
from builder.recipe.recipe import Compression
from builder.rootfs import pack
from builder.sums import SUMS, ranges_of_files, sums_image
from core.process import SystemRunner
from tests.flow.disks import need

_TIME = datetime.datetime(2026, 9, 12, 7, 55, 41, tzinfo=datetime.UTC)


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    need("xorriso", "mksquashfs", "grub-mkimage", "mkfs.fat", "mcopy", "mmd")


def _build(folder: Path, names: tuple[str, ...], age: int) -> Path:
    """A medium of a tree whose files are ``age`` seconds old and were made in the order of ``names``."""
    tree = folder / "tree"
    tree.mkdir(parents=True)
    for name in names:
        path = tree / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name * 5000)
    newest = _TIME.timestamp() + 40_000_000 - age
    for path in (*tree.rglob("*"), tree):
        os.utime(path, (newest, newest))
    runner = DatedRunner(SystemRunner(), int(_TIME.timestamp()))
    pack(tree, folder / "base.squashfs", Compression.FAST, runner, all_root=True)
    boot = BootImages(bios_boot_code(), make_bios_image(folder, "01", runner), make_efi_image(folder, runner))
    files = {"live/base.squashfs": folder / "base.squashfs"}
    files[SUMS] = folder / "sums.img"
    files[SUMS].write_bytes(sums_image(ranges_of_files(files)))
    (folder / "document").write_text(repr(describe_files(files)))
    files["liferaft/document"] = folder / "document"
    write_iso(files, boot, folder / "medium.iso", runner, dated=_TIME)
    return folder / "medium.iso"


def test_two_builds_are_equal(tmp_path: Path) -> None:
    one = _build(tmp_path / "one", ("etc/a", "usr/b", "usr/c"), 0)
    two = _build(tmp_path / "another/folder", ("usr/c", "usr/b", "etc/a"), 12345)
    for name in ("base.squashfs", "core.img", "efi.img", "sums.img", "medium.iso"):
        assert (one.parent / name).read_bytes() == (two.parent / name).read_bytes(), name


def test_another_content_is_another_iso(tmp_path: Path) -> None:
    one = _build(tmp_path / "one", ("etc/a",), 0)
    two = _build(tmp_path / "two", ("etc/b",), 0)
    assert one.read_bytes() != two.read_bytes()
