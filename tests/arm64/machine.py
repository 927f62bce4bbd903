"""An emulated machine with a 64-bit Arm processor: QEMU's ``virt`` board under UEFI, a PL011 as its serial line.

What it does and leaves behind is the boot ring's (``tests.boot.machine``); only the hardware is another.
"""

from dataclasses import dataclass
from pathlib import Path

from tests.boot.machine import Controller, Machine

_FIRMWARE = Path("/usr/share/AAVMF")
CODE = _FIRMWARE / "AAVMF_CODE.fd"
#: Variables with nothing in them, and with Microsoft's keys enrolled and Secure Boot enforced.
VARIABLES, SECURE_VARIABLES = _FIRMWARE / "AAVMF_VARS.fd", _FIRMWARE / "AAVMF_VARS.ms.fd"


@dataclass(frozen=True)
class ArmMachine(Machine):
    """A ``virt`` board. It has virtio drives and CDs only, and starts from UEFI only.

    Its processor is a Cortex-A57: newer ones sign pointers, which costs emulation much time and shows nothing here.
    """

    cpu: str = "cortex-a57"

    @property
    def blank_variables(self) -> Path:
        return SECURE_VARIABLES if self.secure_boot else VARIABLES

    def argv(self, folder: Path, variables: Path) -> list[str]:
        """The emulator's command line. The second serial line goes nowhere: the board has none."""
        argv = ["qemu-system-aarch64", "-machine", "virt", "-accel", "tcg,thread=multi", "-smp", "2", "-cpu", self.cpu]
        argv += ["-m", str(self.memory), "-nodefaults", "-no-user-config", "-no-reboot"]
        argv += ["-display", "none", "-device", "virtio-gpu-pci", "-device", "virtio-rng-pci"]
        argv += ["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile="]
        for name in ("ttyS0", "ttyS1", "qmp"):
            argv += ["-chardev", f"socket,id={name},path={folder / name}"]
        argv += ["-serial", "chardev:ttyS0", "-mon", "chardev=qmp,mode=control"]
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={CODE}"]
        argv += ["-drive", f"if=pflash,format=raw,file={variables}", "-device", "virtio-scsi-pci"]
        for index, drive in enumerate(self.drives):
            options = f"if=none,id=drive{index},format=raw,cache=unsafe,file={str(drive.path).replace(',', ',,')}"
            cd = drive.controller is Controller.CDROM
            device = f"{'scsi-cd' if cd else 'virtio-blk-pci'},drive=drive{index},bootindex={index + 1}"
            device += f",serial={drive.serial}" if drive.serial and not cd else ""
            argv += ["-drive", options + (",readonly=on" if cd or drive.readonly else ""), "-device", device]
        return [*argv, *self.extra]
