"""What files take more in larger blocks, by the inodes that xfs_db counts."""

import re
import subprocess
from pathlib import Path

import pytest

from core.errors import DamagedError
from core.units import MIB
from images.sources import open_source
from restore.filesystems.xfs_coarser import coarser_bytes
from tests.unit.images.filesystems import real

pytestmark = pytest.mark.skipif(bool(real.needs("mkfs.xfs", "xfs_db")), reason="xfsprogs is not installed")


@pytest.fixture
def filesystem(tmp_path: Path) -> Path:
    path = tmp_path / "xfs"
    with path.open("wb") as stream:
        stream.truncate(64 * MIB)
    subprocess.run(
        ["mkfs.xfs", "-q", "-b", "size=1024", "-d", "agcount=2", "--unsupported", path], check=True, capture_output=True
    )
    return path


def inodes(path: Path) -> int:
    """Those in use, by xfs_db."""
    words = ["-c", "agi 0", "-c", "p count freecount", "-c", "agi 1", "-c", "p count freecount"]
    said = subprocess.run(["xfs_db", "-r", *words, path], check=True, capture_output=True, text=True).stdout
    counts = [int(found) for found in re.findall(r"^count = (\d+)", said, re.MULTILINE)]
    free = [int(found) for found in re.findall(r"^freecount = (\d+)", said, re.MULTILINE)]
    assert len(counts) == len(free) == 2
    return sum(counts) - sum(free)


def test_every_inode_may_have_attributes_in_a_block_of_their_own(filesystem: Path) -> None:
    with open_source(filesystem) as source:
        used = inodes(filesystem)
        assert used > 0
        assert coarser_bytes(source, 4096) == used * 3072
        assert coarser_bytes(source, 1024) == 0


@pytest.mark.parametrize("version", ["crc=1,rmapbt=1", "crc=0"])
def test_a_file_fills_its_last_block_as_far_as_it_goes(version: str, tmp_path: Path) -> None:
    sizes = (1, 1024, 1025, 4096, 4097, 300_000)
    lines = ["/", "0 0", "d--755 0 0"]
    for size in sizes:
        (tmp_path / f"f{size}").write_bytes(bytes([7]) * size)
        lines.append(f"f{size} ---644 0 0 {tmp_path}/f{size}")
    (tmp_path / "proto").write_text("\n".join([*lines, "$", "$", ""]))
    path = tmp_path / "xfs"
    with path.open("wb") as stream:
        stream.truncate(64 * MIB)
    words = ("-q", "-b", "size=1024", "-m", version, "-d", "agcount=2", "-p", tmp_path / "proto", "--unsupported")
    subprocess.run(["mkfs.xfs", *words, path], check=True, capture_output=True)
    more = sum(-(-size // 4096) * 4096 - -(-size // 1024) * 1024 for size in sizes)
    with open_source(path) as source:
        assert inodes(path) >= len(sizes)
        assert coarser_bytes(source, 4096) == inodes(path) * 3072 + more


def test_a_header_that_is_none_is_told(filesystem: Path) -> None:
    with filesystem.open("r+b") as stream:
        stream.seek(2 * 512)
        stream.write(b"XXXX")
    with (
        open_source(filesystem) as source,
        pytest.raises(DamagedError, match=r"allocation group 0, byte 1024: b'XXXX'"),
    ):
        coarser_bytes(source, 4096)
