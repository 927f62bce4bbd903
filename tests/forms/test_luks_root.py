"""A machine whose root lies in LUKS boots from a smaller disk on another controller, and asks for its passphrase.

So does a clone of it with identities of its own, the original's disk beside it. Captured with its passphrase as a disk
of another machine, the way a rescue system does it: nobody has told liferaft what the system calls its container. Its
initramfs is made again, for the controller. Its LVM looks at the devices of its list alone.
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

#: The guest's disks: the repository, one for a decrypted root, the source, its root; and the targets.
STORE, DECRYPTED, SOURCE, ROOT_IMAGE, TARGET = "/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd", "/dev/nvme0n1"
CLONE, CLONE_SERIAL = "/dev/nvme1n1", "LRCLONE"
SOURCE_PART, TARGET_PART = f"{SOURCE}{luks.PART}", f"{TARGET}p{luks.PART}"
RESTORE = (
    "liferaft restore sealed --repo /run/store/r --yes --progress text --boot bios "
    "--luks-passphrase-file /run/passphrase --target "
)
PROMPT = f"Please unlock disk {luks.MAPPING}: "


@dataclass(frozen=True)
class Sealed:
    """The guest in which the machine was captured.

    Attributes:
        identities: what its tools said of it; ``all_identities``: every one, and nothing else.
        decrypted, target, clone: files of its disks.
    """

    machine: Guest
    identities: str
    all_identities: tuple[str, ...]
    decrypted: Path
    target: Path
    clone: Path


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
    clone = blank_disk(folder / "clone.raw", luks.SIZE)
    lab.runner.run(["cp", "--sparse=always", "--no-preserve=mode", str(rooted.disk), str(disk)])
    others = (
        Drive(disk, Controller.VIRTIO, "SEALED"),
        Drive(rooted.root, Controller.VIRTIO, "ROOT", readonly=True),
        Drive(target, Controller.NVME, TARGET_SERIAL),
        Drive(clone, Controller.NVME, CLONE_SERIAL),
    )
    with guest("sealed", lab.medium("sealed", ""), [store, decrypted], shared, lab.runner, others=others) as machine:
        machine.check(f"mkfs.ext4 -q {STORE}; mkdir -p /run/store; mount {STORE} /run/store")
        machine.check(luks.make_container(SOURCE, ROOT_IMAGE), 600)
        identities = machine.check(luks.identities(SOURCE_PART))
        known = tuple(machine.check(luks.all_identities(SOURCE)).split())
        command = f"liferaft capture {SOURCE} --repo /run/store/r --name sealed --luks-passphrase-file /run/passphrase"
        said = machine.check(command, 600)
        assert "captured whole" not in said
        # A container and a group of the same UUIDs would stand in the way of every question.
        machine.check(wipe((SOURCE.removeprefix("/dev/"),)))
        yield Sealed(machine, identities, known, decrypted, target, clone)
    for path in (store, decrypted, disk, target, clone):
        path.unlink()


@pytest.fixture(scope="module")
def restored(sealed: Sealed, lab: Lab) -> str:
    """What was said when the machine was restored to the smaller disk."""
    return _restore(sealed, TARGET, lab)


def _restore(sealed: Sealed, options: str, lab: Lab) -> str:
    said = sealed.machine.check(f"{RESTORE}{options}", 900)
    for line in said.splitlines():
        if line.strip().startswith(("boot:", "unique:")):
            lab.timeline.say(line.strip())
    return said


def test_a_machine_with_its_root_in_luks_boots_from_a_smaller_disk_on_another_controller(
    sealed: Sealed, restored: str, rooted: MovedRoot, lab: Lab, bios_source: Source, work: Path
) -> None:
    machine = sealed.machine
    assert "make ext4 smaller" in restored
    # The header, bit for bit, and all that lies in it.
    assert machine.check(luks.identities(TARGET_PART)) == sealed.identities
    size = int(machine.check(luks.copy_root(TARGET_PART, DECRYPTED)))
    assert size < luks.ROOT_SIZE * 4 // 5
    place = Partition(number=0, start=0, size=size, type="", uuid="", name="", attrs="", bootable=False)
    differences = compare_roots(rooted, sealed.decrypted, place, lab.runner)
    assert not differences, "files differ: " + "; ".join(map(str, differences[:20]))

    target = work / "sealed.raw"
    lab.runner.run(["cp", "--sparse=always", str(sealed.target), str(target)])
    check = boot("sealed-restored", (Drive(target, Controller.NVME, TARGET_SERIAL),), bios_source, lab)
    was = bios_source.check
    for name in ("machine_id", "marker", "root_fstype", "firmware", "failed"):
        assert getattr(check, name) == getattr(was, name), name
    assert (check.root, check.root_uuid, check.swaps.strip()) == (ROOT, luks.ROOT_UUID, SWAP_UUID)
    assert check.root_size < luks.ROOT_SIZE * 4 // 5


def test_a_clone_of_it_boots_beside_the_original_as_another_machine(
    sealed: Sealed, restored: str, lab: Lab, bios_source: Source, work: Path
) -> None:
    machine, old = sealed.machine, sealed.all_identities
    said = _restore(sealed, f"{CLONE} --unique", lab)
    assert "warning:" not in said
    # Disk, /boot, container, group, physical volume, two logical ones, and what lies on them.
    new = tuple(machine.check(luks.all_identities(CLONE, "p")).split())
    assert len(set(old) | set(new)) == 2 * len(old) == 2 * len(new) == 18
    host_key = luks.HOST_KEY["ssh_host_ed25519_key.pub"].split()[1]
    was = bios_source.check
    # LVM's and device-mapper's way to write them, and the source's own identities beside its disk's.
    words = (*old, *(word.replace("-", "") for word in old), was.machine_id, host_key)
    seen, _, left = machine.check(luks.old_left(CLONE, words, "p"), 600).partition("left:")
    assert seen.count("system.devices") == 2, seen
    assert seen.count("crypttab") == 2, seen
    assert not left.split()

    original, clone = work / "original.raw", work / "clone.raw"
    for path, disk in ((sealed.target, original), (sealed.clone, clone)):
        lab.runner.run(["cp", "--sparse=always", str(path), str(disk)])
    drives = (Drive(clone, Controller.NVME, CLONE_SERIAL), Drive(original, Controller.NVME, TARGET_SERIAL))
    check = boot("sealed-clone", drives, bios_source, lab)
    lab.runner.run(["cmp", str(sealed.target), str(original)])
    assert (check.marker, check.failed, check.root) == (was.marker, was.failed, ROOT)
    assert check.machine_id != was.machine_id
    assert {check.root_uuid, check.swaps.strip()} <= set(new)


def boot(name: str, drives: tuple[Drive, ...], source: Source, lab: Lab) -> BootCheck:
    """Switch a machine on that has these disks alone, and type the passphrase where it is asked for, once."""
    with Machine(name, source.firmware, drives).run() as running:
        against = "ALERT!|Gave up waiting|Kernel panic|grub rescue>|login: "
        running.console.expect(PROMPT, BOOT_TIMEOUT, against=against)
        running.console.send(f"{luks.PASSPHRASE}\n")
        check = boot_and_check(running, BOOT_TIMEOUT)
        lab.timeline.say(f"{name} is at its login prompt: {check.cmdline}")
        assert running.console.text.count(PROMPT) == 1
        switch_off(running)
    return check
