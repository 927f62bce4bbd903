"""What the tests of encryption share: a disk full of what must not be seen, and a reader of packs.

It is not liferaft's own reader: places and fields are those of docs/image-format.md §4.
"""

import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.flow.disks import MIB, put_ext, run

WORDS = "correct horse battery staple"
DISK = 24 * MIB
PART = 20 * MIB
#: Text, names and noise that lie on the disk, in its table or in its filesystem.
TEXT = b"the salary of the chairman is "
NOISE = random.Random(42).randbytes(3 * MIB)
NAMES = (b"payroll-2026", b"HIDDENVOL", b"quiet partition", b"secretdisk", b"the monday point")
GUID = "5ec2e700-0000-4000-8000-00000000beef"


def secret_disk(folder: Path) -> Path:
    """A GPT disk with one ext4 filesystem."""
    tree = folder / "tree"
    tree.mkdir(parents=True)
    (tree / "payroll-2026.txt").write_bytes(TEXT * 50_000)
    (tree / "noise.bin").write_bytes(NOISE)
    path = folder / "secretdisk.img"
    with path.open("wb") as stream:
        stream.truncate(DISK)
    table = f"label: gpt\nlabel-id: {GUID}\nstart=2048,size={PART // 512},type=linux,name=quiet partition\n"
    run("sfdisk", "-q", path, stdin=table.replace("name=quiet partition", 'name="quiet partition"'))
    put_ext(path, MIB, PART, tree)
    run("tune2fs", "-L", "HIDDENVOL", f"{path}?offset={MIB}")
    return path


class Record(NamedTuple):
    """A record of a pack: where its header begins, and the fields of §4."""

    pack: Path
    offset: int
    kind: int
    cipher: int
    payload_length: int
    id: bytes


def records(repository: Path) -> Iterator[Record]:
    """Every record of every pack, in order."""
    for pack in sorted(repository.glob("packs/*/*.pack")):
        data = pack.read_bytes()
        at = 64
        while at < len(data):
            magic, kind, _, cipher, _, length, _, identifier = struct.unpack_from("<4sBBBBII32s", data, at)
            assert magic == b"LRCK"
            assert struct.unpack_from("<I", data, at + 76)[0] == zlib.crc32(data[at : at + 76])
            yield Record(pack, at, kind, cipher, length, identifier)
            at += 80 + length


def flip(path: Path, offset: int) -> None:
    """One bit of one byte; from the end when negative."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def content(repository: Path) -> dict[str, bytes]:
    """Every file."""
    files = (path for path in sorted(repository.rglob("*")) if path.is_file())
    return {str(path.relative_to(repository)): path.read_bytes() for path in files}
