"""The medium's figures beside those of its peers: size, RAM, the time to a wizard that takes keys (``python -m benchmarks.medium``).

Everything runs in the boot lab's emulator, so seconds count only against each other. The kernel is given to the emulator
directly, so that firmware and boot loader are in nobody's time, and the medium is a CD.

    python -m benchmarks.medium ISO [--ram] [--boot] [--peer FOLDER]

``--peer`` names a folder with ``vmlinuz``, ``initrd.img`` and ``debian.iso`` of a plain Debian live system (mmdebstrap
--variant=standard with live-boot and live-config, squashfs as live-build packs it).
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from builder.boot import BASE_PARAMETERS
from core.process import SystemRunner
from tests.boot.console import LineTimeoutError
from tests.boot.machine import Controller, Drive, Firmware, Machine

#: MiB that are tried, from the most to the least, until one is too little.
MEMORIES = (640, 512, 448, 384, 352, 320, 288, 256)
_QUIET = ("quiet", "loglevel=3", "systemd.show_status=auto")
_PATIENCE = 240.0
_F2 = "\x1bOQ"


def boot_files(iso: Path, folder: Path) -> tuple[Path, Path]:
    """Kernel and initrd of a liferaft medium."""
    found = (folder / "vmlinuz", folder / "initrd.img")
    for path in found:
        SystemRunner().run(["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", f"/live/{path.name}", str(path)])
    return found


def machine(name: str, iso: Path, files: tuple[Path, Path], words: tuple[str, ...], memory: int) -> Machine:
    """The emulated machine that starts this kernel with the medium as its CD."""
    extra = ("-kernel", str(files[0]), "-initrd", str(files[1]), "-append", " ".join(words))
    drives = (Drive(iso, Controller.CDROM, readonly=True),)
    return Machine(name, Firmware.BIOS, drives, memory=memory, extra=extra)


def seconds_to_wizard(iso: Path, files: tuple[Path, Path], memory: int, *words: str) -> float:
    """From power-on until the wizard on the serial line has answered a key.

    Raises:
        LineTimeoutError: it does not come up.
    """
    with machine(f"figures-{memory}", iso, files, (*BASE_PARAMETERS, *_QUIET, *words), memory).run() as running:
        console = running.console
        console.wait_screen(lambda rows: "Rescue system" in rows[0] and any("Power off" in row for row in rows), "the wizard", _PATIENCE)
        console.send("\x1b[B")
        console.wait_screen(lambda rows: any("> Show this machine" in row for row in rows), "the cursor on row 2", 30)
        return time.monotonic() - running.started


def seconds_to_login(folder: Path, memory: int) -> float:
    """From power-on until the plain Debian live system's shell prompt or login prompt is on the serial line."""
    words = ("boot=live", "components", "quiet", "console=tty0", "console=ttyS0,115200n8")
    files = (folder / "vmlinuz", folder / "initrd.img")
    with machine("figures-debian", folder / "debian.iso", files, words, memory).run() as running:
        running.console.expect(r"login: |\$ $", _PATIENCE * 2)
        return time.monotonic() - running.started


def least_memory(boots: Callable[[int], float]) -> list[str]:
    """Try less and less; a line for each."""
    lines = []
    for memory in MEMORIES:
        try:
            lines.append(f"{memory} MiB: wizard after {boots(memory):.1f} s")
        except LineTimeoutError as error:
            lines.append(f"{memory} MiB: no wizard ({str(error).splitlines()[0]})")
            print(lines[-1], flush=True)
            break
        print(lines[-1], flush=True)
    return lines


def main() -> int:
    """The rows asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.medium", description="The medium's figures.")
    parser.add_argument("iso", type=Path)
    parser.add_argument("--ram", action="store_true", help="the least memory, from the CD and copied to RAM")
    parser.add_argument("--boot", action="store_true", help="seconds to the wizard")
    parser.add_argument("--peer", type=Path, help="and to the login prompt of a plain Debian live system")
    given = parser.parse_args()
    print(f"size: {given.iso.stat().st_size / (1 << 20):.1f} MiB")
    with tempfile.TemporaryDirectory(prefix="liferaft-figures-") as folder:
        files = boot_files(given.iso, Path(folder))
        if given.boot:
            ours = seconds_to_wizard(given.iso, files, 1024)
            print(f"wizard: {ours:.1f} s", flush=True)
            if given.peer:
                theirs = seconds_to_login(given.peer, 1024)
                print(f"Debian live, login prompt: {theirs:.1f} s; ratio {ours / theirs:.2f}", flush=True)
        if given.ram:
            least_memory(lambda memory: seconds_to_wizard(given.iso, files, memory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
