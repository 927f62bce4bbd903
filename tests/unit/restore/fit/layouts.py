"""Generated disks for the property tests: tables in order, with gaps, odd starts and contents of every temper."""

from hypothesis import strategies as st

from core.units import ALIGNMENT, MIB, align_up
from images.model.layout import (
    Disk,
    DiskIdentity,
    Filesystem,
    FilesystemKind,
    Partition,
    PartitionRole,
    PartitionTable,
    TableKind,
)
from restore.planning.rules import PartitionRule, Rule

#: What is said of a content's least size: a third of its partition. Even numbers, so that it is rarely whole units.
LEAST_SHARE = 3

_CONTENTS = st.sampled_from(
    [
        (PartitionRole.PRIMARY, FilesystemKind.EXT4),
        (PartitionRole.PRIMARY, FilesystemKind.EXT4),
        (PartitionRole.PRIMARY, FilesystemKind.XFS),
        (PartitionRole.PRIMARY, FilesystemKind.NTFS),
        (PartitionRole.PRIMARY, FilesystemKind.SWAP),
        (PartitionRole.PRIMARY, FilesystemKind.UNKNOWN),
        (PartitionRole.ESP, FilesystemKind.FAT32),
        (PartitionRole.MSR, FilesystemKind.UNKNOWN),
        (PartitionRole.RECOVERY, FilesystemKind.NTFS),
    ]
)
_SIZES = st.one_of(
    st.integers(1, 64).map(lambda units: units * MIB), st.integers(1, 16384).map(lambda units: units * 4096)
)
_GAPS = st.one_of(
    st.just(0), st.integers(0, 8).map(lambda units: units * MIB), st.integers(1, 300).map(lambda n: n * 4096)
)
_FIRST = st.sampled_from([ALIGNMENT, ALIGNMENT, 63 * 4096, 34 * 4096, 5 * MIB])
_TARGETS = st.floats(0.2, 2.5)


def least(partition: Partition, sector_size: int) -> int:
    """What the content is said to need."""
    return partition.sector_count * sector_size // LEAST_SHARE


@st.composite
def disks(draw: st.DrawFn, *, aligned: bool = False) -> Disk:
    """A disk with a sound table of one to eight partitions; on dos the later ones may be logical.

    Args:
        aligned: all of them start on the boundary.
    """
    sector_size = draw(st.sampled_from([512, 4096]))
    kind = draw(st.sampled_from(list(TableKind)))
    contents = draw(st.lists(_CONTENTS, min_size=1, max_size=8))
    primaries = min(len(contents), draw(st.integers(0, 3))) if kind is TableKind.DOS else len(contents)
    position = draw(_FIRST) if not aligned else draw(st.integers(1, 9)) * MIB
    parts: list[Partition] = []
    logical_from = 0
    for index, (role, filesystem) in enumerate(contents):
        logical = index >= primaries
        if index == primaries:
            logical_from = position
        # The boot record of a logical partition lies before it.
        position += draw(st.sampled_from([sector_size, 63 * sector_size, MIB])) if logical else 0
        position = align_up(position) if aligned else position
        size = draw(_SIZES)
        number = index + 1 if not logical else 5 + index - primaries
        parts.append(
            Partition(
                id=f"disk0-part{number}",
                number=number,
                start_lba=position // sector_size,
                sector_count=size // sector_size,
                type="0x83",
                role=PartitionRole.LOGICAL if logical else role,
                filesystem=Filesystem(kind=filesystem),
            )
        )
        position += size
        end = position
        position += draw(_GAPS)
    if logical_from:
        parts.append(
            Partition(
                id=f"disk0-part{primaries + 1}",
                number=primaries + 1,
                start_lba=logical_from // sector_size,
                sector_count=(end - logical_from) // sector_size,
                type="0x05",
                role=PartitionRole.EXTENDED,
            )
        )
    size = position + MIB
    last = size // sector_size - 34 if kind is TableKind.GPT else 0
    table = PartitionTable(
        kind=kind,
        identifier="x",
        partitions=tuple(sorted(parts, key=lambda part: part.number)),
        first_usable_lba=34 if kind is TableKind.GPT else 0,
        last_usable_lba=last,
        entry_count=128 if kind is TableKind.GPT else 0,
    )
    return Disk(id="disk0", identity=DiskIdentity(), size=size, sector_size=sector_size, table=table)


@st.composite
def rules_for(draw: st.DrawFn, disk: Disk) -> tuple[PartitionRule, ...]:
    """Rules for some of the partitions; not each of them can be followed."""
    assert disk.table is not None
    chosen: list[PartitionRule] = []
    for part in disk.table.partitions:
        if part.role is PartitionRole.EXTENDED or draw(st.integers(0, 3)):
            continue
        rule = draw(st.sampled_from(list(Rule)))
        size = draw(st.sampled_from([0, 0, 20 * MIB, 100 * MIB])) if rule in (Rule.GROW, Rule.SHRINK) else 0
        chosen.append(PartitionRule(partition=part.number, rule=rule, size=size))
    return tuple(chosen)


@st.composite
def targets_for(draw: st.DrawFn, disk: Disk) -> int:
    """The size of a target: a fifth to two and a half times the disk, in whole sectors."""
    size = int(disk.size * draw(_TARGETS)) if draw(st.booleans()) else disk.size
    return max(size, 2 * MIB) // disk.sector_size * disk.sector_size
