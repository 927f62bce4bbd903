"""The plan as text: against a page written by hand, and what may never happen on a screen of 80 columns."""

import time
from uuid import UUID

import msgspec

from core.units import GIB, MIB
from images.model.layout import (
    DiskIdentity,
    Filesystem,
    FilesystemKind,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from images.model.machine import Occupant
from images.model.stack import Array, ArrayMember
from restore.plan.estimate import Estimate, Rate, Seconds, Work
from restore.plan.plan import Plan, TargetDisk
from restore.plan.render import render
from restore.plan.steps import CreateArray, CreateTable, GrowFilesystem, RestoreVolume, VerifyVolume, WipeSignatures

PAGE = """\
Plan {digest}
  restore  web01, taken 2026-11-20 08:00:00 UTC (aaaaaaaaaaaa)
  from     /backup

Target for disk0: SSD serial S1, 1.00 GiB
  EVERYTHING ON IT WILL BE LOST. It holds now:
    |1 ntfs ===========================|.................................|
      # holds        name                      from          to        size
      1 ntfs         "Windows"             1.00 MiB  513.00 MiB  512.00 MiB
    lvm vg-root ext4 1.00 GiB
  It will become, as gpt 00000000-0000-0000-0000-000000000001:
    |1 vfat |2 ext4 =====================================================|
      # holds        name                      from          to        size
      1 vfat         "EFI"                 1.00 MiB  101.00 MiB  100.00 MiB
      2 ext4         "root"              101.00 MiB 1023.00 MiB  922.00 MiB
        was 101.00 MiB to 501.00 MiB, 400.00 MiB; written as captured; grown
        to its partition
  Left out:
      3 swap                             501.00 MiB  512.00 MiB   11.00 MiB

Steps
   1. disk0: wipe old signatures in 0 places                           0-3 s
   2. disk0: create the gpt table with 2 partitions                below 1 s
   3. disk0-part1: write 50.00 MiB                                    1-40 s
   4. disk0-part2: write 300.00 MiB and 10.00 MiB of zeros
                                                    1 min 01 s to 2 h 00 min
   5. disk0-part2: read back and compare with the recovery point       1-2 s
   6. disk0: grow ext4 in partition 2 to 922.00 MiB                    1-2 s

Time, estimated: 1 min 05 s to 2 h 01 min
  reads 200.00 MiB from the repository, writes 350.00 MiB and 10.00 MiB of
    zeros, reads back 310.00 MiB
  repository      100.00 MiB/s, measured now on 64.00 MiB
  writing disk0   410.00 MiB/s, reached in the restore of 2026-11-20

Notes
  - A note that is longer than the line has room for is wrapped, and goes on
    further to the right.
"""


def partition(number: int, start: int, size: int, kind: FilesystemKind, label: str) -> Partition:
    """Start and size in MiB."""
    return Partition(
        id=f"disk0-part{number}",
        number=number,
        start_lba=start * 2048,
        sector_count=size * 2048,
        type="",
        role=PartitionRole.PRIMARY,
        uuid=UUID(int=number),
        filesystem=Filesystem(kind=kind, detail="vfat" if kind is FilesystemKind.FAT32 else "", label=label),
    )


def a_plan() -> Plan:
    table = PartitionTable(
        kind=TableKind.GPT,
        identifier=str(UUID(int=1)),
        partitions=(
            partition(1, 1, 100, FilesystemKind.FAT32, "EFI"),
            partition(2, 101, 922, FilesystemKind.EXT4, "root"),
        ),
    )
    captured = (
        Occupant(number=1, offset=MIB, size=100 * MIB, kind="vfat", label="EFI", id="disk0-part1"),
        Occupant(number=2, offset=101 * MIB, size=400 * MIB, kind="ext4", label="root", id="disk0-part2"),
        Occupant(number=3, offset=501 * MIB, size=11 * MIB, kind="swap", id="disk0-part3"),
    )
    target = TargetDisk(
        source="disk0",
        identity=DiskIdentity(serial="S1", model="SSD"),
        file="",
        size=GIB,
        sector_size=512,
        destroys=('partition 1 ntfs "Windows" 512.00 MiB', "lvm vg-root ext4 1.00 GiB"),
        holds=(Occupant(number=1, offset=MIB, size=512 * MIB, kind="ntfs", label="Windows"),),
        captured_size=512 * MIB,
        captured=captured,
    )
    big = 101 * MIB
    steps = (
        WipeSignatures(disk="disk0", extents=()),
        CreateTable(disk="disk0", table=table),
        RestoreVolume(disk="disk0", volume="disk0-part1", offset=MIB, size=100 * MIB, data=50 * MIB, zero=0),
        RestoreVolume(disk="disk0", volume="disk0-part2", offset=big, size=400 * MIB, data=300 * MIB, zero=10 * MIB),
        VerifyVolume(disk="disk0", volume="disk0-part2", offset=big, size=400 * MIB),
        GrowFilesystem(disk="disk0", number=2, kind=FilesystemKind.EXT4, size=922 * MIB),
    )
    spans = (
        Seconds(0, 3),
        Seconds(0.2, 0.9),
        Seconds(1, 40),
        Seconds(61, 7200),
        Seconds(1, 2),
        Seconds(1, 2),
    )
    rates = (
        Rate(work=Work.FETCH, low=1, high=2, basis="100.00 MiB/s, measured now on 64.00 MiB"),
        Rate(work=Work.WRITE, disk="disk0", low=1, high=2, basis="410.00 MiB/s, reached in the restore of 2026-11-20"),
    )
    return Plan(
        recovery_point="a" * 64,
        name="web01",
        created="2026-11-20T08:00:00+00:00",
        repository="/backup",
        targets=(target,),
        steps=steps,
        notes=("A note that is longer than the line has room for is wrapped, and goes on further to the right.",),
        estimate=Estimate(
            steps=spans,
            total=Seconds(65, 7260),
            stored=200 * MIB,
            written=350 * MIB,
            zeroed=10 * MIB,
            read_back=310 * MIB,
            rates=rates,
        ),
    )


def test_the_page_by_hand() -> None:
    plan = a_plan()
    assert render(plan) == PAGE.format(digest=plan.digest)


def test_members_of_an_array_are_not_said_to_stay_empty() -> None:
    plan = a_plan()
    array = Array(
        id="md0",
        uuid="u",
        name="",
        level=1,
        metadata="1.2",
        slots=2,
        members=(ArrayMember(device="disk0-part2", slot=0), ArrayMember(device="disk1", slot=1)),
        size=GIB,
    )
    whole = msgspec.structs.replace(plan.targets[0], source="disk1", captured=())
    steps = (*plan.steps[:2], CreateArray(disk="md0", array=array))
    text = render(msgspec.structs.replace(plan, targets=(plan.targets[0], whole), steps=steps, estimate=None))
    assert "a part of md0, whose content comes with it" in " ".join(text.split())
    _, first, second = text.split("It will become")
    assert "becomes a part of md0" in first
    # What is no partition and holds no filesystem is not drawn as free space.
    assert second.split("Steps")[0].splitlines()[1].strip() == "a part of md0, whose content comes with it"
    assert first.count("made, nothing is put in") == 1, "the ESP, for which this plan has no step"


class Ritual(WipeSignatures, frozen=True, kw_only=True, tag="secret-ritual"):
    """A step that another module brought."""

    number: int = 2

    def describe(self) -> str:
        return f"{self.disk}: \x1b[31mdance around partition {self.number}"


def test_a_step_that_is_not_known_here_is_shown_by_what_it_says() -> None:
    plan = a_plan()
    text = render(msgspec.structs.replace(plan, steps=(*plan.steps, Ritual(disk="disk0", extents=()))))  # type: ignore[arg-type]
    assert "   7. disk0: ?[31mdance around partition 2" in text
    assert "secret ritual" in text


def test_names_from_disks_cannot_move_the_cursor() -> None:
    odd = "\x1b]0;x\x07\u202e\n\r" * 9
    plan = a_plan()
    target = msgspec.structs.replace(
        plan.targets[0], identity=DiskIdentity(model=odd, serial=odd), destroys=(odd,), holds=()
    )
    text = render(msgspec.structs.replace(plan, name=odd, targets=(target,), notes=(odd,)))
    assert all(line.isprintable() for line in text.splitlines())


def test_eight_disks_of_32_partitions_are_drawn_in_no_time() -> None:
    plan = a_plan()
    table = PartitionTable(
        kind=TableKind.GPT,
        identifier="x",
        partitions=tuple(partition(number, number * 20, 20, FilesystemKind.EXT4, "x") for number in range(1, 33)),
    )
    targets, steps = [], []
    for number in range(8):
        name = f"disk{number}"
        targets.append(msgspec.structs.replace(plan.targets[0], source=name))
        steps.append(CreateTable(disk=name, table=table))
        steps += [
            RestoreVolume(disk=name, volume=f"{name}-part{part}", offset=0, size=1, data=1, zero=0)
            for part in range(1, 33)
        ]
    large = msgspec.structs.replace(plan, targets=tuple(targets), steps=tuple(steps), estimate=None)
    started = time.process_time()
    text = render(large)
    assert time.process_time() - started < 0.5
    assert max(len(line) for line in text.splitlines()) <= 76
