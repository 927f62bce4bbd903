"""Drafts: what would become of each partition, for a person who still decides. Nothing is planned, only placed."""

import msgspec

from images.model.layout import Partition, PartitionRole
from images.model.machine import Occupant
from restore.planning.placement import Placement, Placing
from restore.planning.seat import Means, Seat
from restore.target.occupants import occupants_of_disk, occupants_of_table

_MEANS = {
    Means.SHRINK: "made smaller",
    Means.REMAKE: "made anew, files copied",
    Means.EMPTY: "",
    Means.STREAM: "",
}


class PartitionDraft(msgspec.Struct, frozen=True, kw_only=True):
    """One partition. Bytes.

    Attributes:
        was: on the captured disk. will: on the target; None when it is left out, or nothing fits.
        fate: what becomes of it, in a few words.
        follows: it is an extended partition: it is as large as those in it need.
    """

    was: Occupant
    will: Occupant | None
    fate: str = ""
    follows: bool = False


class DiskDraft(msgspec.Struct, frozen=True, kw_only=True):
    """One disk. Bytes.

    Attributes:
        disk: its id. size: as it was captured.
        node: of the target; target_size.
        partitions: in order of their places on the captured disk; none for a disk without a table.
        becomes: what lies where on the target; nothing when it does not fit.
    """

    disk: str
    size: int
    node: str
    target_size: int
    partitions: tuple[PartitionDraft, ...]
    becomes: tuple[Occupant, ...]

    @property
    def held(self) -> tuple[Occupant, ...]:
        """What lay where on the captured disk."""
        return tuple(part.was for part in self.partitions)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """All disks, every reason why it cannot be so, and what the person should know."""

    disks: tuple[DiskDraft, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


def draft(placement: Placement) -> Draft:
    """The draft of a placement."""
    return Draft(
        disks=tuple(_disk(placing) for placing in placement.placings),
        reasons=placement.reasons,
        notes=tuple(note for placing in placement.placings for note in placing.fit.notes),
    )


def _disk(placing: Placing) -> DiskDraft:
    disk, candidate, fitted = placing.disk, placing.candidate, placing.fit
    becomes = occupants_of_table(fitted.table, candidate.sector_size) if fitted.table is not None else ()
    made = {occupant.id: occupant for occupant in becomes}
    seats = {seat.source.id: seat for seat in fitted.seats}
    sources = {part.id: part for part in (disk.table.partitions if disk.table else ())}
    return DiskDraft(
        disk=disk.id,
        size=disk.size,
        node=candidate.node,
        target_size=candidate.size,
        partitions=tuple(
            _partition(was, made.get(was.id), sources[was.id], seats.get(was.id), fits=not fitted.reasons)
            for was in occupants_of_disk(disk)
            if was.id in sources
        ),
        becomes=becomes,
    )


def _partition(
    was: Occupant, will: Occupant | None, source: Partition, seat: Seat | None, *, fits: bool
) -> PartitionDraft:
    words: list[str] = []
    if seat is None or will is None:
        words += ["left out"] if fits else []
    else:
        words += [_MEANS[seat.means]] if _MEANS[seat.means] else []
        words += ["grown"] if seat.grow else []
        words += ["moved"] if will.offset != was.offset else []
    return PartitionDraft(was=was, will=will, fate=", ".join(words), follows=source.role is PartitionRole.EXTENDED)
