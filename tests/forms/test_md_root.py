"""A machine whose root lies on a mirror boots from two other disks on another controller, and from each of them alone.

Each disk of a mirror has a boot loader of its own, and the day it is needed is the day the other disk is gone. So does
each disk of a clone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core.units import MIB
from tests.boot.disk import read_table
from tests.boot.lab import Guest, blank_disk, guest
from tests.boot.machine import Controller, Drive, Machine
from tests.boot.moved_root import MovedRoot, compare_roots
from tests.boot.restoring import BOOT_TIMEOUT, Lab
from tests.boot.stack_disks import wipe
from tests.boot.system import BootCheck, Source, boot_and_check, switch_off
from tests.forms import md_source as md

#: The guest's disks: the repository, the source's two, its root; and the targets.
STORE, FIRST, SECOND, ROOT_IMAGE = "/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd"
TARGETS, SERIALS = ("/dev/nvme0n1", "/dev/nvme1n1"), ("LRFIRST", "LRSECOND")
RESTORE = (
    "liferaft restore mirror --repo /run/store/r --yes --progress text --boot bios "
    f"--target disk0={TARGETS[0]} --target disk1={TARGETS[1]}"
)


@dataclass(frozen=True)
class Mirrored:
    """The guest in which the machine was captured. ``identities``: what its tools said of it; files of the targets."""

    machine: Guest
    identities: str
    targets: tuple[Path, Path]


@pytest.fixture(scope="module")
def rooted(bios_source: Source, lab: Lab) -> MovedRoot:
    return md.md_source(bios_source, lab.runner)


@pytest.fixture(scope="module")
def mirrored(lab: Lab, rooted: MovedRoot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrored]:
    folder = tmp_path_factory.mktemp("mirrored")
    store, second = blank_disk(folder / "store.raw", 700 * MIB), blank_disk(folder / "second.raw", md.SIZE)
    targets = (blank_disk(folder / "nvme0.raw", md.SIZE), blank_disk(folder / "nvme1.raw", md.SIZE))
    shared = folder / "shared"
    shared.mkdir()
    disk = folder / "disk.raw"
    lab.runner.run(["cp", "--sparse=always", "--no-preserve=mode", str(rooted.disk), str(disk)])
    others = (
        Drive(disk, Controller.VIRTIO, "ONE"),
        Drive(second, Controller.VIRTIO, "TWO"),
        Drive(rooted.root, Controller.VIRTIO, "ROOT", readonly=True),
        *(Drive(path, Controller.NVME, serial) for path, serial in zip(targets, SERIALS, strict=True)),
    )
    with guest("mirrored", lab.medium("mirrored", ""), [store], shared, lab.runner, others=others) as machine:
        machine.check(f"mkfs.ext4 -q {STORE}; mkdir -p /run/store; mount {STORE} /run/store")
        machine.check(md.make_array(FIRST, SECOND, ROOT_IMAGE), 600)
        identities = machine.check(md.identities(FIRST, SECOND))
        said = machine.check(f"liferaft capture {FIRST} {SECOND} --repo /run/store/r --name mirror", 600)
        # GRUB's partitions alone, which is as it should be: all else is known.
        assert said.count("is captured whole") == 2, said
        # An array of the same UUID would stand in the way of every question.
        machine.check(wipe((FIRST.removeprefix("/dev/"), SECOND.removeprefix("/dev/"))))
        yield Mirrored(machine, identities, targets)
    for path in (store, second, disk, *targets):
        path.unlink()


def test_a_machine_with_its_root_on_a_mirror_boots_from_other_disks_and_from_each_alone(
    mirrored: Mirrored, rooted: MovedRoot, lab: Lab, bios_source: Source, work: Path
) -> None:
    machine = mirrored.machine
    restore(mirrored, "", lab)
    assert machine.check(md.identities(*TARGETS, "p")) == mirrored.identities
    offset = int(machine.check(md.data_offset(f"{TARGETS[0]}p{md.MEMBER}")))
    disks = []
    for path in mirrored.targets:
        disks.append(work / path.name)
        lab.runner.run(["cp", "--sparse=always", str(path), str(disks[-1])])
        member = read_table(disks[-1], lab.runner).partitions[md.MEMBER - 1]
        place = replace(member, start=member.start + offset, size=member.size - offset)
        differences = compare_roots(rooted, disks[-1], place, lab.runner)
        assert not differences, f"files on {path.name} differ: " + "; ".join(map(str, differences[:20]))

    first, second = (Drive(path, Controller.NVME, serial) for path, serial in zip(disks, SERIALS, strict=True))
    for name, drives in (("both", (first, second)), ("first", (first,)), ("second", (second,))):
        check = boot(f"mirrored-{name}", drives, bios_source, lab)
        was = bios_source.check
        for field in ("machine_id", "marker", "root_fstype", "firmware", "failed"):
            assert getattr(check, field) == getattr(was, field), f"{name}: {field}"
        assert check.root.startswith("/dev/md")
        assert check.root_uuid == md.ROOT_UUID


def test_a_clone_of_it_boots_from_its_second_disk_alone(
    mirrored: Mirrored, lab: Lab, bios_source: Source, work: Path
) -> None:
    """The loader of each disk looks for the array by its UUID, and the initramfs has it, too."""
    restore(mirrored, "--unique", lab)
    new = mirrored.machine.check(md.identities(*TARGETS, "p"))
    old = {line for line in mirrored.identities.splitlines() if "UUID" in line or "uuid" in line or '"id"' in line}
    # Of each disk the disk's, its partitions' and the array's; the root's.
    assert len(old) == 2 * 4 + 1 + 1
    assert not old & set(new.splitlines())
    words = mirrored.machine.check(md.search_words("p", *TARGETS))
    disk = work / "clone.raw"
    lab.runner.run(["cp", "--sparse=always", str(mirrored.targets[1]), str(disk)])
    check = boot("mirrored-clone", (Drive(disk, Controller.NVME, SERIALS[1]),), bios_source, lab)
    was = bios_source.check
    assert (check.marker, check.failed, check.root_fstype) == (was.marker, was.failed, was.root_fstype)
    assert check.machine_id != was.machine_id
    assert check.root_uuid != md.ROOT_UUID
    assert words.splitlines() == [f"search.fs_uuid {check.root_uuid} root"] * 2


def restore(mirrored: Mirrored, options: str, lab: Lab) -> None:
    """Onto both targets, whatever is on them."""
    said = mirrored.machine.check(f"{RESTORE} {options}", 1200)
    for line in said.splitlines():
        if line.strip().startswith(("boot:", "unique:")):
            lab.timeline.say(line.strip())
    assert "warning:" not in said


def boot(name: str, drives: tuple[Drive, ...], source: Source, lab: Lab) -> BootCheck:
    """Switch a machine on that has these disks alone."""
    with Machine(name, source.firmware, drives).run() as running:
        check = boot_and_check(running, BOOT_TIMEOUT)
        lab.timeline.say(f"{name} is at its login prompt: {check.cmdline}")
        switch_off(running)
    return check
