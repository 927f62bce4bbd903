"""Stacks that become smaller, through: XFS made anew on a logical volume, LUKS and what lies in it, a group left out.

In one guest, whose kernel has what this one lacks: each disk is made there, captured, wiped and restored onto a smaller
one. Judged by cryptsetup, LVM, sfdisk, blkid, the filesystems' checkers and the digests of all files; liferaft's own
word counts for nothing. In this ring because it takes minutes, and what it proves changes rarely.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from core.units import MIB
from tests.boot.lab import Answer, Guest, blank_disk, guest
from tests.boot.restoring import Lab
from tests.boot.stack_disks import wipe
from tests.forms.smaller_disks import (
    ENCRYPTED_PARTITIONS,
    EXT_IN_LUKS,
    FILL,
    FORMAT,
    KEPT,
    LARGE_SECTORS,
    LEFT_OUT,
    LVM_IN_LUKS,
    PREPARE,
    SIZES,
    XFS_ON_LVM,
    Case,
)


@dataclass(frozen=True)
class Told:
    """What the tools say of one disk; ``sizes`` in the order of ``Case.sizes``."""

    identities: str
    digests: str
    sizes: tuple[int, ...]
    table: dict[int, dict[str, Any]]


class Stacks:
    """The guest, and what is done with each disk."""

    def __init__(self, machine: Guest) -> None:
        self.machine = machine
        machine.check(PREPARE)

    def captured(self, case: Case) -> Told:
        """The disk is made, asked, captured and wiped."""
        disk = case.source
        self.machine.check(f"d=/dev/{disk}\n{FORMAT}\n{case.make}")
        for node in case.nodes(disk):
            self.machine.check(FILL.format(node=node))
        told = self.told(case, disk)
        self.machine.check(case.close)
        keys = "--luks-key /run/key" if case.containers else ""
        said = self.machine.check(f"liferaft capture /dev/{disk} --repo /run/store/r --name {case.name} {keys}")
        assert "captured whole" not in said
        self.machine.check(wipe((disk,)))
        return told

    def restore(self, case: Case, *options: str) -> Answer:
        """Onto the smaller disk; the key is that of the slot which did not open it at capture."""
        keys = "--luks-key /run/key2" if case.containers else ""
        command = f"liferaft restore {case.name} --repo /run/store/r --yes --progress text --target /dev/{case.target}"
        return self.machine.run(f"{command} {keys} {' '.join(options)}", 600)

    def restored(self, case: Case) -> Told:
        """What is on the smaller disk now: everything was closed, and every filesystem is sound."""
        left = self.machine.check(f"lsblk -nro TYPE /dev/{case.target}; ls /dev/mapper").split()
        assert set(left) <= {"disk", "part", "control"}
        self.machine.check(case.open(case.target))
        try:
            self.machine.check(case.checks(case.target))
            return self.told(case, case.target)
        finally:
            self.machine.run(case.close)

    def told(self, case: Case, disk: str) -> Told:
        """What the tools say of an opened disk."""
        return Told(
            identities=self.machine.check(case.identities(disk)),
            digests=self.machine.check(case.digests(disk)),
            sizes=tuple(map(int, self.machine.check(case.sizes(disk)).split())),
            table=self._table(disk),
        )

    def _table(self, disk: str) -> dict[int, dict[str, Any]]:
        """The partitions by number, as sfdisk tells them, without the node."""
        said = self.machine.run(f"sfdisk --json /dev/{disk} 2>/dev/null").output
        parts = json.loads(said)["partitiontable"].get("partitions", []) if said.strip() else []
        return {int(part.pop("node").removeprefix(f"/dev/{disk}")): part for part in parts}


@pytest.fixture(scope="module")
def stacks(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stacks]:
    folder = tmp_path_factory.mktemp("smaller")
    paths = [blank_disk(folder / f"{number}.raw", size) for number, size in enumerate(SIZES)]
    shared = folder / "shared"
    shared.mkdir()
    with guest("stack-smaller", lab.medium("stack-smaller", ""), paths, shared, lab.runner) as machine:
        yield Stacks(machine)
    for path in paths:
        path.unlink()


def test_xfs_on_a_logical_volume_is_made_anew_for_a_smaller_disk(stacks: Stacks) -> None:
    was = stacks.captured(XFS_ON_LVM)
    said = stacks.restore(XFS_ON_LVM, "--boot no", "--rule 1=keep")
    assert said.code == 0, said.output
    assert "make xfs of" in said.output
    now = stacks.restored(XFS_ON_LVM)
    assert (now.identities, now.digests) == (was.identities, was.digests)
    assert now.table[1] == was.table[1]
    assert now.table[2].keys() == was.table[2].keys()
    assert {**now.table[2], "size": 0} == {**was.table[2], "size": 0}
    assert now.sizes[0] == was.sizes[0]
    # 860 MiB of physical volume are 387 at most.
    assert 300 * MIB < now.sizes[1] < 387 * MIB


@pytest.mark.parametrize("case", [EXT_IN_LUKS, LVM_IN_LUKS], ids=lambda case: case.name)
def test_luks_of_an_odd_length_becomes_smaller_with_what_lies_in_it(stacks: Stacks, case: Case) -> None:
    """Over a whole disk, so that the new length is odd, too."""
    was = stacks.captured(case)
    said = stacks.restore(case, "--boot no")
    assert said.code == 0, said.output
    assert "make ext4 smaller" in said.output
    now = stacks.restored(case)
    assert (now.identities, now.digests) == (was.identities, was.digests)
    # All that cryptsetup's own header of 16 MiB leaves, to the sector.
    lengths = [SIZES[ord(disk[-1]) - ord("a")] - 16 * MIB for disk in (case.source, case.target)]
    assert [was.sizes[-1], now.sizes[-1]] == lengths
    assert all(length % 4096 for length in lengths)
    assert now.sizes[0] < was.sizes[0]


def test_luks_in_partitions_becomes_smaller_in_sectors_of_4096_and_of_an_odd_length(stacks: Stacks) -> None:
    case = ENCRYPTED_PARTITIONS
    was = stacks.captured(case)
    assert was.table[3]["size"] % 8 == 3
    said = stacks.restore(case, "--boot no", "--rule 1=keep")
    assert said.code == 0, said.output
    assert "make ext4 smaller" in said.output
    assert "make xfs of" in said.output
    now = stacks.restored(case)
    assert (now.identities, now.digests) == (was.identities, was.digests)
    assert now.table[1] == was.table[1]
    first, *others = now.sizes
    assert first == was.sizes[0]
    assert all(new < old for new, old in zip(others, was.sizes[1:], strict=True))
    for number in (2, 3):
        assert now.table[number]["size"] < was.table[number]["size"]
        assert now.table[number]["uuid"] == was.table[number]["uuid"]


def test_a_group_that_lies_on_a_partition_that_is_left_out_goes_with_it(stacks: Stacks) -> None:
    """To the end, which is boot repair: it finds a system whose fstab names what is not there."""
    whole = stacks.captured(LEFT_OUT)
    said = stacks.restore(LEFT_OUT, "--boot bios", "--rule 2=drop")
    assert said.code == 4, said.output
    assert "The volume group lone is left out with" in said.output
    assert "Found Stack Linux" in said.output
    assert "/srv (/dev/lone/data) of the system's fstab is not on the restored disks" in said.output
    now = stacks.restored(KEPT)
    assert sorted(now.table) == [1, 3]
    for number in (1, 3):
        assert {**now.table[number], "start": 0} == {**whole.table[number], "start": 0}
    # The group was asked before these filesystems, and what lay in it after them.
    assert now.identities in whole.identities
    assert whole.digests.startswith(now.digests)
    assert "lone" not in stacks.machine.check("vgs --noheadings -o vg_name; ls /dev").split()


def test_why_luks_of_large_sectors_does_not_go_to_a_disk_of_an_odd_length(stacks: Stacks) -> None:
    """Last, on blank disks: it is refused before anything is written, and what the plan says of the kernel is true."""
    case = LARGE_SECTORS
    stacks.machine.check(wipe((case.source, case.target)))
    stacks.captured(case)
    said = stacks.restore(case, "--boot no")
    assert said.code == 3, said.output
    assert "opens only on a device of whole ones" in said.output
    assert not stacks.machine.check(f"blkid -p /dev/{case.target} || true").strip()
    opened = stacks.machine.run(f"""
d=/dev/{case.target}
{FORMAT}
head -c 32M /dev/zero >/run/header
format /run/header 4096 unused
cryptsetup close unused
dd if=/run/header of=$d bs=1M count=16 conv=fsync status=none
rm /run/header
cryptsetup open --key-file /run/key $d large
""")
    assert opened.code != 0
    assert "large" not in stacks.machine.check("ls /dev/mapper").split()
    stacks.machine.check(f"""
truncate -s 100M /run/whole
dd if=/dev/{case.target} of=/run/whole bs=1M count=16 conv=notrunc status=none
cryptsetup open --key-file /run/key /run/whole large
cryptsetup close large
rm /run/whole
""")
