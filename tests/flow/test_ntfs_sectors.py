"""NTFS in sectors of another size: judged by ntfsprogs, and by the boot sector that mkntfs writes itself."""

import random
import struct
import subprocess
from pathlib import Path

import pytest

from core.errors import RefusedError
from images.filesystems.ntfs import read_ntfs
from images.sources import BlockSource, open_source
from restore.filesystems.ntfs_sectors import converted, refusal
from restore.filesystems.patches import PatchedSource
from tests.flow.disks import MIB, need, run

OLD_LBA, NEW_LBA = 2048, 256
SIZE = 24 * MIB


def volume(path: Path, sector_size: int, lba: int, *words: str) -> Path:
    need("mkntfs", "ntfsinfo", "ntfscp", "ntfscat", "ntfsresize")
    with path.open("wb") as stream:
        stream.truncate(SIZE)
    made = ("-s", str(sector_size), "-p", str(lba), "-H", "255", "-S", "63")
    run("mkntfs", "-q", "-F", "-f", "-L", "lifted", *made, *words, path)
    return path


def written(source: BlockSource, path: Path, new: int, old_lba: int, new_lba: int) -> Path:
    correction = converted(source, new, old_lba, new_lba)
    assert not correction.warnings
    with open_source(path.with_suffix(".img")) as before:
        path.write_bytes(before.read_at(0, before.size))
    with path.open("r+b") as stream:
        for patch in correction.patches:
            stream.seek(patch.offset)
            stream.write(patch.content)
    return path


def read_back(path: Path) -> bytes:
    """The file as ntfscat gives it: bytes, which ``run`` would decode."""
    return subprocess.run(["ntfscat", str(path), "file.bin"], capture_output=True, check=True, timeout=60).stdout


def fields(sector: bytes) -> tuple[int, int, int, int]:
    """Bytes of a sector, sectors of a cluster, hidden sectors, sectors of the volume (ntfs-3g's layout.h)."""
    return (
        struct.unpack_from("<H", sector, 11)[0], sector[13], struct.unpack_from("<I", sector, 28)[0],
        struct.unpack_from("<Q", sector, 40)[0],
    )  # fmt: skip


def test_4096_to_512_and_back(tmp_path: Path) -> None:
    old = volume(tmp_path / "old.img", 4096, NEW_LBA)
    content = random.Random(3).randbytes(300_000)
    (tmp_path / "file").write_bytes(content)
    run("ntfscp", "-q", "-f", old, tmp_path / "file", "file.bin")
    with open_source(old, sector_size=4096) as source:
        assert refusal(source, 512) == ""
        there = written(source, tmp_path / "old.there", 512, NEW_LBA, OLD_LBA)
    after = there.read_bytes()
    # Every sector of the partition but the last, which holds the copy.
    assert fields(after[:512]) == (512, 8, OLD_LBA, SIZE // 512 - 1)
    assert after[-512:] == after[:512]
    told = run("ntfsinfo", "-m", there)
    assert "Sector Size: 512" in told
    assert "Cluster Size: 4096" in told
    run("ntfsresize", "-c", "-f", "-P", there)
    assert read_back(there) == content
    with open_source(there) as source:
        found = read_ntfs(source)
        assert found is not None
        assert found.trusted
        assert refusal(source, 4096) == ""
        back = converted(source, 4096, OLD_LBA, NEW_LBA)
        again = PatchedSource(source, back.patches, 4096)
        # mkntfs' own boot sector for 4096 bytes is the witness.
        assert again.read_at(0, 4096) == old.read_bytes()[:4096]
        assert again.read_at(SIZE - 4096, 512) == old.read_bytes()[SIZE - 4096 : SIZE - 3584]
        found = read_ntfs(again)
        assert found is not None
        assert found.trusted


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "its MFT records have 1024 bytes, and none may be smaller than a sector of 4096 bytes ("),
        (("-c", "2048"), "its clusters have 2048 bytes, and none may be smaller than a sector of 4096 bytes ("),
    ],
)
def test_what_windows_would_not_mount_is_refused(words: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    with open_source(volume(tmp_path / "old.img", 512, OLD_LBA, *words)) as source:
        said = refusal(source, 4096)
        assert said.startswith(reason)
        assert "nvme format --lbaf" in said, "what may help is said with it"
        with pytest.raises(RefusedError, match="cannot get sectors of 4096 bytes"):
            converted(source, 4096, OLD_LBA, NEW_LBA)


@pytest.mark.parametrize(("sector_size", "record_size"), [(512, 1024), (4096, 4096)])
def test_no_tool_makes_records_smaller_than_a_sector(sector_size: int, record_size: int, tmp_path: Path) -> None:
    """The second opinion: the field says clusters, here of 4096 bytes, or the power of two as a negative number."""
    path = volume(tmp_path / "volume.img", sector_size, OLD_LBA if sector_size == 512 else NEW_LBA)
    value = int.from_bytes(path.read_bytes()[0x40:0x41], "little", signed=True)
    assert (value * 4096 if value > 0 else 1 << -value) == record_size


def test_large_clusters_are_refused(tmp_path: Path) -> None:
    path = volume(tmp_path / "old.img", 4096, NEW_LBA, "-c", "65536")
    with open_source(path, sector_size=4096) as source:
        assert refusal(source, 512) == "its index blocks of 4096 bytes are smaller than its clusters of 65536"


def test_a_volume_marked_for_a_check_is_refused(tmp_path: Path) -> None:
    path = volume(tmp_path / "old.img", 4096, NEW_LBA)
    run("ntfsfix", path)
    with open_source(path, sector_size=4096) as source:
        assert refusal(source, 512).startswith("its boot sector is not rewritten, because it")


def test_the_same_size_is_nothing_to_do(tmp_path: Path) -> None:
    with open_source(volume(tmp_path / "old.img", 512, OLD_LBA)) as source:
        assert converted(source, 512, OLD_LBA, OLD_LBA).patches == ()
