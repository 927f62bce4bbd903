"""A medium that cannot find itself is given the driver of the controller it hangs on, and starts.

The medium's own initrd loses a real driver (VMware's paravirtual SCSI), and the medium hangs on just that controller.
``liferaft inject`` puts the driver back, from a folder as a vendor gives it; a second injection adds a file on top.
"""

from pathlib import Path

from core.process import SystemRunner
from tests.boot.machine import Firmware, Machine
from tests.boot.place import DEFAULT_ISO
from tests.boot.restoring import liferaft
from tests.flow.media import initrd_without, rewrite_iso, unsquash

_DRIVER = "vmw_pvscsi"


def test_the_driver_of_the_controller_the_medium_hangs_on(work: Path, runner: SystemRunner) -> None:
    module = unsquash(DEFAULT_ISO, f"**/{_DRIVER}.ko*", work / "vendor", runner)
    without = rewrite_iso(
        DEFAULT_ISO,
        work / "without.iso",
        {"live/initrd.img": lambda content: initrd_without(content, _DRIVER)},
        runner,
    )
    note = work / "note"
    note.write_text("added later")
    first, second = work / "first.iso", work / "second.iso"
    liferaft(["inject", str(without), "-o", str(first), "--driver", str(module.parent)], runner)
    liferaft(["inject", str(first), "-o", str(second), "--file", f"{note}:/etc/liferaft/note"], runner)
    for path in (without, first):
        path.unlink()

    disk = ["-device", "pvscsi,id=scsi", "-drive", f"if=none,id=medium,format=raw,readonly=on,file={second}"]
    disk += ["-device", "scsi-cd,bus=scsi.0,drive=medium,bootindex=1"]
    with Machine("inject", Firmware.BIOS, (), extra=tuple(disk)).run() as running:
        # No other drive has a live system, and no other driver knows this one's controller.
        running.console.expect("Restore a machine from a recovery point", 180, against="Kernel panic")
