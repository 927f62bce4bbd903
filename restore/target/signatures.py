"""Where old signatures lie on a target: what is wiped before anything new is put there.

Both ends of the disk and of each new partition, a MiB each. In there lie, counted from the start: boot sectors, the
superblocks of ext, XFS, FAT, NTFS, swap and btrfs (64 KiB), LVM (sectors 0 to 3), md 1.1 and 1.2, LUKS, the first two
labels of ZFS (512 KiB); counted from the end: the backup GPT, md 0.90 (64 to 128 KiB) and 1.0 (8 to 12 KiB),
DDF and Intel metadata, the other two labels of ZFS (512 KiB), copies of NTFS and LVM.
Sources: util-linux, libblkid/src/superblocks; md(4); OpenZFS, vdev_impl.h.
"""

from core.units import ALIGNMENT
from images.model.extents import Extent, merge
from images.model.layout import PartitionTable


def signature_extents(size: int, table: PartitionTable | None, sector_size: int) -> tuple[Extent, ...]:
    """The places to wipe on a disk of ``size`` bytes that gets ``table``: bytes, sorted, not touching."""
    found = [Extent(0, size)]
    if table is not None:
        found += [part.extent(sector_size) for part in table.partitions]
    ends: list[Extent] = []
    for extent in found:
        ends.append(Extent(extent.start, min(extent.start + ALIGNMENT, extent.end)))
        ends.append(Extent(max(extent.end - ALIGNMENT, extent.start), extent.end))
    return tuple(merge(sorted(ends)))
