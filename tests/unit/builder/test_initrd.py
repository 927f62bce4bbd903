"""Initrds; the bytes come from cpio's own writer as the kernel documents it, never from ours alone."""

import gzip
import lzma
import stat

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from builder.initrd import InitrdFile, read_initrd, write_initrd
from core.errors import DamagedError


def _entry(name: str, content: bytes = b"", mode: int = 0o100644, links: int = 1) -> bytes:
    """By hand from buffer-format.rst: 6 bytes magic, 13 fields of 8 hex digits, name, padding, data, padding."""
    raw = name.encode() + b"\0"
    fields = (7, mode, 0, 0, links, 0, len(content), 8, 1, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(f"{field:08x}".encode() for field in fields) + raw
    head += b"\0" * (-len(head) % 4)
    return head + content + b"\0" * (-len(content) % 4)


def _archive(*entries: bytes) -> bytes:
    return b"".join(entries) + _entry("TRAILER!!!", mode=0)


_FIRST = _archive(_entry("a", mode=0o40755), _entry("a/b", b"12345"))
_SECOND = _archive(_entry("a/b", b"other"), _entry("l", b"a/b", 0o120777))


@pytest.mark.parametrize(
    "pack",
    [bytes, zstandard.ZstdCompressor().compress, lzma.compress, gzip.compress],
    ids=["plain", "zstd", "xz", "gzip"],
)
def test_a_row_of_archives_is_read_in_order(pack: object) -> None:
    assert callable(pack)
    content = _FIRST + bytes(512 - len(_FIRST) % 512) + pack(_SECOND) + b"\0\0" + pack(_FIRST)
    found = [(file.name, file.content, file.is_file) for file in read_initrd(content, name="x")]
    first = [("a", b"", False), ("a/b", b"12345", True)]
    assert found == [*first, ("a/b", b"other", True), ("l", b"a/b", False), *first]


def test_padding_counts_from_the_archives_own_start() -> None:
    content = b"\0" * 3 + _FIRST
    assert [file.name for file in read_initrd(content, name="x")] == ["a", "a/b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not an initrd at all", "offset 0: expected a cpio archive"),
        (_entry("a/b", b"12345")[:-4], "ends at byte"),
        (_entry("a/b", b"12345"), "expected 070701, found the end of the file"),
        (b"070701" + b"zz" * 52 + b"a\0\0\0", "expected 13 numbers"),
        (_entry("a").replace(b"00000002", b"7fffffff"), "length of a name"),
        (zstandard.ZstdCompressor().compress(_FIRST)[:-3], "is cut off"),
        (lzma.compress(_FIRST)[:-20], "is cut off"),
        (gzip.compress(_FIRST, mtime=0)[:30] + b"\xff" * 30, "cannot be unpacked"),
    ],
)
def test_damage_is_named(content: bytes, said: str) -> None:
    with pytest.raises(DamagedError, match=said):
        list(read_initrd(content, name="x.img"))


@given(st.binary(max_size=300))
def test_any_bytes_are_files_or_an_error(content: bytes) -> None:
    for start in (b"", _FIRST, b"070701", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08", b"\xfd7zXZ\0"):
        try:
            assert all(isinstance(file, InitrdFile) for file in read_initrd(start + content, name="x"))
        except DamagedError as error:
            assert "x" in error.message


def test_a_written_part_has_the_folders_and_is_the_same_each_time() -> None:
    files = [InitrdFile("usr/lib/x", stat.S_IFREG | 0o644, b"x"), InitrdFile("usr/lib/y/z", stat.S_IFREG | 0o755, b"")]
    part = write_initrd(files)
    assert part == write_initrd(reversed(files))
    names = [(file.name, oct(file.mode)) for file in read_initrd(part, name="x")]
    assert names == [
        ("usr", "0o40755"),
        ("usr/lib", "0o40755"),
        ("usr/lib/x", "0o100644"),
        ("usr/lib/y", "0o40755"),
        ("usr/lib/y/z", "0o100755"),
    ], "a folder comes before what is in it"


def test_of_links_to_one_file_each_has_its_bytes() -> None:
    """busybox's programs: GNU cpio writes the bytes with the last name only."""
    content = _archive(
        _entry("sh", links=3), _entry("own"), _entry("ls", links=3), _entry("busybox", b"ELF", links=3), _entry("new")
    )
    found = {file.name: file.content for file in read_initrd(content, name="x")}
    assert found == {"sh": b"ELF", "own": b"", "ls": b"ELF", "busybox": b"ELF", "new": b""}
