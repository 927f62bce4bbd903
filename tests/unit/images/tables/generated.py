"""Tables as hypothesis makes them up: everything that a real GPT or dos table may say."""

from uuid import UUID

from hypothesis import strategies as st

from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
ROLES = {
    LINUX: PartitionRole.PRIMARY,
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": PartitionRole.ESP,
    "21686148-6449-6e6f-744e-656564454649": PartitionRole.BIOS_BOOT,
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": PartitionRole.MSR,
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": PartitionRole.RECOVERY,
}
#: Sectors of every generated disk.
SECTORS = 6000


def names() -> st.SearchStrategy[str]:
    """Names that fill their field at most: 36 UTF-16 units, any characters but NUL."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=36)
    return text.filter(lambda name: len(name.encode("utf-16-le")) <= 72)


@st.composite
def spans(draw: st.DrawFn, first: int, end: int, most: int, gap: int = 0) -> list[tuple[int, int]]:
    """At most ``most`` half-open ranges of sectors between ``first`` and ``end``, at least ``gap`` apart."""
    count = draw(st.integers(0, most))
    edges = sorted(draw(st.lists(st.integers(first, end), min_size=2 * count, max_size=2 * count, unique=True)))
    found = list(zip(edges[::2], edges[1::2], strict=True))
    return [span for index, span in enumerate(found) if not index or span[0] - found[index - 1][1] >= gap]


@st.composite
def gpts(draw: st.DrawFn, sector_size: int, *, entry_sizes: tuple[int, ...] = (128, 256, 512)) -> PartitionTable:
    count = draw(st.sampled_from([1, 4, 11, 128, 129, 300, 1024]))
    entry_size = draw(st.sampled_from(entry_sizes))
    array = -(-count * entry_size // sector_size)
    entries = draw(st.sampled_from([2, 2, 2, 40]))
    first = entries + array + draw(st.sampled_from([0, 14, 600]))
    last = SECTORS - 2 - array - draw(st.sampled_from([0, 0, 7]))
    ranges = draw(spans(first, last + 1, min(count, 12)))
    numbers = draw(st.lists(st.integers(1, count), min_size=len(ranges), max_size=len(ranges), unique=True))
    parts = []
    for number, (start, end) in zip(numbers, ranges, strict=True):
        kind = draw(st.sampled_from(sorted(ROLES)))
        parts.append(
            Partition(
                id=f"part{number}",
                number=number,
                start_lba=start,
                sector_count=end - start,
                type=kind,
                role=ROLES[kind],
                uuid=UUID(int=draw(st.integers(0, (1 << 116) - 1)) << 12 | number),
                name=draw(names()),
                attributes=draw(st.integers(0, (1 << 64) - 1)),
            )
        )
    return PartitionTable(
        kind=TableKind.GPT,
        identifier=str(draw(st.uuids())),
        partitions=tuple(sorted(parts, key=lambda part: part.number)),
        first_usable_lba=first,
        last_usable_lba=last,
        entry_count=count,
        entry_size=entry_size,
        entries_lba=entries,
    )


@st.composite
def dos_tables(draw: st.DrawFn) -> PartitionTable:
    """Primary partitions in any order, perhaps an extended one, its logical ones in any order of the chain."""
    ranges = draw(spans(1, SECTORS, 4))
    numbers = draw(st.permutations([1, 2, 3, 4]))[: len(ranges)]
    types = st.sampled_from([0x07, 0x0B, 0x0C, 0x27, 0x42, 0x82, 0x83, 0x8E, 0xA5, 0xFD])
    parts = [_dos(number, span, draw(types), draw(st.booleans())) for number, span in zip(numbers, ranges, strict=True)]
    logical: list[Partition] = []
    if parts and draw(st.booleans()):
        inside = parts[-1]
        kind = draw(st.sampled_from([0x05, 0x0F, 0x85]))
        parts[-1] = _dos(inside.number, (inside.start_lba, inside.end_lba), kind, False, PartitionRole.EXTENDED)
        if inside.sector_count > 40:
            # Two sectors for records before the first, one before each other.
            found = draw(spans(inside.start_lba + 2, inside.end_lba, 6, gap=1))
            logical = [
                _dos(number, span, draw(types), draw(st.booleans()), PartitionRole.LOGICAL)
                for number, span in enumerate(draw(st.permutations(found)), 5)
            ]
    return PartitionTable(
        kind=TableKind.DOS,
        identifier=f"0x{draw(st.integers(1, (1 << 32) - 1)):08x}",
        partitions=(*sorted(parts, key=lambda part: part.number), *logical),
    )


def _dos(
    number: int, span: tuple[int, int], kind: int, active: bool, role: PartitionRole = PartitionRole.PRIMARY
) -> Partition:
    return Partition(
        id=f"part{number}",
        number=number,
        start_lba=span[0],
        sector_count=span[1] - span[0],
        type=f"0x{kind:02x}",
        role=role,
        active=active,
    )
