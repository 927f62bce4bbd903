"""Bytes, sectors and alignment: the only place where numbers about disks are turned into each other.

Sizes and offsets are bytes unless the name says ``lba`` or ``sector``. Ranges are half-open.
Arithmetic that would go negative raises instead of returning a plausible number.
"""

import re

from core.errors import UsageError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

#: Partitions start on this boundary unless the user preserves the old start.
ALIGNMENT = MIB

#: Logical sector sizes that disks have. Sizes outside are refused, never guessed.
SECTOR_SIZES = (512, 4096)

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGTkmgt]?)(?:iB|ib|B|b)?\s*$")
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def subtract(size: int, less: int, what: str) -> int:
    """``size - less``; raises ValueError naming ``what`` when the result would be negative."""
    if less > size:
        raise ValueError(f"{what}: {less} is more than {size}")
    return size - less


def align_up(value: int, unit: int = ALIGNMENT) -> int:
    """The smallest multiple of ``unit`` that is not below ``value``."""
    return -(-value // unit) * unit


def align_down(value: int, unit: int = ALIGNMENT) -> int:
    """The largest multiple of ``unit`` that is not above ``value``."""
    return value // unit * unit


def to_sectors(size: int, sector_size: int) -> int:
    """Bytes to sectors; raises ValueError when ``size`` is not whole sectors."""
    if size % sector_size:
        raise ValueError(f"{size} bytes are not whole sectors of {sector_size} bytes")
    return size // sector_size


def covering_sectors(start: int, end: int, sector_size: int) -> tuple[int, int]:
    """The first LBA and the number of the sectors that bytes ``start`` to ``end``, ``end`` not included, lie in."""
    first = start // sector_size
    return first, -(-end // sector_size) - first


def to_bytes(sectors: int, sector_size: int) -> int:
    """Sectors (a count or an LBA) to bytes."""
    return sectors * sector_size


def format_size(size: int) -> str:
    """Bytes for people, binary units: ``1.50 GiB``. Below 1 KiB the exact count is given."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size} bytes"


def exact_size(size: int) -> str:
    """Bytes without rounding, for people and for :func:`parse_size`: ``1500 GiB``, where format_size says 1.46 TiB."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return str(size)


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things for people: ``1 pack``, ``2 packs``; ``plural`` where it is not the noun and an s."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def format_duration(seconds: float) -> str:
    """Seconds for people: ``42 s``, ``3 min 05 s``, ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def parse_size(text: str) -> int:
    """``4 GiB``, ``512M``, ``1048576`` to bytes (binary units).

    Raises:
        UsageError: the text is not a size.
    """
    match = _SIZE.match(text)
    if match is None:
        raise UsageError(f"{text!r} is not a size.", hint="Write it as 512M, 4 GiB or a number of bytes.")
    number, unit = match.groups()
    return int(float(number) * 1024 ** _POWER[unit.lower()])
