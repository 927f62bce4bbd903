"""Swap areas: the header page is kept, a hibernated system never lost."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.filesystems.swap import read_swap
from images.model.extents import Extent
from images.model.layout import FilesystemKind
from images.sources import BytesSource
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, make_file, run, used, whole

pytestmark = pytest.mark.skipif(bool(real.needs("mkswap")), reason="mkswap is not installed")

UUID = "01234567-89ab-cdef-0123-456789abcdef"


def make_swap(path: Path, *options: str) -> Path:
    make_file(path, 10 * MIB).chmod(0o600)
    run("mkswap", "-U", UUID, "-L", "größe", *options, path)
    return path


@pytest.mark.parametrize("page_size", [4096, 8192, 65536])
def test_only_the_header_page_is_data(tmp_path: Path, page_size: int) -> None:
    path = make_swap(tmp_path / "swap", "--pagesize", str(page_size))
    answer, extents = used(path)
    assert answer.trusted
    assert extents == [Extent(0, page_size)]
    filesystem = answer.filesystem
    assert (filesystem.kind, filesystem.detail) == (FilesystemKind.SWAP, "swap")
    assert (filesystem.uuid, filesystem.label) == (UUID, "größe")
    assert (filesystem.block_size, filesystem.size) == (page_size, 10 * MIB)


def test_copy_of_used_extents_is_the_same_swap(tmp_path: Path) -> None:
    path = make_swap(tmp_path / "swap")
    copy = real.restore_copy(path, used(path)[1])
    run("swaplabel", copy)
    assert run("blkid", "-p", "-o", "value", copy) == run("blkid", "-p", "-o", "value", path)


@pytest.mark.parametrize(
    "signature", [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001", b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"]
)
def test_hibernated_system_is_kept_whole(tmp_path: Path, signature: bytes) -> None:
    path = make_swap(tmp_path / "swap")
    content = bytearray(path.read_bytes())
    content[4086 : 4086 + len(signature)] = signature
    path.write_bytes(content)
    assert whole(path) == "it holds the memory of a hibernated system"


def test_doubt(tmp_path: Path) -> None:
    path = make_swap(tmp_path / "swap")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: 5 * MIB])
    assert f"it claims {10 * MIB} bytes, but the volume has {5 * MIB}" in whole(path)
    content[1024] = 7
    path.write_bytes(content)
    assert "its version is not 1" in whole(path)
    content[4086:4096] = b"SWAP-SPACE"
    path.write_bytes(content)
    assert "older than Linux 2.2" in whole(path)
    assert read_swap(BytesSource(bytes(content[:4095]))) is None


@given(st.binary(max_size=64), st.integers(0, 9000))
def test_any_header_is_answered(header: bytes, size: int) -> None:
    content = bytes(1024) + header + bytes(3062 - len(header)) + b"SWAPSPACE2" + bytes(size)
    answer = read_swap(BytesSource(content))
    assert answer is not None
    real.assert_sound(list(answer.extents()), len(content))
