"""A medium that cannot find itself is given the driver of the controller it hangs on, and starts.

The medium's own initrd loses a real driver (VMware's paravirtual SCSI), and the medium hangs on just that controller.
``liferaft inject`` puts the driver back, from a folder as a vendor gives it; a second injection adds a unit that
says on the second serial line what the running system looks like.
"""

from pathlib import Path

from core.process import SystemRunner
from tests.boot.machine import Firmware, Machine
from tests.boot.place import DEFAULT_ISO
from tests.boot.restoring import liferaft
from tests.flow.media import initrd_without, rewrite_iso, unsquash

_DRIVER = "vmw_pvscsi"
_UNIT = """[Unit]
Description=What an injected unit sees
[Service]
Type=oneshot
ExecStart=/bin/sh /etc/systemd/system/proof.sh
"""
_SCRIPT = f"""exec >/dev/ttyS1 2>&1
echo "PROOF file $(modinfo -n {_DRIVER}) END"
echo "PROOF bound $(ls /sys/bus/pci/drivers/{_DRIVER} | grep -c 0000:) END"
echo "PROOF medium $(readlink -f /sys/class/block/$(basename "$(findmnt -no SOURCE /run/live/medium)")) END"
echo "PROOF device $(readlink -f /sys/bus/pci/drivers/{_DRIVER}/0000:*) END"
echo "PROOF alias $(modprobe --resolve-alias pci:v00008086d00002922sv0sd0bc01sc06i01) END"
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
    (units / "proof.sh").write_text(_SCRIPT)

    first, second = work / "first.iso", work / "second.iso"
    liferaft(["inject", str(without), "-o", str(first), "--driver", str(module.parent)], runner)
    liferaft(["inject", str(first), "-o", str(second), "--file", f"{units}:/etc/systemd/system"], runner)
    for path in (without, first):
        path.unlink()

    disk = ["-device", "pvscsi,id=scsi", "-drive", f"if=none,id=medium,format=raw,readonly=on,file={second}"]
    disk += ["-device", "scsi-cd,bus=scsi.0,drive=medium,bootindex=1"]
    with Machine("inject", Firmware.BIOS, (), extra=tuple(disk)).run() as running:
        said = {}
        for what in ("file", "bound", "medium", "device", "alias"):
            said[what] = running.words.expect(rf"PROOF {what} (.*) END", 150, against="Kernel panic").group(1)

    assert said["file"].endswith(f"/updates/liferaft/{module.name}"), "depmod prefers what was added"
    assert said["bound"] == "1", "the driver drives the controller"
    assert said["medium"].startswith(f"{said['device']}/"), "the medium hangs on it"
    assert said["alias"].split() == ["ahci"], "the medium's own drivers are still found"
