"""A machine whose root lies in LUKS boots from a smaller disk on another controller, and asks for its passphrase.

Captured with its passphrase as a disk of another machine, the way a rescue system does it: nobody has told liferaft
what the system calls its container. Its initramfs is made again, for the controller.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.units import MIB
from tests.boot.disk import Partition
from tests.boot.lab import Guest, blank_disk, guest
from tests.boot.lvm_source import ROOT, SWAP_UUID
from tests.boot.machine import Controller, Drive, Machine
from tests.boot.moved_root import MovedRoot, compare_roots
from tests.boot.restoring import BOOT_TIMEOUT, TARGET_SERIAL, Lab
from tests.boot.stack_disks import wipe
from tests.boot.system import BootCheck, Source, boot_and_check, switch_off
from tests.forms import luks_source as luks

#: The guest's disks: the repository, one for a decrypted root, the source, its root; and the target.
STORE, DECRYPTED, SOURCE, ROOT_IMAGE, TARGET = "/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd", "/dev/nvme0n1"
SOURCE_PART, TARGET_PART = f"{SOURCE}{luks.PART}", f"{TARGET}p{luks.PART}"
RESTORE = (
    f"liferaft restore sealed --repo /run/store/r --yes --progress text --target {TARGET} --boot bios "
    "--luks-passphrase-file /run/passphrase"
)


@dataclass(frozen=True)
class Sealed:
    """The guest in which the machine was captured. ``identities``: what its tools said of it; files of two disks."""

    machine: Guest
    identities: str
    decrypted: Path
    target: Path


@pytest.fixture(scope="module")
def rooted(bios_source: Source, lab: Lab) -> MovedRoot:
    return luks.luks_source(bios_source, lab.runner)


@pytest.fixture(scope="module")
def sealed(lab: Lab, rooted: MovedRoot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    folder = tmp_path_factory.mktemp("sealed")
    store, decrypted = blank_disk(folder / "store.raw", 700 * MIB), blank_disk(folder / "root.raw", luks.ROOT_SIZE)
    shared = folder / "shared"
    shared.mkdir()
    disk, target = folder / "disk.raw", blank_disk(folder / "nvme.raw", luks.SMALLER)
    lab.runner.run(["cp", "--sparse=always", "--no-preserve=mode", str(rooted.disk), str(disk)])
    others = (
        Drive(disk, Controller.VIRTIO, "SEALED"),
        Drive(rooted.root, Controller.VIRTIO, "ROOT", readonly=True),
        Drive(target, Controller.NVME, TARGET_SERIAL),
    )
    with guest("sealed", lab.medium("sealed", ""), [store, decrypted], shared, lab.runner, others=others) as machine:
        machine.check(f"mkfs.ext4 -q {STORE}; mkdir -p /run/store; mount {STORE} /run/store")
        machine.check(luks.make_container(SOURCE, ROOT_IMAGE), 600)
        identities = machine.check(luks.identities(SOURCE_PART))
        command = f"liferaft capture {SOURCE} --repo /run/store/r --name sealed --luks-passphrase-file /run/passphrase"
        said = machine.check(command, 600)
        assert "captured whole" not in said
        # A container and a group of the same UUIDs would stand in the way of every question.
        machine.check(wipe((SOURCE.removeprefix("/dev/"),)))
        yield Sealed(machine, identities, decrypted, target)
    for path in (store, decrypted, disk, target):
        path.unlink()


def test_a_machine_with_its_root_in_luks_boots_from_a_smaller_disk_on_another_controller(
    sealed: Sealed, rooted: MovedRoot, lab: Lab, bios_source: Source, work: Path
) -> None:
    machine = sealed.machine
    said = machine.check(RESTORE, 900)
    for line in said.splitlines():
        if line.strip().startswith("boot:"):
            lab.timeline.say(line.strip())
    assert "make ext4 smaller" in said
    # The header, bit for bit, and all that lies in it.
    assert machine.check(luks.identities(TARGET_PART)) == sealed.identities
    size = int(machine.check(luks.copy_root(TARGET_PART, DECRYPTED)))
    assert size < luks.ROOT_SIZE * 4 // 5
    place = Partition(number=0, start=0, size=size, type="", uuid="", name="", attrs="", bootable=False)
    differences = compare_roots(rooted, sealed.decrypted, place, lab.runner)
    assert not differences, "files differ: " + "; ".join(map(str, differences[:20]))

    target = work / "sealed.raw"
    lab.runner.run(["cp", "--sparse=always", str(sealed.target), str(target)])
    check = boot(target, bios_source, lab)
    was = bios_source.check
    for name in ("machine_id", "marker", "root_fstype", "firmware", "failed"):
        assert getattr(check, name) == getattr(was, name), name
    assert (check.root, check.root_uuid, check.swaps.strip()) == (ROOT, luks.ROOT_UUID, SWAP_UUID)
    assert check.root_size < luks.ROOT_SIZE * 4 // 5


def boot(disk: Path, source: Source, lab: Lab) -> BootCheck:
    """Switch a machine on that has this disk alone, and type the passphrase where it is asked for."""
    drives = (Drive(disk, Controller.NVME, TARGET_SERIAL),)
    with Machine("sealed-restored", source.firmware, drives).run() as running:
        against = "ALERT!|Gave up waiting|Kernel panic|grub rescue>|login: "
        running.console.expect(f"Please unlock disk {luks.MAPPING}: ", BOOT_TIMEOUT, against=against)
        running.console.send(f"{luks.PASSPHRASE}\n")
        check = boot_and_check(running, BOOT_TIMEOUT)
        lab.timeline.say(f"the machine in LUKS is at its login prompt: {check.cmdline}")
        switch_off(running)
    return check
