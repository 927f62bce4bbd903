"""A medium that cannot find itself is given the driver of the controller it hangs on, and starts.

The medium's own initrd loses a real driver (VMware's paravirtual SCSI), and the medium hangs on just that controller.
``liferaft inject`` puts the driver back, from a folder as a vendor gives it; a second injection adds a unit that
says on the second serial line what the running system looks like.
"""

import shutil
from pathlib import Path

from core.process import SystemRunner
from tests.boot.machine import Firmware, Machine
from tests.boot.place import DEFAULT_ISO
from tests.flow.media import initrd_without, rewrite_iso, unsquash

_DRIVER = "vmw_pvscsi"
_UNIT = f"""[Unit]
Description=What an injected unit sees
[Service]
Type=oneshot
StandardOutput=file:/dev/ttyS1
ExecStart=/bin/sh -c 'echo "PROOF $(modinfo -n {_DRIVER}) $(ls /sys/bus/pci/drivers/{_DRIVER} | grep -c 0000:) \\
  $(readlink -f /sys/class/block/$(basename $(findmnt -no SOURCE /run/live/medium)))"; \\
  modprobe --show-depends megaraid_sas; dmesg | grep -c "{_DRIVER}"; echo PROOF-END'
"""


def test_the_driver_of_the_controller_the_medium_hangs_on(work: Path, runner: SystemRunner) -> None:
    module = unsquash(DEFAULT_ISO, f"**/{_DRIVER}.ko*", work / "vendor", runner)
    without = rewrite_iso(
        DEFAULT_ISO,
        work / "without.iso",
        {"live/initrd.img": lambda content: initrd_without(content, _DRIVER)},
        runner,
    )
    units = work / "units"
    (units / "multi-user.target.wants").mkdir(parents=True)
    for name in ("proof.service", "multi-user.target.wants/proof.service"):
        (units / name).write_text(_UNIT)

    first, second = work / "first.iso", work / "second.iso"
    runner.run(["liferaft", "inject", str(without), "-o", str(first), "--driver", str(module.parent)])
    runner.run(["liferaft", "inject", str(first), "-o", str(second), "--file", f"{units}:/etc/systemd/system"])
    for path in (without, first):
        path.unlink()

    disk = ["-device", "pvscsi,id=scsi", "-drive", f"if=none,id=medium,format=raw,readonly=on,file={second}"]
    disk += ["-device", "scsi-cd,bus=scsi.0,drive=medium,bootindex=1"]
    with Machine("inject", Firmware.BIOS, (), extra=tuple(disk)).run() as running:
        proof = running.words.expect(r"PROOF (\S+) (\d+)\s+(\S+)", 150, against="Kernel panic").groups()
        running.words.expect("PROOF-END", 30)

    assert proof[0].endswith(f"/updates/liferaft/{module.name}"), "depmod prefers what was added"
    assert proof[1] == "1", "the driver drives the controller"
    assert "/host" in proof[2] and "pci0000:00" in proof[2], "the medium hangs on it"
    shutil.rmtree(work / "vendor")
