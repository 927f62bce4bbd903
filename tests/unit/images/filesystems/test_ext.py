"""ext2, ext3, ext4: real filesystems of every layout, against dumpe2fs, partclone, e2fsck and themselves."""

import gzip
import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DamagedError, DeviceError
from images.filesystems.ext import read_ext
from images.model.extents import Extent
from images.model.layout import FilesystemKind
from images.sources import BytesSource
from tests.unit.images.filesystems import real
from tests.unit.images.filesystems.real import MIB, dumpe2fs_used, make_file, run, used, whole

pytestmark = pytest.mark.skipif(bool(real.needs("mke2fs", "dumpe2fs", "debugfs")), reason="e2fsprogs is not installed")

LAYOUTS = {
    "ext2-1k": (40, "-t ext2 -b 1024"),
    "ext2-4k": (40, "-t ext2 -b 4096"),
    "ext2-no-sparse-super": (40, "-t ext2 -b 1024 -O ^sparse_super,^resize_inode"),
    "ext2-revision-0": (24, "-t ext2 -b 1024 -r 0"),
    "ext3-1k": (40, "-t ext3 -b 1024"),
    "ext3-4k": (64, "-t ext3 -b 4096"),
    "ext4-1k": (64, "-t ext4 -b 1024"),
    "ext4-2k": (100, "-t ext4 -b 2048"),
    "ext4-4k": (200, "-t ext4 -b 4096"),
    "ext4-64k": (100, "-t ext4 -b 65536"),
    "ext4-no-journal": (64, "-t ext4 -O ^has_journal"),
    "ext4-no-flex": (80, "-t ext4 -b 1024 -O ^flex_bg"),
    "ext4-gdt-csum": (80, "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg"),
    "ext4-gdt-csum-32-no-flex": (80, "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit,^flex_bg"),
    "ext4-no-csum": (80, "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg"),
    "ext4-32bit": (80, "-t ext4 -b 1024 -O ^64bit"),
    "ext4-csum-seed": (64, "-t ext4 -O metadata_csum_seed"),
    "ext4-meta-bg": (150, "-t ext4 -b 1024 -O meta_bg,^resize_inode"),
    "ext4-meta-bg-32": (150, "-t ext4 -b 1024 -O meta_bg,^resize_inode,^64bit,^flex_bg"),
    "ext4-meta-bg-4k": (600, "-t ext4 -b 4096 -g 1024 -O meta_bg,^resize_inode"),
    "ext4-sparse-super2": (80, "-t ext4 -b 1024 -O sparse_super2"),
    "ext4-sparse-super2-gdt-csum": (80, "-t ext4 -b 1024 -O sparse_super2,^metadata_csum,uninit_bg,^resize_inode"),
    "ext4-bigalloc": (120, "-t ext4 -O bigalloc -C 65536"),
    "ext4-bigalloc-1k": (150, "-t ext4 -b 1024 -O bigalloc -C 16384"),
    "ext4-bigalloc-1k-meta-bg": (60, "-t ext4 -b 1024 -O bigalloc,meta_bg,^resize_inode -C 4096 -g 1024"),
    "ext4-small-groups": (60, "-t ext4 -b 1024 -g 256"),
    "ext4-everything": (64, "-t ext4 -O inline_data,large_dir,casefold,encrypt,project,quota,verity,ea_inode"),
    "ext4-odd-size": (0, "-t ext4 -b 1024"),
    "ext4-inode-1024": (64, "-t ext4 -I 1024 -N 3000"),
    "ext4-orphan-file": (64, "-t ext4 -O orphan_file"),
    "ext4-32k": (100, "-t ext4 -b 32768"),
    "ext4-fast-commit": (64, "-t ext4 -O fast_commit"),
    "ext4-stable-inodes": (64, "-t ext4 -O stable_inodes,uninit_bg,large_file,huge_file"),
    "ext4-no-resize-inode": (64, "-t ext4 -b 1024 -O ^resize_inode"),
    "ext4-two-backups-32bit": (80, "-t ext4 -b 1024 -O sparse_super2,^64bit,^flex_bg"),
}

#: Where partclone is asked too. It sleeps for seconds; and it takes clusters for blocks with bigalloc.
BY_PARTCLONE = {"ext2-1k", "ext3-4k", "ext4-1k", "ext4-gdt-csum", "ext4-meta-bg"}


def make_ext(path: Path, megabytes: int, options: str, tree: Path | None = None) -> Path:
    make_file(path, megabytes * MIB or 31 * MIB + 77 * 1024)
    run("mke2fs", "-q", "-F", *options.split(), *(("-d", tree) if tree else ()), path)
    return path


def debugfs(path: Path, *commands: str) -> None:
    run("debugfs", "-w", "-f", "-", path, stdin="\n".join(commands) + "\n")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real.make_tree(tmp_path_factory.mktemp("ext") / "tree", 1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small ext4 with all checksums, for damage."""
    path = make_ext(tmp_path_factory.mktemp("plain") / "fs", 20, "-t ext4 -b 1024 -L the\u00e4label -U clear")
    return path.read_bytes()


@pytest.mark.parametrize("name", LAYOUTS)
def test_equals_dumpe2fs_and_covers_partclone(tmp_path: Path, tree: Path, name: str) -> None:
    path = make_ext(tmp_path / "fs.img", *LAYOUTS[name], tree)
    # holes in the allocation, as files come and go
    debugfs(path, 'rm "/folder 1/1/file-1-é.bin"', 'rm "/folder 3/0/file-3-é.bin"', f"write {tree / 'sparse'} again")
    answer, extents = used(path)
    assert answer.reason == ""
    assert answer.trusted
    assert answer.filesystem.kind.value == name[:4]
    assert extents == dumpe2fs_used(path)
    if name in BY_PARTCLONE and not real.needs("partclone.extfs"):
        real.assert_covers(extents, real.partclone_used("partclone.extfs", path))


@pytest.mark.parametrize("name", ["ext2-1k", "ext3-4k", "ext4-1k", "ext4-gdt-csum", "ext4-small-groups"])
def test_copy_of_used_extents_is_clean_and_complete(tmp_path: Path, tree: Path, name: str) -> None:
    path = make_ext(tmp_path / "fs.img", *LAYOUTS[name], tree)
    copy = real.restore_copy(path, used(path)[1])
    run("e2fsck", "-fn", copy)
    (tmp_path / "out").mkdir()
    run("debugfs", "-R", f"rdump / {tmp_path / 'out'}", copy)
    assert real.digests(tmp_path / "out") == real.digests(tree)


@pytest.mark.parametrize("options", ["-t ext4 -b 1024", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^flex_bg"])
def test_resized_filesystem(tmp_path: Path, tree: Path, options: str) -> None:
    """resize2fs puts the metadata of new groups where mke2fs would not."""
    path = make_ext(tmp_path / "fs.img", 40, options, tree)
    for size in (120, 50):
        if size > 40:
            os.truncate(path, max(size * MIB, path.stat().st_size))
        run("e2fsck", "-fp", path, codes=(0, 1))
        run("resize2fs", path, f"{size}M")
        answer, extents = used(path)
        assert answer.trusted, answer.reason
        assert answer.filesystem.size == size * MIB
        assert extents == dumpe2fs_used(path)
        run("e2fsck", "-fn", real.restore_copy(path, extents))


def test_facts_equal_blkid(tmp_path: Path, tree: Path) -> None:
    path = make_ext(tmp_path / "fs.img", 40, "-t ext4 -b 2048 -L größe-☃", tree)
    facts = dict(line.split("=", 1) for line in run("blkid", "-p", "-o", "export", path).splitlines() if "=" in line)
    filesystem = used(path)[0].filesystem
    assert filesystem.kind is FilesystemKind.EXT4
    assert filesystem.detail == facts["TYPE"]
    assert filesystem.uuid == facts["UUID"]
    assert filesystem.label == "größe-☃"
    assert filesystem.block_size == int(facts["BLOCK_SIZE"]) == 2048
    assert filesystem.size == 40 * MIB


def test_space_behind_the_filesystem_is_not_kept(tmp_path: Path) -> None:
    path = make_ext(tmp_path / "fs.img", 40, "-t ext4")
    os.truncate(path, 50 * MIB)
    answer, extents = used(path)
    assert answer.trusted
    assert extents[-1].end <= 40 * MIB


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        (["feature needs_recovery"], "its journal needs recovery"),
        (["ssv state 0"], "it is mounted, or was not cleanly unmounted"),
        (["ssv state 3"], "it has recorded errors"),
        (["ssv state 5"], "it is mounted, or was not cleanly unmounted"),
        (["ssv journal_inum 0", "ssv journal_dev 0x803"], "its journal is on another device"),
        (["ssv feature_incompat 0x80002c2"], "features liferaft does not know (incompat 0x8000000)"),
        (["ssv feature_ro_compat 0x4000046b"], "features liferaft does not know (ro_compat 0x40000000)"),
        (["ssv blocks_count 80000"], "it claims 81920000 bytes, but the volume has 67108864"),
        (["set_bg 3 free_blocks_count 17", "set_bg 3 checksum calc"], "count of free blocks contradict"),
        (["set_bg 3 block_bitmap 99999", "set_bg 3 checksum calc"], "block bitmap of group 3 lies outside"),
        (["set_bg 2 checksum 0x1234"], "the descriptor of group 2 does not match its checksum"),
        (["freeb 20000 10"], "the block bitmap of group 2"),
    ],
)
def test_doubt_is_captured_whole_and_said(tmp_path: Path, tree: Path, commands: list[str], words: str) -> None:
    path = make_ext(tmp_path / "fs.img", 64, "-t ext4 -b 1024", tree)
    debugfs(path, *commands)
    if commands[0].startswith("freeb"):  # debugfs keeps counts and checksums right: put the old bitmap's back
        damage_bitmap(path, 2)
    reason = whole(path)
    assert words in reason
    assert reason.endswith("")


@pytest.mark.parametrize(
    "options", ["-t ext3", "-t ext4 -b 1024", "-t ext4 -O bigalloc", "-t ext4 -O ^64bit,meta_bg,^resize_inode"]
)
def test_clean_superblock_over_a_journal_that_is_not_empty(tmp_path: Path, tree: Path, options: str) -> None:
    """debugfs writes a transaction (jw); e2fsck plays it although the superblock's flag is off."""
    path = make_ext(tmp_path / "fs.img", 64, options, tree)
    assert used(path)[0].trusted
    debugfs(path, "journal_open", "journal_write -b 333 /dev/zero", "journal_close")
    assert "needs_recovery" in run("dumpe2fs", "-h", path)
    assert whole(path) == "its journal needs recovery: it is mounted, or was not cleanly unmounted"
    debugfs(path, "feature -needs_recovery")
    assert whole(path).startswith("its journal is not empty")
    assert "needs_recovery" not in run("dumpe2fs", "-h", path)
    assert "recover" in run("e2fsck", "-fy", path, codes=(0, 1, 2)).lower()
    assert used(path)[0].trusted


def test_journal_that_is_no_journal(tmp_path: Path) -> None:
    path = make_ext(tmp_path / "fs.img", 40, "-t ext4 -b 1024 -O ^metadata_csum")
    blocks = run("debugfs", "-R", "blocks <8>", path).split()
    content = bytearray(path.read_bytes())
    content[int(blocks[0]) * 1024] ^= 1
    path.write_bytes(content)
    assert whole(path) == f"its journal is damaged: block {blocks[0]} is not its superblock"
    debugfs(path, "clri <8>")
    assert whole(path) == "its journal is damaged: its first block cannot be found"
    debugfs(path, "ssv journal_inum 4000000")
    assert whole(path) == "its journal is damaged: it has no inode 4000000"


def test_multi_mount_protection(tmp_path: Path) -> None:
    """In use: any sequence but "clean"; the machine's name is in the block (fs/ext4/mmp.c)."""
    path = make_ext(tmp_path / "fs.img", 40, "-t ext4 -b 1024 -O mmp,^metadata_csum")
    answer, extents = used(path)
    assert answer.trusted, answer.reason
    assert extents == dumpe2fs_used(path)
    content = bytearray(path.read_bytes())
    mmp = struct.unpack_from("<Q", content, 1024 + 360)[0] * 1024
    assert f"block_number: {mmp // 1024}\n" in run("debugfs", "-R", "dump_mmp", path)
    content[mmp + 16 : mmp + 24] = b"node-7\0\0"
    for sequence, words in (
        (17, "it is in use, or was not cleanly unmounted, on node-7"),
        (0xE24D4D50, "e2fsck is at"),
    ):
        struct.pack_into("<I", content, mmp + 4, sequence)
        path.write_bytes(content)
        assert words in whole(path)
    content[mmp] ^= 1
    path.write_bytes(content)
    assert "its multi-mount protection is damaged: block" in whole(path)
    struct.pack_into("<Q", content, 1024 + 360, 1 << 40)
    path.write_bytes(content)
    assert "its multi-mount protection is damaged: its block is" in whole(path)


def damage_bitmap(path: Path, group: int) -> None:
    content = bytearray(path.read_bytes())
    descriptor = 2 * 1024 + 64 * group
    block = struct.unpack_from("<I", content, descriptor)[0]
    content[block * 1024 + 5] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("options", ["-O ^metadata_csum,uninit_bg", "-O ^metadata_csum,^uninit_bg"])
def test_bitmap_without_checksum_is_held_against_the_count(tmp_path: Path, tree: Path, options: str) -> None:
    path = make_ext(tmp_path / "fs.img", 64, f"-t ext4 -b 1024 -O ^64bit {options}", tree)
    content = bytearray(path.read_bytes())
    content[struct.unpack_from("<I", content, 2048)[0] * 1024 + 5] ^= 0x10
    path.write_bytes(content)
    assert "the block bitmap of group 0 and its count of free blocks contradict each other" in whole(path)


def test_external_journal_device(tmp_path: Path) -> None:
    path = make_ext(tmp_path / "journal.img", 20, "-O journal_dev")
    answer, _ = used(path)
    assert not answer.trusted
    assert answer.filesystem.kind is FilesystemKind.UNKNOWN
    assert answer.filesystem.detail == "jbd"


@pytest.mark.parametrize(
    ("offset", "value"), [(4, 1), (24, 200), (28, 99), (32, 8), (40, 0), (88, 77), (20, 9), (254, 3)]
)
def test_superblock_whose_numbers_contradict(tmp_path: Path, offset: int, value: int) -> None:
    path = make_ext(tmp_path / "fs.img", 20, "-t ext4 -b 1024 -O ^metadata_csum")
    content = bytearray(path.read_bytes())
    struct.pack_into("<H" if offset in (88, 254) else "<I", content, 1024 + offset, value)
    path.write_bytes(content)
    reason = whole(path)
    assert reason.startswith("its superblock is damaged: ") or "group" in reason


def test_superblock_checksum(plain: bytes) -> None:
    content = bytearray(plain)
    content[1024 + 48] ^= 1  # the time of the last write: nothing that a reader would miss
    answer = read_ext(BytesSource(bytes(content)))
    assert answer is not None
    assert answer.reason == "its superblock is damaged: it does not match its checksum"


def test_truncated_and_foreign_sources(plain: bytes) -> None:
    for size in (512, 1024, 2047):
        assert read_ext(BytesSource(plain[:size])) is None
    cut = read_ext(BytesSource(plain[: 10 * MIB]))
    assert cut is not None
    assert "it claims 20971520 bytes, but the volume has 10485760" in cut.reason
    assert read_ext(BytesSource(bytes(MIB))) is None


class BoundedSource(BytesSource):
    """Fails when more is asked for than a reader may hold at once."""

    def read_at(self, offset: int, length: int) -> bytes:
        assert length <= 16 * MIB
        return super().read_at(offset, length)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=5),
    deep=st.lists(st.tuples(st.integers(1024, 12000), st.integers(0, 255)), max_size=3),
)
def test_any_damage_is_doubt_or_extents_inside(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], deep: list[tuple[int, int]]
) -> None:
    """Without checksums, so that the damage gets past them."""
    path = tmp_path_factory.getbasetemp() / "property-ext.img"
    if not path.exists():
        make_ext(path, 5, "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,^has_journal,^resize_inode")
    content = bytearray(path.read_bytes())
    for offset, value in (*changes, *deep):
        content[1024 + offset] = value
    try:
        answer = read_ext(BoundedSource(bytes(content)))
        if answer is None:
            return
        extents = list(answer.extents())
    except (DamagedError, DeviceError) as error:
        assert error.message
        return
    real.assert_sound(extents, len(content))
    assert answer.trusted or extents == [Extent(0, len(content))]


@pytest.mark.skipif(not real.DATA.is_dir(), reason=real.NO_DATA)
@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in real.DATA.glob("tytso+e2fsprogs/tests/*/image.gz"))
)
def test_images_of_e2fsprogs(tmp_path: Path, name: str) -> None:
    """Clean, dirty and corrupt ones: where e2fsck finds no fault, the map equals dumpe2fs; else no crash."""
    content = gzip.decompress((real.DATA / "tytso+e2fsprogs" / "tests" / name / "image.gz").read_bytes())
    path = tmp_path / "fs.img"
    path.write_bytes(content)
    answer, extents = used(path)
    if name == "f_illitable_flexbg":  # e2fsck 1.47.0 -fn does not end on it
        assert not answer.trusted
        return
    fsck = subprocess.run(["e2fsck", "-fn", path], capture_output=True, timeout=60).returncode
    if answer.trusted and fsck == 0:
        assert extents == dumpe2fs_used(path)
