"""Signatures of what is built on a partition rather than stored in it: LUKS, LVM, md, bcache.

A member of a mirror with its metadata at the end begins like the filesystem on the mirror, and an old superblock may
survive behind a new container's header: in both cases a filesystem's map would be the wrong one to believe.
"""

from uuid import UUID

from images.model.filesystem import MemberKind
from images.sources import BlockSource

_MD_MAGIC = 0xA92B4EFC.to_bytes(4, "little")
_MD_BIG_ENDIAN = _MD_MAGIC[::-1]
_BCACHE_MAGIC = UUID("c68573f6-4e1a-45ca-8265-f57f48ba6d81").bytes
_KIB = 1024


def container_name(source: BlockSource) -> MemberKind | None:
    """Of what container this volume is a member; None when it is none."""
    if _at(source, 0, 6) == b"LUKS\xba\xbe":
        return MemberKind.LUKS
    for sector in range(4):  # any of the first four sectors of 512 bytes may hold the label
        if _at(source, 512 * sector, 8) == b"LABELONE" and _at(source, 512 * sector + 24, 4) == b"LVM2":
            return MemberKind.LVM
    if _at(source, 4 * _KIB + 24, 16) == _BCACHE_MAGIC:
        return MemberKind.BCACHE
    if any(_at(source, offset, 4) in (_MD_MAGIC, _MD_BIG_ENDIAN) for offset in _md_offsets(source.size)):
        return MemberKind.MD
    return None


def _md_offsets(size: int) -> list[int]:
    """Where the superblocks of md lie: versions 1.1, 1.2, 1.0, 0.90 (kernel: drivers/md/md.c)."""
    ends = [(size - 8 * _KIB) // (4 * _KIB) * (4 * _KIB), size // (64 * _KIB) * (64 * _KIB) - 64 * _KIB]
    return [0, 4 * _KIB, *(offset for offset in ends if offset > 0)]


def _at(source: BlockSource, offset: int, length: int) -> bytes:
    """The bytes at ``offset``, or none where the source is too small for them."""
    return source.read_at(offset, length) if offset + length <= source.size else b""
