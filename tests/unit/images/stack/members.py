"""Members recorded in a lab guest: the first 20 KiB of each, made by mdadm 4.4 and LVM 2.03.31.

``vda2``, ``vdb2``: RAID 1 with a bitmap; ``vdc``, ``vdd``, ``vde``: RAID 5; ``vdf``, ``vdg``: a volume group with a
striped volume, a thin pool and a thin volume. Beside them what mdadm and vgcfgbackup said of them.
"""

import lzma
from pathlib import Path

from images.stack.lvm_label import lvm_crc

DATA = Path(__file__).parent / "data"
SIZES = {"vda2": 366 << 20, "vdb2": 366 << 20} | dict.fromkeys(("vdc", "vdd", "vde"), 120 << 20)
SIZES |= {"vdf": 200 << 20, "vdg": 200 << 20}


def head(name: str) -> bytes:
    """The recorded beginning of a member, and zeros up to 1 MiB, where its data begin."""
    return lzma.decompress((DATA / f"{name}.head.xz").read_bytes()).ljust(1 << 20, b"\0")


def with_areas(content: bytes, count: int) -> bytes:
    """The beginning of a physical volume of 200 MiB whose label, in its second sector, names none to two areas.

    lib/format_text/layout.h: behind UUID and size a list of data areas and one of metadata areas, each ended by zeros.
    What ``pvcreate --pvmetadatacopies 2`` adds lies at the end of the device.
    """
    sector = bytearray(content[512:1024])
    start = int.from_bytes(sector[20:24], "little") + 40
    data, gap, first = (bytes(sector[at : at + 16]) for at in range(start, start + 48, 16))
    assert any(data) and any(first) and not any(gap)
    second = (199 << 20).to_bytes(8, "little") + (1 << 20).to_bytes(8, "little")
    areas = (first + second)[: 16 * count]
    sector[start : start + 96] = data + gap + areas.ljust(64, b"\0")
    sector[16:20] = lvm_crc(bytes(sector[20:])).to_bytes(4, "little")
    return content[:512] + bytes(sector) + content[1024:]


def member(name: str, folder: Path) -> Path:
    """A sparse file of the member's size with its beginning."""
    path = folder / name
    with path.open("wb") as stream:
        stream.write(head(name))
        stream.truncate(SIZES[name])
    return path
