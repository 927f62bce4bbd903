"""The stack, through: RAID, LUKS and LVM are captured, wiped, made again with every identity, and grown.

In one guest, whose kernel has what this one lacks. Judged by mdadm, cryptsetup, LVM, blkid, the filesystems' checkers
and the digests of all files; liferaft's own word counts for nothing.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.units import MIB
from tests.boot import stack_disks as disks
from tests.boot.lab import Guest, blank_disk, guest
from tests.boot.lvm_source import (
    IDENTITIES,
    ROOT,
    ROOT_OFFSET,
    ROOT_SIZE,
    ROOT_UUID,
    SMALLER,
    SWAP_UUID,
    compare_lvm_roots,
    lvm_source,
    make_group,
)
from tests.boot.machine import Controller, Drive, Machine
from tests.boot.moved_root import MovedRoot
from tests.boot.restoring import BOOT_TIMEOUT, TARGET_SERIAL, Lab
from tests.boot.system import Source, boot_and_check, switch_off

pytestmark = pytest.mark.thorough


class Stack:
    """The guest with a captured stack, and what its own tools said of it before. ``nvme``: its NVMe disk as a file."""

    def __init__(self, machine: Guest, nvme: Path) -> None:
        self.machine = machine
        self.nvme = nvme
        machine.check(disks.MAKE)
        self.identities = machine.check(disks.IDENTITIES)
        self.digests = machine.check(disks.DIGESTS)
        self.space = machine.check(disks.SPACE).split()
        machine.check(disks.CLOSE)
        sources = " ".join(f"/dev/{disk}" for disk in disks.PAIR + disks.TRIPLE)
        self.said = machine.check(
            f"liferaft capture {sources} --repo /run/store/r --name stack --luks-key /run/wrong --luks-key /run/key"
        )

    def restored(self) -> tuple[str, str]:
        """Identities and digests as they are now; every filesystem is sound."""
        self.machine.check(disks.OPEN)
        try:
            self.machine.check(disks.CHECK)
            return self.machine.check(disks.IDENTITIES), self.machine.check(disks.DIGESTS)
        finally:
            self.machine.run(disks.CLOSE)


@pytest.fixture(scope="module")
def rooted(bios_source: Source, lab: Lab) -> MovedRoot:
    return lvm_source(bios_source, lab.runner)


@pytest.fixture(scope="module")
def stack(lab: Lab, rooted: MovedRoot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    paths = [blank_disk(folder / f"{number}.raw", size * MIB) for number, size in enumerate(disks.SIZES)]
    shared = folder / "shared"
    shared.mkdir()
    disk, nvme = folder / "lvm.raw", blank_disk(folder / "nvme.raw", SMALLER)
    lab.runner.run(["cp", "--sparse=always", "--no-preserve=mode", str(rooted.disk), str(disk)])
    others = (
        Drive(disk, Controller.VIRTIO, "LVMDISK"),
        Drive(rooted.root, Controller.VIRTIO, "LVMROOT", readonly=True),
        Drive(nvme, Controller.NVME, TARGET_SERIAL),
    )
    with guest("stack", lab.medium("stack", ""), paths, shared, lab.runner, others=others) as machine:
        yield Stack(machine, nvme)
    for path in (*paths, disk, nvme):
        path.unlink()


def test_capture_stores_what_is_in_the_volumes_and_closes_what_it_opened(stack: Stack) -> None:
    assert "captured whole" not in stack.said
    # 700 MiB of stack were read as used blocks; five copies of some 4 MiB of files, and the LUKS header.
    stored = stack.machine.check("du -sm /run/store/r").split()[0]
    assert int(stored) < 120
    left = stack.machine.check("lsblk -nro TYPE /dev/vda /dev/vdb /dev/vdc; ls /dev/mapper").split()
    assert sorted(set(left)) == ["control", "disk", "part"]


def test_a_wrong_key_is_found_before_anything_is_written(stack: Stack) -> None:
    before = stack.machine.check("sha256sum /dev/vda /dev/vdc")
    said = stack.machine.run(
        disks.restore(disks.PAIR + disks.TRIPLE, "--onto-source", "--boot no", "--luks-key /run/wrong")
    )
    assert said.code == 3
    assert "none of the 1 keys" in said.output
    assert stack.machine.check("sha256sum /dev/vda /dev/vdc") == before


def test_the_stack_comes_back_with_every_identity(stack: Stack) -> None:
    targets = disks.PAIR + disks.TRIPLE
    stack.machine.check(disks.wipe(targets))
    # The key slot that did not open it at capture: all slots come back.
    said = stack.machine.check(disks.plan_and_restore(targets, "--onto-source --boot no", "--luks-key /run/key2"), 600)
    estimate, report = (json.loads(line) for line in said.splitlines() if line.startswith("{"))
    # An emulated machine is slow: above the least, and not so far below the most that nobody could plan by it.
    assert estimate["total"]["low"] <= report["seconds"]
    assert estimate["total"]["high"] <= 20 * report["seconds"]
    assert estimate["written"] == report["written"]
    identities, digests = stack.restored()
    assert identities == stack.identities
    assert digests == stack.digests


#: As mdadm, LVM and everybody else spell a UUID.
_UUID = re.compile(
    r"\b([0-9a-f]{8}(:[0-9a-f]{8}){3}|\w{6}(-\w{4}){5}-\w{6}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\b"
)


def _known(identities: str) -> tuple[set[str], list[str]]:
    """The UUIDs in what the layers' tools say, and the rest of it.

    How often a LUKS header was written (its epoch) is no identity: once more, for its UUID.
    """
    lines = [line for line in _UUID.sub("", identities).splitlines() if not line.startswith("Epoch:")]
    return {match[0] for match in _UUID.finditer(identities)}, sorted(lines)


def _by_path(digests: str) -> dict[str, str]:
    return {path: digest for digest, path in (line.split(maxsplit=1) for line in digests.splitlines())}


def test_a_clone_of_the_stack_grows_onto_larger_disks(stack: Stack) -> None:
    """After the other restore: the source's disks are blank, so that nothing of them is taken for the clone's.

    The rescue system has a folder of the name of a group; a rule says which volume of the other takes the room.
    """
    stack.machine.check(disks.wipe(disks.PAIR + disks.TRIPLE))
    stack.machine.check("mkdir /dev/vg1; touch /dev/vg1/thing")
    targets = disks.LARGER_PAIR + disks.LARGER_TRIPLE
    options = ("--unique", "--grow-all", "--rule vg-0/xfs=grow", "--boot bios", "--luks-key /run/key")
    answer = stack.machine.run(disks.restore(targets, *options), 600)
    # The root has no boot loader: boot repair found it on its volume, with all that its fstab names, and says so.
    assert answer.code == 4, answer.output
    assert "Found Stack Linux" in answer.output
    assert "is not on this disk" not in answer.output
    assert "no GRUB for BIOS" in answer.output
    identities, digests = stack.restored()
    (new, rest), (old, was_rest) = _known(identities), _known(stack.identities)
    # Two arrays, a container, two groups on three physical volumes, their volumes, and what lies on those.
    assert len(new) == len(old) > 15
    assert not new & old
    assert rest == was_rest
    files, before = _by_path(digests), _by_path(stack.digests)
    rewritten = {path for path in files.keys() | before.keys() if files.get(path) != before.get(path)}
    assert rewritten == {"vg-0/root/etc/crypttab", "vg-0/root/etc/mdadm.conf"}
    stack.machine.check(disks.OPEN)
    stack.machine.check(disks.REFERENCES)
    space = dict(zip(disks.FILESYSTEMS, map(int, stack.machine.check(disks.SPACE).split()), strict=True))
    stack.machine.check(disks.CLOSE)
    was = dict(zip(disks.FILESYSTEMS, map(int, stack.space), strict=True))
    grown = {name for name in was if space[name] > was[name]}
    # The array over whole disks grows, too; of the group with the rule no other volume.
    assert grown == {"vg-0/xfs", "vg1/striped", "md/five"}


def test_arrays_come_back_without_a_disk_each_and_take_others_in(stack: Stack) -> None:
    """In the end nothing is read but what md itself has put onto disks that were added as the plan says."""
    machine = stack.machine
    machine.check(disks.wipe(disks.PAIR + disks.TRIPLE + disks.LARGER_PAIR + disks.LARGER_TRIPLE))
    targets = " ".join(f"--target {source}=/dev/{target}" for source, target in disks.WITHOUT.items())
    command = f"liferaft restore stack --repo /run/store/r --yes --progress text {targets} {disks.LEFT_OUT} --boot no"
    said = machine.run(f"{command} --luks-key /run/key")
    assert said.code == 3, said.output
    reasons = [line for line in said.output.splitlines() if line.startswith("  - the array")]
    assert [reason.endswith("(--degraded makes it without)") for reason in reasons] == [True, True]
    said = machine.run(f"{command} --luks-key /run/key --degraded", 600)
    # Somebody has to add disks.
    assert said.code == 4, said.output
    told = " ".join(said.output.split())
    assert told.count("has NO redundancy until others take their places") == 2
    assert "mdadm --manage /dev/md/five --add DEVICE" in told
    assert told.count("lacks 1 member, as the plan says") == 2
    before = {path: digest for path, digest in _by_path(stack.digests).items() if not path.startswith("vg1/")}
    machine.check(disks.OPEN_LEFT)
    try:
        machine.check(disks.CHECK_LEFT)
        found = machine.check(disks.IDENTITIES.replace(" vg1/striped", ""))
        arrays = [line for line in stack.identities.splitlines() if line.startswith("MD_")]
        assert [line for line in found.splitlines() if line.startswith("MD_")] == arrays
        state = machine.check(disks.STATES.format(arrays="/dev/md/root /dev/md/five"))
        assert state.count("degraded") == 2
        assert _by_path(machine.check(disks.DIGESTS_LEFT)) == before
        assert "degraded" not in machine.check(disks.ADD)
        machine.check(disks.TAKE_AWAY)
        machine.check(disks.CHECK_LEFT)
        assert _by_path(machine.check(disks.DIGESTS_LEFT)) == before
    finally:
        machine.run(disks.CLOSE_LEFT)


def test_raid_6_and_10_come_back_without_a_disk_and_start_again_at_once(stack: Stack) -> None:
    """As a machine does that is restarted after its restore: md has reckoned next to nothing until then."""
    machine = stack.machine
    machine.check(disks.wipe((*disks.LARGER_PAIR, *disks.LARGER_TRIPLE, *disks.TRIPLE)))
    machine.check(disks.MAKE_FOUR)
    before = machine.check(disks.DIGESTS_FOUR)
    machine.check("mdadm --stop --scan --quiet")
    sources = " ".join(f"/dev/{disk}" for disk in disks.FOUR)
    machine.check(f"liferaft capture {sources} --repo /run/store/r --name four")
    machine.check(disks.wipe(disks.FOUR))
    machine.check(disks.SLOWLY)
    targets = " ".join(f"--target disk{number}=/dev/{disk}" for number, disk in enumerate(disks.TRIPLE))
    said = machine.run(
        f"liferaft restore four --repo /run/store/r --yes --progress text --onto-source --boot no {targets} "
        "--skip disk3 --degraded",
        600,
    )
    assert said.code == 4, said.output
    told = " ".join(said.output.split())
    assert "and has less redundancy until" in told
    assert "and has NO redundancy until" in told
    machine.check("mdadm --assemble --scan --config=partitions --quiet; udevadm settle")
    try:
        state = machine.check(disks.STATES.format(arrays="/dev/md/six"))
        assert "degraded" in state
        assert "spare rebuilding" in machine.check("mdadm --detail /dev/md/six")
        assert machine.check(disks.DIGESTS_FOUR) == before
        # Until somebody writes, md only reads.
        machine.check(f"{disks.QUICKLY}\nmdadm --readwrite /dev/md/six\nmdadm --wait /dev/md/six || true")
        state = machine.check(disks.STATES.format(arrays="/dev/md/six /dev/md/ten"))
        assert "recovering" not in state and state.count("degraded") == 2
        assert "rebuilding" not in machine.check("mdadm --detail /dev/md/six")
        # It is short of one of four, and does without another one.
        machine.check("mdadm --manage /dev/md/six --fail /dev/vdc1")
        machine.check(disks.CHECK_FOUR)
        assert machine.check(disks.DIGESTS_FOUR) == before
    finally:
        machine.run("mdadm --stop --scan --quiet")
        machine.run(disks.QUICKLY)


def test_a_machine_with_its_root_on_lvm_boots_from_a_smaller_disk_on_another_controller(
    stack: Stack, rooted: MovedRoot, lab: Lab, bios_source: Source, work: Path
) -> None:
    """A Debian as its installer lays it out: its root is made smaller with its group, and boot repair puts NVMe in."""
    machine = stack.machine
    machine.check(make_group("/dev/vdl2", "/dev/vdm"))
    before = machine.check(IDENTITIES.format(part="/dev/vdl2"))
    machine.check("liferaft capture /dev/vdl --repo /run/store/r --name lvm", 600)
    # A group of the same name and UUID would stand in the way of every question.
    machine.check(disks.wipe(("vdl",)))
    command = "liferaft restore lvm --repo /run/store/r --yes --progress text --target /dev/nvme0n1 --boot bios"
    said = machine.check(command, 900)
    for line in said.splitlines():
        if line.strip().startswith("boot:"):
            lab.timeline.say(line.strip())
    assert "lvm0-root: make ext4 smaller" in said
    part = "/dev/nvme0n1p2"
    assert machine.check(IDENTITIES.format(part=part)) == before
    offset = int(machine.check(ROOT_OFFSET.format(part=part)))
    machine.check("sync; blockdev --flushbufs /dev/nvme0n1")

    target = work / "lvm.raw"
    lab.runner.run(["cp", "--sparse=always", str(stack.nvme), str(target)])
    differences = compare_lvm_roots(rooted, target, offset, lab.runner)
    assert not differences, "files differ: " + "; ".join(map(str, differences[:20]))
    drives = (Drive(target, Controller.NVME, TARGET_SERIAL),)
    with Machine("lvm-restored", bios_source.firmware, drives).run() as running:
        check = boot_and_check(running, BOOT_TIMEOUT)
        lab.timeline.say(f"the machine on LVM is at its login prompt: {check.cmdline}")
        switch_off(running)
    was = bios_source.check
    for name in ("machine_id", "marker", "root_fstype", "firmware", "failed"):
        assert getattr(check, name) == getattr(was, name), name
    assert (check.root, check.root_uuid, check.swaps.strip()) == (ROOT, ROOT_UUID, SWAP_UUID)
    assert check.root_size < ROOT_SIZE * 70 // 100


def test_why_raid_0_of_the_oldest_format_is_refused(stack: Stack) -> None:
    """Last, on blank disks: what the plan says of mdadm is true."""
    stack.machine.check(disks.wipe(disks.PAIR))
    said = stack.machine.run(
        "mdadm --create /dev/md/old --run --metadata=0.90 --level=0 --raid-devices=2 /dev/vda /dev/vdb"
    )
    assert said.code != 0
    assert "layout" in said.output
