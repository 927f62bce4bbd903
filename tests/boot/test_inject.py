"""A medium that cannot find itself is given the driver of the controller it hangs on, and starts.

The medium's own initrd loses a real driver (VMware's paravirtual SCSI), and the medium hangs on just that controller.
``liferaft inject`` puts the driver back, from a folder as a vendor gives it; a second injection adds a file on top.
"""

import re
from pathlib import Path

import pytest

from core.process import SystemRunner
from tests.boot.lab import Guest, _share, _start_agent
from tests.boot.machine import Firmware, Machine
from tests.boot.place import DEFAULT_ISO
from tests.boot.restoring import BOOT_TIMEOUT, liferaft
from tests.flow.media import initrd_without, rewrite_iso, unsquash

pytestmark = pytest.mark.thorough

_DRIVER = "vmw_pvscsi"
#: VMware's PVSCSI, as QEMU has it (drivers/scsi/vmw_pvscsi.h in Linux: PCI_DEVICE_ID_VMWARE_PVSCSI).
_CONTROLLER = "15ad:07c0"


def test_the_driver_of_the_controller_the_medium_hangs_on(work: Path, runner: SystemRunner) -> None:
    iso = _injected(work, runner)
    shared = work / "shared"
    shared.mkdir()
    disk = ["-device", "pvscsi,id=scsi", "-drive", f"if=none,id=medium,format=raw,readonly=on,file={iso}"]
    disk += ["-device", "scsi-cd,bus=scsi.0,drive=medium,bootindex=1", *_share("lab", shared, "")]
    with Machine("inject", Firmware.BIOS, (), extra=tuple(disk)).run() as running:
        running.console.expect("Restore a machine from a recovery point", BOOT_TIMEOUT, against="Kernel panic")
        _start_agent(running, shared, None)
        guest = Guest(shared)
        # The kernel's own word: which device the driver drives, and that the medium hangs on that device.
        [device] = guest.check(f"ls /sys/bus/pci/drivers/{_DRIVER} | grep :").split()
        assert guest.check(f"lspci -n -s {device}").split()[2] == _CONTROLLER
        medium = guest.check("findmnt -no SOURCE /run/live/medium").strip()
        assert f"/{device}/" in guest.check(f"readlink -f /sys/class/block/{Path(medium).name}")
        # The initrd had no other file of that name, and the live system, which has its own, takes the injected one.
        found = guest.check(f"modinfo -n {_DRIVER}; find /usr/lib/modules -name '{_DRIVER}.ko*'").split()
        assert re.search(rf"/updates/liferaft/{_DRIVER}\.ko", found[0])
        assert len({Path(path).parent for path in found[1:]}) == 2
        assert guest.check("cat /etc/liferaft/note") == "added later"


def _injected(work: Path, runner: SystemRunner) -> Path:
    """The default ISO without the driver, and then with it again, by two injections."""
    module = unsquash(DEFAULT_ISO, f"**/{_DRIVER}.ko*", work / "vendor", runner)
    without = rewrite_iso(
        DEFAULT_ISO,
        work / "without.iso",
        {
            "live/initrd.img": lambda content: initrd_without(content, _DRIVER),
            "boot/grub/grub.cfg": _with_a_shell,
        },
        runner,
    )
    note = work / "note"
    note.write_text("added later")
    first, second = work / "first.iso", work / "second.iso"
    liferaft(["inject", str(without), "-o", str(first), "--driver", str(module.parent)], runner)
    liferaft(["inject", str(first), "-o", str(second), "--file", f"{note}:/etc/liferaft/note"], runner)
    for path in (without, first):
        path.unlink()
    return second


def _with_a_shell(menu: bytes) -> bytes:
    """A root shell on the second serial line: systemd-debug-generator(8)."""
    return re.sub(rb"^(  linux \S+)", rb"\1 systemd.debug_shell=ttyS1", menu, flags=re.MULTILINE)
