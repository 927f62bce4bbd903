"""The source systems: a real Debian 13 on a raw disk file, installed, booted once, shut down cleanly.

Two kinds: GPT with ESP, ext4 and swap, GRUB for UEFI; MBR with ext4, GRUB for BIOS. Their initramfs has drivers
for virtio disks only (``MODULES=list``), so a copy on another controller boots only if its boot was repaired.
Made once and cached under a key of the files that make them; takes about three minutes each.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.process import Runner, SystemRunner
from tests.boot import files, install
from tests.boot.console import Console
from tests.boot.disk import Table, read_table
from tests.boot.machine import Controller, Drive, Firmware, Machine, RunningMachine
from tests.boot.place import HERE, made_once


class BootCheck(msgspec.Struct, frozen=True, rename="kebab"):
    """What a booted source system says about itself on ttyS1 (``guest/bootcheck``)."""

    machine_id: str
    marker: str
    root: str
    root_uuid: str
    root_fstype: str
    root_size: int
    root_options: str
    esp_uuid: str
    swaps: str
    driver: str
    firmware: str
    cmdline: str
    failed: str


@dataclass(frozen=True)
class Source:
    """A source system at rest.

    Attributes:
        disk: raw disk file; read-only for everyone.
        check: what it said when it was booted, from virtio.
    """

    firmware: Firmware
    disk: Path
    table: Table
    check: BootCheck

    @property
    def root_number(self) -> int:
        """Number of the partition with the root filesystem."""
        return len(self.table.partitions)


def boot_and_check(running: RunningMachine, timeout: float) -> BootCheck:
    """Wait for the login prompt and for the system's own words; raises LineTimeoutError when they do not come."""
    running.console.expect("login: ", timeout, against="ALERT!|Gave up waiting|Kernel panic|grub rescue>")
    running.words.expect("BOOTCHECK-END", 60)
    return read_check(running.words)


def read_check(words: Console) -> BootCheck:
    """Read the last complete block that the system wrote."""
    block = words.text.rpartition("BOOTCHECK-BEGIN")[2].partition("BOOTCHECK-END")[0]
    fields = dict(line.strip().partition("=")[::2] for line in block.splitlines() if "=" in line)
    return msgspec.convert(fields, BootCheck, strict=False)


def switch_off(running: RunningMachine, timeout: float = 300) -> None:
    """Shut the source system down in order, so that its filesystems are clean."""
    running.words.send("poweroff\n")
    running.wait_off(timeout)


def source(firmware: Firmware, runner: Runner | None = None) -> Source:
    """The source system for ``firmware``: from the cache, or made now."""
    runner = runner or SystemRunner()
    folder = made_once(f"source-{firmware}-{_key()}", lambda made: _make(firmware, made, runner))
    check = msgspec.json.decode((folder / "check.json").read_bytes(), type=BootCheck)
    disk = folder / "disk.raw"
    return Source(firmware, disk, read_table(disk, runner), check)


def _key() -> str:
    """A digest of everything a source system is made from."""
    digest = hashlib.blake2s(digest_size=6)
    for path in sorted([Path(install.__file__), Path(files.__file__), *(HERE / "guest").iterdir()]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _make(firmware: Firmware, folder: Path, runner: Runner) -> None:
    disk = folder / "disk.raw"
    install.install(firmware, disk, runner)
    machine = Machine(f"source-{firmware}", firmware, (Drive(disk, Controller.VIRTIO, "LRSOURCE"),))
    with machine.run() as running:
        check = boot_and_check(running, 300)
        switch_off(running)
    (folder / "check.json").write_bytes(msgspec.json.encode(check))
    disk.chmod(0o444)
