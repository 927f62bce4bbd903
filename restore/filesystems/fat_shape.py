"""The shape of a FAT volume: what its boot sector says of sectors, clusters and tables, and what another size takes.

Pure arithmetic, after Microsoft's FAT specification 1.03. As for Linux and Windows, a volume whose 16-bit table size is
zero is FAT32, and the number of clusters decides between FAT12 and FAT16.
"""

import struct
from collections.abc import Iterator

import msgspec

from core.errors import DamagedError, RefusedError
from core.units import KIB, counted, format_size
from images.model.layout import FilesystemKind

#: Clusters from which on a volume is FAT16, and FAT32 (specification 3.5).
LEAST_FAT16, LEAST_FAT32 = 4085, 65525
_MOST = {12: LEAST_FAT16 - 1, 16: LEAST_FAT32 - 1, 32: 0x0FFFFFF5}
#: Windows and DOS read clusters of up to 32 KiB everywhere.
_LARGEST_CLUSTER = 32 * KIB
#: Entries of the root directory where FAT32 becomes FAT16 (specification 3.1, BPB_RootEntCnt).
_ROOT_ENTRIES = 512
#: A FAT32 whose table would need more than 16 MiB takes larger clusters.
_MANY_CLUSTERS = 1 << 22
#: Boot sector, FSInfo, and the copies of both at sectors 6 and 7.
_LEAST_RESERVED = 9
ENTRY_SIZE = 32
SECTOR_SIZES = (512, 1024, 2048, 4096)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of one volume. ``bits``: 12, 16 or 32; sectors and clusters are counts."""

    bits: int
    sector_size: int
    cluster_size: int
    reserved: int
    fats: int
    fat_sectors: int
    root_entries: int
    sectors: int

    @property
    def root_offset(self) -> int:
        """Byte behind the tables, where the root directory of FAT12 and FAT16 lies."""
        return (self.reserved + self.fats * self.fat_sectors) * self.sector_size

    @property
    def data_offset(self) -> int:
        """Byte at which cluster 2 lies."""
        return self.root_offset + -(-self.root_entries * ENTRY_SIZE // self.sector_size) * self.sector_size

    @property
    def clusters(self) -> int:
        return max(self.sectors * self.sector_size - self.data_offset, 0) // self.cluster_size

    @property
    def kind(self) -> FilesystemKind:
        return {12: FilesystemKind.FAT12, 16: FilesystemKind.FAT16, 32: FilesystemKind.FAT32}[self.bits]


def parse_shape(sector: bytes) -> Shape:
    """The shape that a boot sector (its first 512 bytes) tells.

    Raises:
        DamagedError: a field is outside its bounds.
    """
    sector_size, per_cluster, reserved, fats, root_entries = struct.unpack_from("<HBHBH", sector, 11)
    (small,) = struct.unpack_from("<H", sector, 19)
    (narrow,) = struct.unpack_from("<H", sector, 22)
    large, wide = struct.unpack_from("<II", sector, 32)
    if sector_size not in SECTOR_SIZES or per_cluster.bit_count() != 1 or not reserved or not 0 < fats <= 4:
        raise DamagedError(
            f"Boot sector of FAT: sectors of {sector_size} bytes, {per_cluster} in a cluster, {reserved} reserved, "
            f"{fats} tables: no volume has those."
        )
    shape = Shape(
        bits=16 if narrow else 32,
        sector_size=sector_size,
        cluster_size=sector_size * per_cluster,
        reserved=reserved,
        fats=fats,
        fat_sectors=narrow or wide,
        root_entries=root_entries if narrow else 0,
        sectors=small or large,
    )
    if not shape.clusters or not shape.fat_sectors:
        raise DamagedError(f"Boot sector of FAT: {shape.sectors} sectors leave no room for a cluster.")
    return msgspec.structs.replace(shape, bits=12) if narrow and shape.clusters < LEAST_FAT16 else shape


def shapes_for(old: Shape, size: int, sector_size: int, root_entries: int) -> Iterator[Shape]:
    """The shapes a copy of a volume may take in ``size`` bytes, the one that changes least first.

    Readers differ about a FAT32 with too few clusters: Linux and Windows see FAT32, others (mtools, and the
    specification itself) FAT16. A volume that was such a one may stay it; no other one becomes it, but FAT16.

    Args:
        root_entries: what the root directory holds; FAT12 and FAT16 have a fixed room for it.

    Raises:
        RefusedError: there is none.
    """
    if old.bits == 32:
        least = 1 if old.clusters < LEAST_FAT32 else LEAST_FAT32
        asked = [(32, least), (16, LEAST_FAT16), (12, 1)]
    else:
        asked = [(16, LEAST_FAT16), (12, 1)] if old.bits == 16 else [(12, 1), (16, LEAST_FAT16)]
    found = False
    for bits, least in asked:
        for cluster in _cluster_sizes(old, size, sector_size):
            shape = _shape(old, size, sector_size, cluster, bits, root_entries)
            if shape is not None and least <= shape.clusters <= _MOST[bits]:
                found = True
                yield shape
    if not found:
        raise RefusedError(
            f"A {old.kind} volume cannot have {format_size(size)} ({size} bytes) in sectors of {sector_size} bytes."
        )


def _cluster_sizes(old: Shape, size: int, sector_size: int) -> list[int]:
    """The old size, larger ones, then smaller ones: small clusters waste less and cost a larger table."""
    usual = max(old.cluster_size, sector_size)
    if old.bits == 32:
        while size // usual > _MANY_CLUSTERS and usual < _LARGEST_CLUSTER:
            usual *= 2
    larger = [usual << shift for shift in range(8) if usual << shift <= max(_LARGEST_CLUSTER, usual)]
    smaller = [usual >> shift for shift in range(1, 8) if usual >> shift >= sector_size]
    # FAT32 has clusters enough: a larger one would only bring it nearer to too few.
    return [usual, *smaller] if old.bits == 32 else [*larger, *smaller]


def _shape(old: Shape, size: int, sector_size: int, cluster: int, bits: int, root_entries: int) -> Shape | None:
    """The shape with clusters of that size; None when a field of the boot sector cannot say it."""
    per_sector = sector_size // ENTRY_SIZE
    if bits == 32:
        reserved, entries = max(old.reserved, _LEAST_RESERVED), 0
    elif old.bits == 32:
        reserved, entries = 1, max(_ROOT_ENTRIES, root_entries)
    else:
        reserved, entries = old.reserved, max(old.root_entries, root_entries)
    bare = Shape(
        bits=bits,
        sector_size=sector_size,
        cluster_size=cluster,
        reserved=reserved,
        fats=old.fats,
        fat_sectors=0,
        root_entries=-(-entries // per_sector) * per_sector,
        sectors=size // sector_size,
    )
    shape = msgspec.structs.replace(bare, fat_sectors=_fat_sectors(bare))
    narrow = bits == 32 or (shape.fat_sectors < 1 << 16 and shape.root_entries < 1 << 16)
    fits = narrow and cluster // sector_size <= 128 and shape.sectors < 1 << 32
    return shape if fits else None


def _fat_sectors(shape: Shape) -> int:
    """Sectors of a table that has an entry for every cluster: the table itself takes room from them."""
    fat_sectors = 1
    while True:
        clusters = msgspec.structs.replace(shape, fat_sectors=fat_sectors).clusters
        needed = -(-(clusters + 2) * shape.bits // (8 * shape.sector_size))
        if needed <= fat_sectors:
            return fat_sectors
        fat_sectors = needed


def describe_shape(shape: Shape) -> str:
    """For people: ``fat16, 12345 clusters of 4.00 KiB``."""
    return f"{shape.kind}, {counted(shape.clusters, 'cluster')} of {format_size(shape.cluster_size)}"
