"""The seat: where one partition goes on the target, and by what means its content gets there."""

from enum import StrEnum

import msgspec

from images.model.layout import Partition


class Means(StrEnum):
    """How a partition's content comes to its new place.

    ``stream``: chunks to their range, as they are. ``shrink``: the filesystem is made smaller on an overlay over the
    stored image, and the result is streamed. ``remake``: a fresh filesystem with the same identity, files copied.
    ``empty``: the partition is made, nothing is put in.
    """

    STREAM = "stream"
    SHRINK = "shrink"
    REMAKE = "remake"
    EMPTY = "empty"


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of the source on the target. A partition that is dropped has none.

    Attributes:
        source: as it was captured, in the source's sectors.
        partition: as it will be, in the target's sectors.
        means: how its content gets there.
        grow: its filesystem grows to the partition when the content is there.
        relocate: what the filesystem says of its own place on the disk (NTFS and FAT hidden sectors) is corrected.
    """

    source: Partition
    partition: Partition
    means: Means = Means.STREAM
    grow: bool = False
    relocate: bool = False
