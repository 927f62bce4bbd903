"""Members recorded in a lab guest: the first 20 KiB of each, made by mdadm 4.4 and LVM 2.03.31.

``vda2``, ``vdb2``: RAID 1 with a bitmap; ``vdc``, ``vdd``, ``vde``: RAID 5; ``vdf``, ``vdg``: a volume group with a
striped volume, a thin pool and a thin volume. Beside them what mdadm and vgcfgbackup said of them.
"""

import lzma
from pathlib import Path

DATA = Path(__file__).parent / "data"
SIZES = {"vda2": 366 << 20, "vdb2": 366 << 20} | dict.fromkeys(("vdc", "vdd", "vde"), 120 << 20)
SIZES |= {"vdf": 200 << 20, "vdg": 200 << 20}


def head(name: str) -> bytes:
    """The recorded beginning of a member, and zeros up to 1 MiB, where its data begin."""
    return lzma.decompress((DATA / f"{name}.head.xz").read_bytes()).ljust(1 << 20, b"\0")


def member(name: str, folder: Path) -> Path:
    """A sparse file of the member's size with its beginning."""
    path = folder / name
    with path.open("wb") as stream:
        stream.write(head(name))
        stream.truncate(SIZES[name])
    return path
