"""What lies in a volume: one answer or a reason, and the real volumes of other projects."""

import gzip
import hashlib
import json
import lzma
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from images.filesystems.containers import container_name
from images.filesystems.detect import read_used
from images.model.extents import Extent, gaps
from images.model.layout import FilesystemKind
from images.signatures import probe
from images.sources import BytesSource, WindowSource, open_source
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, make_file, run, used, whole
from tests.unit.images.filesystems.test_xfs import free_list

pytestmark = pytest.mark.skipif(bool(real.needs("mke2fs", "mkfs.vfat")), reason="e2fsprogs or dosfstools are missing")

#: partclone 0.3.23 misreads FAT12 (fsck.fat and mtools agree with us).
_WRONG_IN_PARTCLONE = {FilesystemKind.FAT12}


def make_ext(path: Path) -> Path:
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", make_file(path, 16 * MIB))
    return path


def test_unknown_is_named_by_libblkid_or_not_at_all(tmp_path: Path) -> None:
    assert whole(make_file(tmp_path / "zeros", MIB)) == "it holds nothing liferaft recognises"
    if real.needs("mkfs.f2fs"):
        pytest.skip(real.needs("mkfs.f2fs"))
    run("mkfs.f2fs", "-q", "-l", "thelabel", path := make_file(tmp_path / "f2fs", 100 * MIB))
    answer, _ = used(path)
    assert answer.reason == "liferaft has no reader for f2fs"
    assert (answer.filesystem.kind, answer.filesystem.detail) == (FilesystemKind.UNKNOWN, "f2fs")
    assert answer.filesystem.label == "thelabel"
    assert answer.filesystem.uuid == run("blkid", "-p", "-o", "value", "-s", "UUID", path).strip()


def test_a_partition_of_a_disk_is_probed_where_it_lies(tmp_path: Path) -> None:
    volume = make_ext(tmp_path / "volume")
    disk = make_file(tmp_path / "disk", 20 * MIB)
    with disk.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(volume.read_bytes())
    with open_source(disk) as source:
        answer = read_used(WindowSource(WindowSource(source, MIB, 18 * MIB), MIB, 16 * MIB))
        assert answer.trusted
        assert list(answer.extents()) == used(volume)[1]
        signature = probe(source.descriptor, 2 * MIB, 16 * MIB)
        assert signature is not None
        assert (signature.name, signature.uuid) == ("ext4", answer.filesystem.uuid)
        assert probe(source.descriptor, 19 * MIB, MIB) is None


def test_two_filesystems_at_once_are_nobodys(tmp_path: Path) -> None:
    fat = make_file(tmp_path / "fat", 16 * MIB)
    run("mkfs.vfat", fat)
    content = bytearray(fat.read_bytes())
    content[1024:2048] = make_ext(tmp_path / "ext").read_bytes()[1024:2048]
    assert "looks like ext4 and vfat at once" in read_used(BytesSource(bytes(content))).reason
    fat.write_bytes(content)
    assert "at once" in whole(fat)


def test_libblkid_may_know_better(tmp_path: Path) -> None:
    """A stale btrfs superblock beside a sound ext4: no reader of ours sees it, libblkid does."""
    path = make_ext(tmp_path / "fs")
    content = bytearray(path.read_bytes())
    content[65536 + 64 : 65536 + 72] = b"_BHRfS_M"
    assert read_used(BytesSource(bytes(content))).trusted
    path.write_bytes(content)
    reason = whole(path)
    assert reason in (
        "libblkid finds signatures beside that of ext4",
        "liferaft has no reader for btrfs",
    )


def test_members_of_containers_are_not_the_filesystem_on_them(tmp_path: Path) -> None:
    content = make_ext(tmp_path / "fs").read_bytes()
    md = struct.pack("<I", 0xA92B4EFC)
    for offset, name in ((4096, "1.2"), (len(content) - 8192, "1.0"), (len(content) - 65536, "0.90")):
        changed = content[:offset] + md + content[offset + 4 :]
        assert container_name(BytesSource(changed)) == "linux_raid_member", name
        assert read_used(BytesSource(changed)).reason == "liferaft has no reader for linux_raid_member"
    label = b"LABELONE" + bytes(16) + b"LVM2 001"
    assert container_name(BytesSource(content[:512] + label + content[544:])) == "LVM2_member"
    assert container_name(BytesSource(content)) is None
    assert container_name(BytesSource(b"LUKS\xba\xbe")) == "crypto_LUKS"


@pytest.mark.skipif(bool(real.needs("cryptsetup")), reason=real.needs("cryptsetup"))
def test_luks_as_cryptsetup_makes_it(tmp_path: Path) -> None:
    path = make_file(tmp_path / "luks", 20 * MIB)
    run("cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", path, "-", stdin="x")
    assert whole(path) == "liferaft has no reader for crypto_LUKS"
    assert used(path)[0].filesystem.detail == "crypto_LUKS"


def unzstd(packed: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(packed)


_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
    ".zst": unzstd,
}


def truths() -> Iterator[tuple[str, dict[str, Any]]]:
    """Volumes of other projects, small enough, and what blkid and partclone said of them."""
    for path in sorted(real.TRUTH.rglob("*.gt.json")) if real.TRUTH.is_dir() else []:
        truth = json.loads(path.read_text())
        wanted = truth.get("fs") and not truth.get("container") and truth["size"] <= 70 * MIB
        if wanted and any((real.DATA / f"{truth['image']}{suffix}").exists() for suffix in _UNPACK):
            yield truth["image"], truth


@pytest.mark.skipif(not real.TRUTH.is_dir(), reason=real.NO_DATA)
@pytest.mark.parametrize(("name", "truth"), list(truths()), ids=lambda value: value if isinstance(value, str) else "")
def test_volumes_of_other_projects(tmp_path: Path, name: str, truth: dict[str, Any]) -> None:
    packed = {suffix: real.DATA / f"{name}{suffix}" for suffix in _UNPACK}
    content = next(_UNPACK[suffix](file.read_bytes()) for suffix, file in packed.items() if file.exists())
    path = tmp_path / "volume"
    path.write_bytes(content)
    answer, extents = used(path)
    facts = truth["fs"]["blkid"]
    filesystem = answer.filesystem
    assert filesystem.detail == facts.get("TYPE", "")
    assert filesystem.uuid == facts.get("UUID", "")
    assert filesystem.label == facts.get("LABEL", "").replace("\\ ", " ")
    if filesystem.kind is FilesystemKind.UNKNOWN:
        assert extents == [Extent(0, len(content))]
    elif answer.trusted and filesystem.kind not in _WRONG_IN_PARTCLONE:
        partclone = truth["fs"]["partclone"]
        if filesystem.kind is FilesystemKind.XFS:  # partclone takes the groups' free lists for free
            listed = free_list(path)
            extents = [part for extent in extents for part in gaps(listed, extent)]
        assert bitmap_digest(extents, partclone["block_size"], partclone["device_blocks"]) == partclone["bitmap_sha256"]
    elif not answer.trusted:
        assert answer.reason


def bitmap_digest(extents: list[Extent], block_size: int, blocks: int) -> str:
    """A bitmap as partclone keeps it: a bit for each block, the first in the lowest."""
    bits = np.zeros(blocks, dtype=np.uint8)
    for extent in extents:
        bits[extent.start // block_size : -(-extent.end // block_size)] = 1
    return hashlib.sha256(np.packbits(bits, bitorder="little").tobytes()).hexdigest()


@pytest.mark.skipif(not real.DATA.is_dir(), reason=real.NO_DATA)
def test_signatures_of_util_linux(tmp_path: Path) -> None:
    """Filesystems, RAID members and containers of all sorts, most of them cut short: none is taken for another."""
    path, trusted = tmp_path / "volume", 0
    images = sorted(real.DATA.glob("util-linux+util-linux/tests/ts/blkid/images-fs/*.img.xz"))
    assert images
    for image in images:
        content = lzma.decompress(image.read_bytes())
        if not content or len(content) > 16 * MIB:
            continue
        path.write_bytes(content)
        answer, extents = used(path)
        assert answer.trusted or extents == [Extent(0, len(content))], image
        if answer.trusted:
            trusted += 1
            facts = run("blkid", "-p", "-o", "value", "-s", "TYPE", path).strip()
            assert answer.filesystem.detail == facts, image
        else:
            assert answer.reason, image
    assert trusted
