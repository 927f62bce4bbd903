"""The medium's figures beside those of its peers: size, RAM, the time to a wizard that takes keys.

Everything runs in the boot lab's emulator, so seconds count only against each other. For seconds the kernel is given to
the emulator directly, so that firmware and boot loader are in nobody's time; for RAM the machine starts from the medium
as people do (a CD), because firmware and boot loader take their part. The machine must be otherwise idle.

    python -m benchmarks.medium ISO [--boot] [--ram] [--network SET] [--rebuild] [--peer FOLDER] [--rear ISO]

``--network`` names a netboot set (``liferaft build --netboot``), whose ``site/site.cfg`` is written. ``--peer`` names
a folder with ``vmlinuz``, ``initrd.img`` and ``debian.iso`` of a plain Debian live system (mmdebstrap
--variant=standard with live-boot and live-config, squashfs as live-build packs it). ``--rear`` names what ``rear
mkrescue`` made of a host with the same Debian and kernel.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from builder.boot import base_parameters
from core.process import SystemRunner
from core.units import MIB
from tests.boot.console import LineTimeoutError
from tests.boot.machine import Controller, Drive, Firmware, Machine, Netboot
from tests.boot.server import RepositoryServer

#: MiB that are tried, from the most to the least, until one is too little.
_MEMORIES = (640, 512, 448, 384, 320, 256)
_MEMORIES_COPIED = (896, 768, 704, 640, 576)
_MEMORIES_NETWORK = (1024, 896, 768, 704, 640, 576)
_QUIET = ("quiet", "loglevel=3", "systemd.show_status=auto")
_PATIENCE = 240.0
_DOWN = "\x1b[B"
#: MiB for measuring seconds.
_ROOMY = 1024


def boot_files(iso: Path, folder: Path) -> tuple[Path, Path]:
    """Kernel and initrd of a liferaft medium."""
    found = (folder / "vmlinuz", folder / "initrd.img")
    for path in found:
        SystemRunner().run(
            ["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", f"/live/{path.name}", str(path)]
        )
    return found


def machine(name: str, iso: Path, files: tuple[Path, Path], words: tuple[str, ...], memory: int) -> Machine:
    """The emulated machine that starts this kernel with the medium as its CD."""
    extra = ("-kernel", str(files[0]), "-initrd", str(files[1]), "-append", " ".join(words))
    drives = (Drive(iso, Controller.CDROM, readonly=True),)
    return Machine(name, Firmware.BIOS, drives, memory=memory, extra=extra)


def seconds_to_wizard(started: Machine) -> float:
    """From power-on until the wizard on the serial line has answered a key.

    Raises:
        LineTimeoutError: it does not come up.
    """
    with started.run() as running:
        console = running.console
        console.wait_screen(_shows("Rescue system", "Power off"), "the wizard", _PATIENCE)
        console.send(_DOWN)
        console.wait_screen(_shows("> Show this machine"), "the cursor on the second row", _PATIENCE)
        return time.monotonic() - running.started


def seconds_to_login(folder: Path) -> float:
    """From power-on until the plain Debian live system's login or shell prompt is on the serial line."""
    words = ("boot=live", "components", "quiet", "console=tty0", "console=ttyS0,115200n8")
    files = (folder / "vmlinuz", folder / "initrd.img")
    with machine("figures-debian", folder / "debian.iso", files, words, _ROOMY).run() as running:
        running.console.expect(r"login: |\$ $", _PATIENCE)
        return time.monotonic() - running.started


def least_memory(name: str, memories: tuple[int, ...], started: Callable[[int], Machine]) -> None:
    """Try less and less; prints a line for each."""
    for memory in memories:
        try:
            print(f"{name}, {memory} MiB: wizard after {seconds_to_wizard(started(memory)):.1f} s", flush=True)
        except LineTimeoutError as error:
            print(f"{name}, {memory} MiB: no wizard ({str(error).splitlines()[0]})", flush=True)
            return


def _shows(*words: str) -> Callable[[list[str]], bool]:
    return lambda rows: all(any(word in row for row in rows) for word in words)


def _from_medium(iso: Path, firmware: Firmware) -> Callable[[int], Machine]:
    drives = (Drive(iso, Controller.CDROM, readonly=True),)
    return lambda memory: Machine(f"figures-{firmware}", firmware, drives, memory=memory)


def _over_network(folder: Path, scratch: Path) -> None:
    """The least memory of machines that start from a netboot set: BIOS by PXE, UEFI by PXE and by HTTP Boot."""
    with RepositoryServer(scratch, scratch, folder) as server:
        (folder / "site" / "site.cfg").write_text(f"set base={server.url('').rstrip('/')}\n")
        starts = {
            "BIOS, PXE": (Firmware.BIOS, "grub.pxe"),
            "UEFI, PXE": (Firmware.UEFI, "bootx64.efi"),
            "UEFI, HTTP Boot": (Firmware.UEFI, server.url("bootx64.efi")),
        }
        for name, (firmware, file) in starts.items():
            boot = Netboot(folder, file)

            def started(memory: int, firmware: Firmware = firmware, boot: Netboot = boot) -> Machine:
                return Machine("figures-network", firmware, (), memory=memory, netboot=boot)

            least_memory(f"over the network, {name}", _MEMORIES_NETWORK, started)


def _rebuild(folder: Path) -> None:
    """Build twice, the second time with other site data (a word of the kernel's command line, the host's name)."""
    seconds = []
    for name in ("one", "two"):
        recipe = folder / f"{name}.toml"
        recipe.write_text(f'hostname = "{name}"\nkernel_parameters = ["site={name}-{time.time_ns()}"]\n')
        started = time.monotonic()
        program = str(Path(sys.executable).with_name("liferaft"))
        SystemRunner().run([program, "build", str(recipe), "-o", str(folder / "site.iso")], timeout=1200)
        seconds.append(time.monotonic() - started)
    print(f"rebuild after a change of site data: {seconds[1]:.1f} s", flush=True)


def _boot(iso: Path, files: tuple[Path, Path], peer: Path | None) -> None:
    words = (*base_parameters(), *_QUIET)
    ours = seconds_to_wizard(machine("figures", iso, files, words, _ROOMY))
    print(f"power-on to a wizard that takes keys: {ours:.1f} s", flush=True)
    if peer is not None:
        theirs = seconds_to_login(peer)
        print(f"power-on to Debian live's prompt: {theirs:.1f} s; ours / theirs {ours / theirs:.2f}", flush=True)


def _ratio(ours: Path, theirs: Path) -> float:
    return ours.stat().st_size / theirs.stat().st_size


def main() -> int:
    """The rows asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.medium", description="The medium's figures.")
    parser.add_argument("iso", type=Path)
    parser.add_argument("--ram", action="store_true", help="the least memory, from the CD and copied to RAM")
    parser.add_argument("--network", type=Path, metavar="SET", help="the least memory, started from this netboot set")
    parser.add_argument("--boot", action="store_true", help="seconds to the wizard")
    parser.add_argument("--peer", type=Path, help="and to the login prompt of a plain Debian live system")
    parser.add_argument("--rebuild", action="store_true", help="seconds to build after a change of site data")
    parser.add_argument("--rear", type=Path, help="an ISO of rear mkrescue, for its size")
    given = parser.parse_args()
    print(f"size: {given.iso.stat().st_size / MIB:.1f} MiB", flush=True)
    if given.rear:
        print(
            f"ReaR's ISO: {given.rear.stat().st_size / MIB:.1f} MiB; ours / theirs {_ratio(given.iso, given.rear):.2f}"
        )
    with tempfile.TemporaryDirectory(prefix="liferaft-figures-") as folder:
        if given.rebuild:
            _rebuild(Path(folder))
        files = boot_files(given.iso, Path(folder))
        if given.boot:
            _boot(given.iso, files, given.peer)
        if given.network:
            _over_network(given.network, Path(folder))
        if given.ram:
            for firmware in Firmware:
                least_memory(f"from CD, {firmware}", _MEMORIES, _from_medium(given.iso, firmware))
            words = (*base_parameters(), *_QUIET, "toram")
            least_memory("copied to RAM", _MEMORIES_COPIED, lambda mib: machine("toram", given.iso, files, words, mib))
    return 0


if __name__ == "__main__":
    sys.exit(main())
