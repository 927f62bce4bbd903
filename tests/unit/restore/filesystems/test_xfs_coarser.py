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


def test_every_inode_may_have_two_ends(filesystem: Path) -> None:
    with open_source(filesystem) as source:
        used = inodes(filesystem)
        assert used > 0
        assert coarser_bytes(source, 4096) == used * 2 * 3072
        assert coarser_bytes(source, 1024) == 0


def test_a_header_that_is_none_is_told(filesystem: Path) -> None:
    with filesystem.open("r+b") as stream:
        stream.seek(2 * 512)
        stream.write(b"XXXX")
    with (
        open_source(filesystem) as source,
        pytest.raises(DamagedError, match=r"allocation group 0, byte 1024: b'XXXX'"),
    ):
        coarser_bytes(source, 4096)
