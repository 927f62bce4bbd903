"""The superblock of an md member: which array it belongs to, in which place, and how the array is made.

Formats 0.90 and 1.x as in the kernel's ``include/uapi/linux/raid/md_p.h``; places as in ``drivers/md/md.c``. A reader
of bytes: it does not assemble anything, and whether the members together make an array is decided by who has them all.
"""

import struct

import msgspec

from images.sources import BlockSource

_MAGIC = 0xA92B4EFC
_SECTOR = 512
_KIB = 1024
#: ``mdp_superblock_1`` up to the roles, and how many roles there can be (MD_SB_DISKS of format 1: 4 KiB in all).
_V1 = struct.Struct("<IIII16s32sQiIQIIiIQiIIIQQQQIi16sBBHIQQQII32x")
_ROLE_LIMIT = 1920
_SPARE, _FAULTY = 0xFFFF, 0xFFFE
_V0_SIZE = 4096
_V0_WORDS = _V0_SIZE // 4
_V0_CHECKSUM, _V0_PERSONALITY, _V0_THIS_DISK = 38, 64, 992
#: Bits of ``feature_map`` with which the array is followed: bitmap, a member being rebuilt, bad blocks, RAID 0 layout.
_BITMAP = 1
_HARMLESS = _BITMAP | 2 | 8 | 4096
_FEATURES = {
    4: "it is being reshaped",
    16: "a member is being replaced",
    32: "it is being reshaped",
    64: "it is being reshaped",
    256: "it is clustered",
    512: "it has a journal",
    1024: "it keeps a partial parity log",
    2048: "it keeps a partial parity log",
}
_PARITY_LAYOUTS = {
    0: "left-asymmetric",
    1: "right-asymmetric",
    2: "left-symmetric",
    3: "right-symmetric",
    4: "parity-first",
    5: "parity-last",
    8: "ddf-zero-restart",
    9: "ddf-N-restart",
    10: "ddf-N-continue",
    16: "left-asymmetric-6",
    17: "right-asymmetric-6",
    18: "left-symmetric-6",
    19: "right-symmetric-6",
    20: "parity-first-6",
}


class Superblock(msgspec.Struct, frozen=True, kw_only=True):
    """What one member says.

    Attributes:
        uuid, name, metadata, level, slots, chunk_size, component_size, layout, bitmap: as in
            :class:`images.model.stack.Array`.
        slot: its place; None for a spare. faulty: the array does without it.
        data_offset: bytes. events: grows with every change; the member with less is out of date.
        oddity: why the array cannot be made again as it is; empty when it can.
    """

    uuid: str
    name: str
    metadata: str
    level: int
    slots: int
    chunk_size: int
    component_size: int
    layout: str
    bitmap: bool
    slot: int | None
    faulty: bool
    data_offset: int
    events: int
    oddity: str = ""


def read_superblock(source: BlockSource) -> Superblock | None:
    """The superblock of a member, the first that is sound of formats 1.1, 1.2, 1.0, 0.90; None when there is none.

    Raises:
        DeviceError: its place cannot be read.
    """
    end = source.size // _SECTOR
    # 1.0: the last multiple of 4 KiB at least 8 KiB before the end.
    places = {"1.1": 0, "1.2": 4 * _KIB, "1.0": ((end - 16) & ~7) * _SECTOR}
    for metadata, offset in places.items():
        found = _read_v1(source, metadata, offset)
        if found is not None:
            return found
    return _read_v0(source, (source.size & ~(64 * _KIB - 1)) - 64 * _KIB)


def _read_v1(source: BlockSource, metadata: str, offset: int) -> Superblock | None:
    if offset < 0 or offset + 4 * _KIB > source.size:
        return None
    block = source.read_at(offset, 4 * _KIB)
    (magic, major, features, _, uuid, name, _, level, layout, size, chunk, slots, *rest) = _V1.unpack_from(block)
    _, _, _, _, _, _, _, data_offset, _, super_offset, _, number, _, _, _, _, _, _, _, events, _, checksum, roles = rest
    if (magic, major, super_offset * _SECTOR) != (_MAGIC, 1, offset) or roles > _ROLE_LIMIT:
        return None
    if _checksum_v1(block[: _V1.size + 2 * roles]) != checksum:
        return None
    role = struct.unpack_from("<H", block, _V1.size + 2 * number)[0] if number < roles else _SPARE
    unknown = features & ~_HARMLESS
    oddity = next((text for bit, text in _FEATURES.items() if unknown & bit), "")
    return Superblock(
        uuid=":".join(uuid[start : start + 4].hex() for start in range(0, 16, 4)),
        name=name.split(b"\0", 1)[0].decode(errors="replace"),
        metadata=metadata,
        level=level,
        slots=slots,
        chunk_size=chunk * _SECTOR,
        component_size=size * _SECTOR if level else 0,
        layout=layout_words(level, layout),
        bitmap=bool(features & _BITMAP),
        slot=role if role < _FAULTY - 1 else None,
        faulty=role == _FAULTY,
        data_offset=data_offset * _SECTOR,
        events=events,
        oddity=oddity or (f"it has unknown features {unknown:#x}" if unknown else ""),
    )


def _checksum_v1(block: bytes) -> int:
    """As ``calc_sb_1_csum`` of md.c: 32-bit words added, the checksum's own taken as zero, the carry folded once."""
    whole = bytearray(block)
    struct.pack_into("<I", whole, 216, 0)
    total: int = sum(struct.unpack_from(f"<{len(whole) // 4}I", whole))
    if len(whole) % 4:
        total += struct.unpack_from("<H", whole, len(whole) - 2)[0]
    return ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF


def _read_v0(source: BlockSource, offset: int) -> Superblock | None:
    if offset < 0 or offset + _V0_SIZE > source.size:
        return None
    # The words are in the byte order of the machine that made the array; only little-endian ones are read.
    words = struct.unpack(f"<{_V0_WORDS}I", source.read_at(offset, _V0_SIZE))
    if words[0] != _MAGIC or words[1] != 0 or words[2] not in (90, 91):
        return None
    if _checksum_v0(words) != words[_V0_CHECKSUM]:
        return None
    level = words[7] - (1 << 32) if words[7] >> 31 else words[7]
    _, _, _, raid_disk, state = words[_V0_THIS_DISK : _V0_THIS_DISK + 5]
    active = bool(state & 2)  # MD_DISK_ACTIVE
    return Superblock(
        uuid=":".join(f"{words[index]:08x}" for index in (5, 13, 14, 15)),
        name="",
        metadata="0.90",
        level=level,
        slots=words[10],
        chunk_size=words[_V0_PERSONALITY + 1],
        component_size=words[8] * _KIB if level else 0,
        layout=layout_words(level, words[_V0_PERSONALITY]),
        bitmap=bool(words[37] & 0x100),  # MD_SB_BITMAP_PRESENT
        slot=raid_disk if active and raid_disk < words[10] else None,
        faulty=bool(state & 1),  # MD_DISK_FAULTY
        data_offset=0,
        events=words[39] | words[40] << 32,
        oddity="it is being reshaped" if words[2] == 91 else "",
    )


def _checksum_v0(words: tuple[int, ...]) -> int:
    """As ``calc_sb_csum`` of md.c."""
    total = sum(words) - words[_V0_CHECKSUM]
    return ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF


def layout_words(level: int, layout: int) -> str:
    """How mdadm's ``--layout`` says an array's layout; empty where the level has none, or the number is unknown."""
    if level in (5, 6):
        return _PARITY_LAYOUTS.get(layout, "")
    if level == 0:
        return {1: "original", 2: "alternate"}.get(layout, "")
    if level == 10:
        near, far = layout & 0xFF, layout >> 8 & 0xFF
        if far > 1:
            return f"{'o' if layout & 0x10000 else 'f'}{far}"
        return f"n{near}"
    return ""
