"""An emulated machine: a frozen description, its QEMU command line, and the running thing.

Software emulation only (``-accel tcg``): this lab must give the same answer where KVM is missing or hangs. The
machine is a q35 PC; its first serial line is the console, the second is for the source system's own words
(see ``system.py``). A machine that fails inside its ``with`` block leaves the last lines of its console in the
error and a picture of its screen under ``out/boot``.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.boot.console import Console, LineTimeoutError
from tests.boot.place import OUT, OVMF_CODE, OVMF_SECURE_CODE, OVMF_SECURE_VARS, OVMF_VARS
from tests.boot.qmp import Control


class Firmware(StrEnum):
    """What starts the machine: SeaBIOS or OVMF."""

    BIOS = "bios"
    UEFI = "uefi"


class Controller(StrEnum):
    """What a drive hangs on."""

    VIRTIO = "virtio"
    AHCI = "ahci"
    NVME = "nvme"
    USB = "usb"
    CDROM = "cdrom"


@dataclass(frozen=True)
class Drive:
    """A raw file as a drive of the machine. The firmware tries drives in the order of the description.

    Attributes:
        serial: what the guest reads as serial number (at most 20 ASCII characters); a CD has none.
        sector_size: of a disk, logical and physical; 512 or 4096. No BIOS starts from the latter.
    """

    path: Path
    controller: Controller
    serial: str = ""
    readonly: bool = False
    sector_size: int = 512


@dataclass(frozen=True)
class Netboot:
    """A machine that asks the network first: QEMU's own DHCP and TFTP server (slirp) answers.

    Attributes:
        folder: what TFTP serves.
        bootfile: the file that DHCP names; an ``http://`` address for UEFI HTTP Boot.
    """

    folder: Path
    bootfile: str


@dataclass(frozen=True)
class Machine:
    """Everything that decides how the machine looks to its guest.

    Attributes:
        name: names the files under ``out/boot``.
        variables: file that keeps the UEFI variables (boot entries) between runs; made from OVMF's
            blank template when it does not exist; a fresh one per run when None.
        memory: MiB.
        cpu: QEMU's name. x86-64-v2 and no more: emulated AVX costs time (rescue system to its job: 58 s, with
            ``max`` 72 s), and older CPUs lack what the medium's programs need.
        netboot: starts from the network, before any drive; None for a machine that does not ask it.
        secure_boot: UEFI with Microsoft's keys enrolled and Secure Boot enforced.
    """

    name: str
    firmware: Firmware
    drives: tuple[Drive, ...]
    variables: Path | None = None
    memory: int = 1024
    cpu: str = "Nehalem"
    extra: tuple[str, ...] = field(default=())
    netboot: Netboot | None = None
    secure_boot: bool = False

    def run(self) -> "RunningMachine":
        """A context manager: switched on inside, off after."""
        return RunningMachine(self)

    def argv(self, folder: Path, variables: Path) -> list[str]:
        """The emulator's command line: see :func:`qemu_argv`."""
        return qemu_argv(self, folder, variables)

    @property
    def blank_variables(self) -> Path:
        """The template of UEFI variables that nobody has written yet."""
        return OVMF_SECURE_VARS if self.secure_boot else OVMF_VARS


def qemu_argv(machine: Machine, folder: Path, variables: Path) -> list[str]:
    """The emulator's command line. Serial lines and QMP are sockets in ``folder`` that the caller listens on."""
    # The firmware keeps its variables where only system management mode can write them, or Secure Boot is for show.
    board = "q35,smm=on" if machine.secure_boot else "q35"
    argv = ["qemu-system-x86_64", "-machine", board, "-accel", "tcg,thread=multi", "-smp", "2"]
    argv += ["-cpu", machine.cpu, "-m", str(machine.memory), "-nodefaults", "-no-user-config", "-no-reboot"]
    argv += ["-display", "none", "-device", "VGA", "-device", "virtio-rng-pci"]
    argv += _network_argv(machine)
    for name in ("ttyS0", "ttyS1", "qmp"):
        argv += ["-chardev", f"socket,id={name},path={folder / name}"]
    argv += ["-serial", "chardev:ttyS0", "-serial", "chardev:ttyS1", "-mon", "chardev=qmp,mode=control"]
    if machine.firmware is Firmware.UEFI:
        code = OVMF_SECURE_CODE if machine.secure_boot else OVMF_CODE
        argv += ["-global", f"driver=cfi.pflash01,property=secure,value={'on' if machine.secure_boot else 'off'}"]
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
        argv += ["-drive", f"if=pflash,format=raw,file={variables}"]
    if any(drive.controller is Controller.USB for drive in machine.drives):
        argv += ["-device", "qemu-xhci,id=xhci"]
    for index, drive in enumerate(machine.drives):
        argv += _drive_argv(index, drive)
    return [*argv, *machine.extra]


def _network_argv(machine: Machine) -> list[str]:
    """One card on QEMU's user network. Its option ROM (iPXE) is what makes a BIOS ask the network; OVMF has its own."""
    if machine.netboot is None:
        return ["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile="]
    backend = f"user,id=net0,tftp={machine.netboot.folder},bootfile={machine.netboot.bootfile}"
    rom = "romfile=," if machine.firmware is Firmware.UEFI else ""
    argv = ["-netdev", backend, "-device", f"virtio-net-pci,netdev=net0,{rom}bootindex=0"]
    if machine.netboot.bootfile.startswith("http:"):
        # OVMF would try PXE first, on both protocols, and give up on each after half a minute.
        for protocol in ("IPv4", "IPv6"):
            argv += ["-fw_cfg", f"name=opt/org.tianocore/{protocol}PXESupport,string=n"]
    return argv


def _drive_argv(index: int, drive: Drive) -> list[str]:
    options = f"if=none,id=drive{index},format=raw,cache=unsafe,discard=unmap,file={str(drive.path).replace(',', ',,')}"
    if drive.readonly or drive.controller is Controller.CDROM:
        options += ",readonly=on"
    device = {
        Controller.VIRTIO: "virtio-blk-pci",
        Controller.AHCI: f"ide-hd,bus=ide.{index}",
        Controller.NVME: "nvme",
        Controller.USB: "usb-storage,bus=xhci.0,removable=on",
        Controller.CDROM: f"ide-cd,bus=ide.{index}",
    }[drive.controller]
    # From 1: a kernel that QEMU starts itself has 0.
    device += f",drive=drive{index},bootindex={index + 1}"
    # An NVMe controller without a serial number does not exist; QEMU refuses it.
    serial = drive.serial or ("NVME" if drive.controller is Controller.NVME else "")
    if serial and drive.controller is not Controller.CDROM:
        device += f",serial={serial}"
    if drive.sector_size != 512:
        device += f",logical_block_size={drive.sector_size},physical_block_size={drive.sector_size}"
    return ["-drive", options, "-device", device]


class RunningMachine:
    """A machine that is switched on.

    Attributes:
        console: ttyS0.
        words: ttyS1, the source system's own line.
        started: monotonic seconds of power-on.
    """

    def __init__(self, machine: Machine) -> None:
        OUT.mkdir(parents=True, exist_ok=True)
        self.machine = machine
        self.console = Console("ttyS0", OUT / f"{machine.name}.ttyS0.log")
        self.words = Console("ttyS1", OUT / f"{machine.name}.ttyS1.log")
        self.started = 0.0
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Control | None = None

    def __enter__(self) -> Self:
        try:
            self._switch_on()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _switch_on(self) -> None:
        # Unix socket paths hold 107 bytes: a short folder, not the test's own.
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lr-vm-")))
        variables = self.machine.variables or folder / "vars.fd"
        if self.machine.firmware is Firmware.UEFI and not variables.exists():
            shutil.copyfile(self.machine.blank_variables, variables)
        doors = {name: self._listen_at(folder / name) for name in ("ttyS0", "ttyS1", "qmp")}
        errors = self._stack.enter_context((OUT / f"{self.machine.name}.qemu.log").open("wb"))
        self._process = subprocess.Popen(
            self.machine.argv(folder, variables), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        )
        self._stack.callback(self._switch_off)
        self.started = time.monotonic()
        for console in (self.console, self.words):
            console.attach(self._accept(doors[console.name]))
            self._stack.callback(console.close)
        self._control = Control(self._accept(doors["qmp"]))
        self._stack.callback(self._control.close)

    def _listen_at(self, path: Path) -> socket.socket:
        door = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        door.bind(str(path))
        door.listen(1)
        door.settimeout(0.5)
        return door

    def _accept(self, door: socket.socket) -> socket.socket:
        for _ in range(60):
            with suppress(TimeoutError):
                line, _peer = door.accept()
                line.settimeout(None)
                return line
            if self._process is not None and self._process.poll() is not None:
                break
        log = (OUT / f"{self.machine.name}.qemu.log").read_text(errors="replace")
        raise LineTimeoutError(f"qemu did not start: {log}")

    def _switch_off(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)

    def wait_off(self, timeout: float) -> float:
        """Wait until the guest has switched the machine off (or asked for a reset); returns seconds since power-on.

        Raises:
            LineTimeoutError: it still runs after ``timeout`` seconds.
        """
        assert self._process is not None
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LineTimeoutError(f"{self.machine.name} was still on after {timeout:.0f} s") from None
        if code != 0:
            raise LineTimeoutError(f"{self.machine.name}: qemu ended with {code}")
        return time.monotonic() - self.started

    def screendump(self, name: str = "") -> Path:
        """Save a picture of the screen under ``out/boot`` and return its path."""
        assert self._control is not None
        path = OUT / f"{self.machine.name}{'.' if name else ''}{name}.png"
        self._control.screendump(path)
        return path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self._testimony())
        self._stack.close()

    def _testimony(self) -> str:
        picture = "no screen picture"
        if self._process is not None and self._process.poll() is None:
            try:
                picture = f"screen: {self.screendump('failure')}"
            except (OSError, AssertionError) as reason:
                picture = f"no screen picture: {reason}"
        return f"--- {self.machine.name}, last lines of ttyS0 ({picture}) ---\n{self.console.tail(60)}"
