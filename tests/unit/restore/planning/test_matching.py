"""Matching: scores by hand, the best assignment against brute force, and that no order decides."""

import time
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.units import GIB
from images.model.layout import Disk, DiskIdentity, Partition, PartitionRole, PartitionTable, TableKind
from images.model.machine import MachineDisk, Occupant
from restore.planning.assignment import IMPOSSIBLE, assign
from restore.planning.matching import Matching, match, same_disks, score_lines
from restore.target.candidates import Candidate


def disk(number: int, size: int, **identity: str) -> Disk:
    return Disk(id=f"disk{number}", identity=DiskIdentity(**identity), size=size, sector_size=512)


def target(node: str, size: int, **identity: str) -> Candidate:
    return Candidate(
        node=node, file="", identity=DiskIdentity(**identity), size=size, sector_size=512, contents=(), obstacles=()
    )


def least(disk: Disk) -> int:
    return disk.size // 2


def nodes(found: Matching) -> dict[str, str]:
    return {pair.disk: pair.candidate.node for pair in found.pairs}


def points(found: Matching) -> dict[tuple[str, str], int]:
    return {(score.disk, score.node): score.points for score in found.scores}


def test_the_same_machine_finds_its_disks_again_under_other_names() -> None:
    disks = [disk(0, 100 * GIB, wwn="w0", serial="S0", model="M"), disk(1, 100 * GIB, wwn="w1", serial="S1", model="M")]
    found = match(
        disks,
        [
            target("/dev/sda", 100 * GIB, wwn="w1", serial="S1", model="M"),
            target("/dev/sdb", 100 * GIB, wwn="w0", serial="S0", model="M"),
        ],
        least=least,
    )
    assert nodes(found) == {"disk0": "/dev/sdb", "disk1": "/dev/sda"}
    assert found.doubts == ()
    # 100 for the WWN, 15 for the model, 25 for the size, 5 for the sector size.
    assert points(found)["disk0", "/dev/sdb"] == 145
    # Another WWN: the serial number is not even looked at.
    assert points(found)["disk0", "/dev/sda"] == 45


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (target("/dev/a", 10 * GIB, serial="S", model="M"), 80 + 15 + 25 + 5),
        (target("/dev/a", 10 * GIB, serial="S", model="X"), 60 + 25 + 5),
        (target("/dev/a", 10 * GIB, serial="T", model="M", transport="sata"), 15 + 5 + 25 + 5),
        (target("/dev/a", 10 * GIB + GIB // 16), 15 + 5),
        (target("/dev/a", 20 * GIB), 8 + 5),
        (target("/dev/a", 21 * GIB), 2 + 5),
        (target("/dev/a", 6 * GIB), 4 + 5),
        (msgspec.structs.replace(target("/dev/a", 10 * GIB), sector_size=4096), 25),
        (msgspec.structs.replace(target("/dev/a", 10 * GIB), removable=True), 25 + 5 - 30),
    ],
)
def test_points(candidate: Candidate, expected: int) -> None:
    source = disk(0, 10 * GIB, serial="S", model="M", transport="sata")
    found = match([source], [candidate], least=least)
    assert points(found)["disk0", "/dev/a"] == expected


def test_the_boot_disk_goes_to_the_boot_disk() -> None:
    esp = Partition(id="p", number=1, start_lba=2048, sector_count=8, type="", role=PartitionRole.ESP)
    table = PartitionTable(kind=TableKind.GPT, identifier="", partitions=(esp,))
    source = msgspec.structs.replace(disk(0, GIB), table=table)
    boots = Occupant(number=1, offset=0, size=1, boots=True)
    found = match(
        [source],
        [target("/dev/a", GIB), msgspec.structs.replace(target("/dev/b", GIB), occupants=(boots,))],
        least=least,
        threshold=0,
    )
    assert nodes(found) == {"disk0": "/dev/b"}


def test_a_stick_that_was_captured_goes_to_a_stick() -> None:
    was = MachineDisk(
        node="/dev/sdz",
        identity=DiskIdentity(serial="U"),
        size=GIB,
        sector_size=512,
        physical_sector_size=512,
        removable=True,
    )
    stick = msgspec.structs.replace(target("/dev/b", GIB), removable=True)
    found = match([disk(0, GIB, serial="U")], [target("/dev/a", GIB), stick], least=least, captured=[was], threshold=0)
    assert nodes(found) == {"disk0": "/dev/b"}


def test_a_target_that_is_too_small_is_none() -> None:
    found = match([disk(0, 10 * GIB, serial="S")], [target("/dev/a", 4 * GIB, serial="S")], least=least)
    assert found.pairs == ()
    assert found.doubts == ("no possible target can take disk0",)
    assert "too small: it has 4.00 GiB, 5.00 GiB are needed" in next(score_lines(found.scores))


def test_one_large_target_for_two_large_disks() -> None:
    found = match(
        [disk(0, 10 * GIB), disk(1, 10 * GIB)], [target("/dev/a", 10 * GIB), target("/dev/b", GIB)], least=least
    )
    assert found.doubts == ("the possible targets cannot take all disks",)


def test_a_tie_is_no_answer() -> None:
    found = match([disk(0, GIB)], [target("/dev/a", GIB), target("/dev/b", GIB)], least=least)
    assert found.pairs == ()
    assert found.doubts == ("several assignments are equally good",)


def test_below_the_threshold_it_is_said_and_proposed() -> None:
    found = match([disk(0, GIB)], [target("/dev/a", GIB)], least=least)
    assert nodes(found) == {"disk0": "/dev/a"}
    assert found.doubts == ("disk0 to /dev/a has 30 points, 50 are clear",)
    assert match([disk(0, GIB)], [target("/dev/a", GIB)], least=least, threshold=30).doubts == ()


def test_a_narrow_lead_is_said() -> None:
    candidates = [target("/dev/a", GIB, model="M"), target("/dev/b", GIB, model="M", transport="sata")]
    found = match([disk(0, GIB, model="M", transport="sata")], candidates, least=least, threshold=0)
    assert found.doubts == ("the next best assignment is only 5 points behind, 10 are clear",)


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (target("/dev/a", GIB), target("/dev/a", GIB), "/dev/a is named twice"),
        (target("/dev/a", GIB, wwn="w"), target("/dev/b", 2 * GIB, wwn="w"), "both have the WWN w"),
        (
            target("/dev/a", GIB, serial="S", model="M"),
            target("/dev/b", GIB, serial="S", model="M"),
            "both are M with the serial number S",
        ),
        (
            msgspec.structs.replace(target("/x", GIB), inode="1:2"),
            msgspec.structs.replace(target("/y", GIB), inode="1:2"),
            "they are the same file",
        ),
    ],
)
def test_one_disk_under_two_names_is_refused(first: Candidate, second: Candidate, why: str) -> None:
    (reason,) = same_disks([first, second])
    assert why in reason
    found = match([disk(0, GIB)], [first, second], least=least)
    assert (found.pairs, found.doubts) == ((), (reason,))


def test_disks_that_only_look_alike_are_two() -> None:
    """Nameless virtual disks, and enclosures that give every disk the same serial number."""
    assert same_disks([target("/dev/a", GIB), target("/dev/b", GIB)]) == []
    assert same_disks([target("/dev/a", GIB, serial="0123"), target("/dev/b", 2 * GIB, serial="0123")]) == []


_words = st.sampled_from(["", "A", "B", "C"])
_identities = st.builds(DiskIdentity, wwn=_words, serial=_words, model=_words)
_sizes = st.sampled_from([GIB, 2 * GIB, 5 * GIB])


@given(
    st.lists(st.tuples(_identities, _sizes), min_size=1, max_size=3),
    st.lists(st.tuples(_identities, _sizes), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_no_order_decides(
    sources: list[tuple[DiskIdentity, int]], ends: list[tuple[DiskIdentity, int]], random: st.DataObject
) -> None:
    disks = [
        Disk(id=f"disk{number}", identity=identity, size=size, sector_size=512)
        for number, (identity, size) in enumerate(sources)
    ]
    candidates = [
        msgspec.structs.replace(target(f"/dev/{number}", size), identity=identity)
        for number, (identity, size) in enumerate(ends)
    ]
    found = match(disks, candidates, least=least)
    shuffled, mixed = list(disks), list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    again = match(shuffled, mixed, least=least)
    assert nodes(again) == nodes(found)
    assert again.scores == found.scores
    assert set(again.doubts) == set(found.doubts)


@given(
    st.integers(1, 4).flatmap(
        lambda rows: st.lists(
            st.lists(st.integers(-30, 150) | st.just(IMPOSSIBLE), min_size=5, max_size=5), min_size=rows, max_size=rows
        )
    )
)
def test_the_assignment_is_the_best_and_its_lead_is_right(weights: list[list[int]]) -> None:
    """Against all assignments there are."""
    totals = sorted(
        (
            sum(weights[row][column] for row, column in enumerate(columns))
            for columns in permutations(range(5), len(weights))
        ),
        reverse=True,
    )
    found = assign(weights)
    assert found.total == totals[0]
    assert len(set(found.columns)) == len(weights)
    if totals[1] > IMPOSSIBLE // 2:
        assert found.lead == totals[0] - totals[1]
    else:
        assert found.lead >= -IMPOSSIBLE // 2


def test_eight_disks_find_their_targets_among_sixty_in_no_time() -> None:
    """Planning for 8 disks x 32 partitions has one second; the fit of a disk is asked once for each."""
    asked: list[str] = []

    def counted(disk: Disk) -> int:
        asked.append(disk.id)
        return disk.size

    disks = [disk(number, 100 * GIB, serial=f"S{number}", model="M") for number in range(8)]
    candidates = [target(f"/dev/{number}", 100 * GIB, serial=f"S{number}", model="M") for number in range(60)]
    assert not match(disks, candidates, least=counted).doubts
    assert not asked, "all are large enough for anything: what is the least is not read"
    candidates.append(target("/dev/small", GIB))
    started = time.process_time()
    found = match(disks, candidates, least=counted)
    assert time.process_time() - started < 0.5
    assert nodes(found) == {f"disk{number}": f"/dev/{number}" for number in range(8)}
    assert len(asked) == 8
