"""The fuzzer's way into md, LUKS and LVM: recorded members with checksums made right again, and LVM's text."""

import hashlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from images.model.manifest import Manifest
from images.model.soundness import check_manifest
from images.stack.luks import read_header
from images.stack.lvm_label import lvm_crc, read_label
from images.stack.lvm_text import parse_group
from images.stack.md import read_superblock
from images.stack.nodes import stable_nodes
from tests.fuzz.sparse import BLOCK, SparseSource, load, make
from tests.unit.images.stack.members import DATA, member

_READ_LIMIT = 64 << 20


def member_images(folder: Path) -> Iterator[SparseSource]:
    """An md member, a physical volume, and a LUKS2 container."""
    for name in ("vdd", "vdf"):
        yield load(member(name, folder))
    cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    (folder / "key").write_bytes(b"key")
    words = ["cryptsetup", "luksFormat", "-q", "--type", "luks2", *cheap, "--key-file", str(folder / "key"), "IMAGE"]
    yield make(folder, "luks", 20 << 20, words)


def check_member(source: SparseSource) -> None:
    """Every reader looks at it; whatever it says is bounded."""
    source = _with_checksums(source)
    says, label, header = read_superblock(source), read_label(source), read_header(source)
    assert says is None or len(says.name) <= 32
    assert header is None or header.payload_offset >= 0
    for text in label.texts if label else ():
        parse_group(text)
    assert source.bytes_read <= _READ_LIMIT, f"{source.bytes_read} bytes read"


def check_text(data: bytes) -> None:
    """LVM's text with a piece of it replaced by the input."""
    text = (DATA / "vgcfgbackup.txt").read_text()
    place = int.from_bytes(data[:2], "little") % len(text)
    group = parse_group(text[:place] + data[2:].decode(errors="replace") + text[place + len(data) // 2 :])
    assert all(volume.size is not None for volume in group.logical)


def check_stack(manifest: Manifest) -> None:
    """What is sound can be computed with."""
    check_manifest(manifest, "input")
    devices = manifest.layout.devices()
    assert len({device.id for device in devices}) == len(devices)
    assert all(device.size > 0 for device in devices)
    stable_nodes(manifest.layout)


def _with_checksums(source: SparseSource) -> SparseSource:
    """The image, its checksums those of its bytes, so that the work goes behind them."""
    blocks = dict(source.blocks)
    for number, mend in _MENDERS:
        if number in blocks:
            blocks[number] = mend(blocks[number])
    if blocks.get(0, b"").startswith(b"LUKS"):
        first = b"".join(blocks.get(number, bytes(BLOCK)) for number in range(4))
        summed = first[:448] + bytes(64) + first[512:]
        blocks[0] = blocks[0][:448] + hashlib.sha256(summed).digest().ljust(64, b"\0") + blocks[0][512:]
    return SparseSource(blocks, source.size, source.sector_size)


def _mend_label(block: bytes) -> bytes:
    sector = block[512:1024]
    if not sector.startswith(b"LABELONE"):
        return block
    return block[:512] + sector[:16] + struct.pack("<I", lvm_crc(sector[20:])) + sector[20:] + block[1024:]


def _mend_block_one(block: bytes) -> bytes:
    """The second block holds md's superblock or the header of LVM's metadata area."""
    if block[4:20] == b" LVM2 x[5A%r0N*>":
        return struct.pack("<I", lvm_crc(block[4:512])) + block[4:]
    if block[:4] != b"\xfc\x4e\x2b\xa9":
        return block
    roles = min(struct.unpack_from("<I", block, 220)[0], 1920)
    size = 256 + 2 * roles
    plain = block[:216] + bytes(4) + block[220:size]
    total = sum(struct.unpack_from(f"<{size // 4}I", plain))
    total += struct.unpack_from("<H", plain, size - 2)[0] if size % 4 else 0
    return block[:216] + struct.pack("<I", ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF) + block[220:]


_MENDERS: tuple[tuple[int, Callable[[bytes], bytes]], ...] = ((0, _mend_label), (1, _mend_block_one))
