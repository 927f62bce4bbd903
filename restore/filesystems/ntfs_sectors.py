"""NTFS on a disk with sectors of another size: what its boot sector must say there, where that can be at all.

NTFS counts in clusters; only the boot sector counts in sectors. It can be rewritten when everything that must be a
whole number of sectors is: clusters, MFT records, index blocks. Windows makes MFT records of at least one sector
("NTFS and 4K disks", Microsoft's ntdebugging blog), as mkntfs does, and Linux's first driver does not mount smaller
ones (fs/ntfs/super.c, parse_ntfs_boot_sector). So the usual volume, with records of 1024 bytes, cannot go to sectors of
4096 bytes: each record would have to be rewritten, and this is refused rather than guessed.
"""

import struct

import msgspec

from core.errors import DamagedError, RefusedError
from images.filesystems.c_ntfs import BootSector, parse_boot_sector
from images.filesystems.ntfs import read_ntfs
from images.sources import BlockSource
from restore.filesystems.patches import Correction, Patch

_SECTOR = 512
_HIDDEN_AT = 0x1C
_INDEX_AT = 0x44
#: Clusters of more sectors than this are written as a negative power of two.
_MAX_PER_CLUSTER = 128
_REMEDY = " (many NVMe disks can be set to sectors of 512 bytes: nvme format --lbaf)"


class _Geometry(msgspec.Struct, frozen=True):
    """What changes in the boot sector."""

    sector_size: int
    sectors: int
    copy_at: int


def refusal(source: BlockSource, new: int) -> str:
    """Why the NTFS volume cannot have sectors of ``new`` bytes; empty when it can."""
    found = read_ntfs(source)
    if found is None:
        return "it holds no NTFS"
    if not found.trusted:
        return f"its boot sector is not rewritten, because {found.reason}"
    sector = source.read_at(0, _SECTOR)
    boot = parse_boot_sector(sector)
    index = _index_size(sector, boot)
    for size, what in ((boot.cluster_size, "clusters"), (boot.record_size, "MFT records"), (index, "index blocks")):
        if size < new:
            return f"its {what} have {size} bytes, and none may be smaller than a sector of {new} bytes{_REMEDY}"
    if index < boot.cluster_size:
        # Positions of index blocks then count in units of 512 bytes, or of sectors: programs differ.
        return f"its index blocks of {index} bytes are smaller than its clusters of {boot.cluster_size}"
    if source.size % new:
        return f"its {source.size} bytes are not whole sectors of {new} bytes"
    try:
        _geometry(boot, source.size, new)
    except RefusedError as error:
        return error.message
    return ""


def converted(source: BlockSource, new: int, old_lba: int, new_lba: int) -> Correction:
    """The boot sector and its copy for sectors of ``new`` bytes.

    Args:
        old_lba, new_lba: the partition's first sector before and now, each in sectors of its own disk.

    Raises:
        RefusedError: it cannot be; nothing is to be written.
    """
    sector = source.read_at(0, _SECTOR)
    boot = parse_boot_sector(sector)
    if boot.sector_size == new:
        return Correction()
    reason = refusal(source, new)
    if reason:
        raise RefusedError(f"The NTFS volume cannot get sectors of {new} bytes: {reason}.")
    geometry = _geometry(boot, source.size, new)
    made = bytearray(sector)
    struct.pack_into("<HB", made, 11, new, _per_cluster(boot.cluster_size // new))
    struct.pack_into("<Q", made, 40, geometry.sectors)
    (hidden,) = struct.unpack_from("<I", made, _HIDDEN_AT)
    if hidden == old_lba & 0xFFFFFFFF:
        struct.pack_into("<I", made, _HIDDEN_AT, new_lba & 0xFFFFFFFF)
    after = parse_boot_sector(bytes(made))
    if (after.clusters, after.cluster_size, after.record_size) != (boot.clusters, boot.cluster_size, boot.record_size):
        raise DamagedError(
            f"The boot sector for sectors of {new} bytes would say {after.clusters} clusters of {after.cluster_size} "
            f"bytes, expected {boot.clusters} of {boot.cluster_size}."
        )
    copy = bytes(made).ljust(new, b"\0")
    # Behind the volume's own sectors and, where that is another one, in the last of the partition, as ntfsresize does.
    # The copies first: until the main boot sector is written, the volume is the old one and sound.
    places = dict.fromkeys((geometry.copy_at, source.size - new))
    return Correction((*(Patch(place, copy) for place in places), Patch(0, bytes(made))))


def _geometry(boot: BootSector, size: int, new: int) -> _Geometry:
    """As many whole sectors as keep the number of clusters, with room for the copy of the boot sector behind them."""
    # Going up, the sectors behind the last cluster shrink to whole ones; going down they are filled up again.
    sectors = min((boot.size + max(boot.sector_size - new, 0)) // new, size // new - 1)
    if sectors * new // boot.cluster_size != boot.clusters:
        raise RefusedError(f"behind its {boot.clusters} clusters there is no sector of {new} bytes left for a copy")
    return _Geometry(new, sectors, sectors * new)


def _index_size(sector: bytes, boot: BootSector) -> int:
    """Bytes of an index block: so many clusters or, negative, a power of two.

    Raises:
        DamagedError: neither makes sense.
    """
    (value,) = struct.unpack_from("<b", sector, _INDEX_AT)
    if not -16 <= value <= 64 or not value:
        raise DamagedError(f"its boot sector is damaged: its index blocks have {value} clusters")
    return int(value * boot.cluster_size if value > 0 else 1 << -value)


def _per_cluster(sectors: int) -> int:
    return sectors if sectors <= _MAX_PER_CLUSTER else 256 - (sectors.bit_length() - 1)
