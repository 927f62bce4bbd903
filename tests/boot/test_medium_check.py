"""The medium proves itself while it starts: one altered byte in a layer stops it, with a sentence that says where."""

import shutil
from pathlib import Path

import pytest

from builder.finished.opened import open_medium
from builder.sums import RANGE_SIZE
from tests.boot.machine import Controller, Drive, Firmware, Machine
from tests.boot.place import DEFAULT_ISO

#: Seconds until the check; 20 on an idle machine.
_START = 150


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The ISO with one bit turned over in the last quarter of its largest layer, and the first byte of that range."""
    assert DEFAULT_ISO.exists(), f"{DEFAULT_ISO} is not there: run `make iso`"
    path = tmp_path_factory.mktemp("damaged") / "damaged.iso"
    shutil.copyfile(DEFAULT_ISO, path)
    with open_medium(path) as medium:
        size = medium.file_size("live/base.squashfs")
        offset = size * 3 // 4
        place = medium.place("live/base.squashfs") + offset
    with path.open("r+b") as stream:
        stream.seek(place)
        old = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([old ^ 0x10]))
    return path, offset // RANGE_SIZE * RANGE_SIZE


def test_a_damaged_medium_stops_and_says_where(damaged: tuple[Path, int]) -> None:
    iso, start = damaged
    machine = Machine("damaged-medium", Firmware.BIOS, (Drive(iso, Controller.CDROM, readonly=True),))
    with machine.run() as running:
        console = running.console
        console.expect("checking the medium", _START)
        # The wizard, or the system that would start it, must not come.
        console.expect("THIS MEDIUM IS DAMAGED", 120, against="Welcome to|liferaft wizard|Kernel panic")
        console.expect(r"live/base\.squashfs is not what was written", 60)
        console.expect(f"bytes {start} to {start + RANGE_SIZE} differ", 60)
        console.expect("at your own risk: ", 60)
        # Anything but the two words is no answer.
        console.send("yes\n")
        console.expect("Type reboot or continue", 60)
        console.send("reboot\n")
        running.wait_off(60)
