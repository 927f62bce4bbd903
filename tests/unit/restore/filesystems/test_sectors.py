"""Which volumes come to sectors of another size: asked of real filesystems, made by their own tools."""

from pathlib import Path

import pytest

from core.errors import DamagedError
from images.filesystems.detect import read_used
from images.model.layout import Filesystem, FilesystemKind
from images.sources import BytesSource, open_source
from restore.filesystems.makers import remake_doubts
from restore.filesystems.sectors import btrfs_sector_size, conversion, xfs_sector_size
from restore.filesystems.xfs_make import doubts
from restore.planning.seat import Means
from tests.flow.disks import MIB, need, run

CASES = {
    "ext4 of 4096": ("mke2fs -q -t ext4 -b 4096 {}", FilesystemKind.EXT4, Means.STREAM),
    "ext2 of 1024": (
        "mke2fs -q -t ext2 -b 1024 {}",
        FilesystemKind.EXT2,
        Means.REMAKE,
    ),
    "xfs of 512": ("mkfs.xfs -q -s size=512 {}", FilesystemKind.XFS, Means.REMAKE),
    "xfs of 4096": ("mkfs.xfs -q -s size=4096 {}", FilesystemKind.XFS, Means.STREAM),
    "btrfs": ("mkfs.btrfs -q {}", FilesystemKind.BTRFS, Means.STREAM),
    "swap": ("mkswap -q {}", FilesystemKind.SWAP, Means.STREAM),
    "fat": ("mkfs.fat -F 32 {}", FilesystemKind.FAT32, Means.REMAKE),
    "ntfs": (
        "mkntfs -q -F -f -s 512 -p 0 -H 0 -S 0 {}",
        FilesystemKind.NTFS,
        "its MFT records have 1024 bytes, and none may be smaller than a sector of 4096 bytes (many NVMe disks can be "
        "set to sectors of 512 bytes: nvme format --lbaf)",
    ),
    "exfat": (
        "mkfs.exfat {}",
        FilesystemKind.EXFAT,
        "it holds exfat, which this version does not bring to sectors of 4096 bytes",
    ),
}


def volume(path: Path, command: str, size: int = 320 * MIB) -> Path:
    need(command.split()[0])
    with path.open("wb") as stream:
        stream.truncate(size)
    run(*command.format(path).split())
    return path


@pytest.mark.parametrize("case", CASES)
def test_from_512_to_4096(case: str, tmp_path: Path) -> None:
    command, kind, expected = CASES[case]
    with open_source(volume(tmp_path / "volume.img", command)) as source:
        read = read_used(source).filesystem
        # btrfs has no reader of its own: at capture partclone is asked, and the kind comes from there.
        filesystem = Filesystem(kind=kind) if kind is FilesystemKind.BTRFS else read
        assert filesystem.kind is kind
        assert conversion(source, filesystem, 512, 4096) == expected
        assert conversion(source, filesystem, 512, 512) is Means.STREAM


@pytest.mark.parametrize("case", ["ext4 of 4096", "ext2 of 1024", "xfs of 4096", "btrfs", "swap", "fat"])
def test_from_4096_to_512(case: str, tmp_path: Path) -> None:
    command, kind, _ = CASES[case]
    with open_source(volume(tmp_path / "volume.img", command)) as source:
        filesystem = read_used(source).filesystem
        filesystem = Filesystem(kind=kind) if kind is FilesystemKind.BTRFS else filesystem
        expected = Means.REMAKE if kind is FilesystemKind.FAT32 else Means.STREAM
        assert conversion(source, filesystem, 4096, 512) is expected


def test_what_is_not_whole_sectors_is_refused() -> None:
    filesystem = Filesystem(kind=FilesystemKind.EXT4, block_size=4096)
    assert (
        conversion(BytesSource(bytes(MIB + 512)), filesystem, 512, 4096)
        == f"its {MIB + 512} bytes are not whole sectors of 4096 bytes"
    )


def test_what_nobody_knows_is_refused() -> None:
    source = BytesSource(bytes(MIB))
    assert "something liferaft does not know" in conversion(source, None, 512, 4096)
    luks = Filesystem(kind=FilesystemKind.UNKNOWN, detail="crypto_LUKS")
    assert conversion(source, luks, 512, 4096) == (
        "it holds crypto_LUKS, which this version does not bring to sectors of 4096 bytes"
    )


@pytest.mark.parametrize("kind", [FilesystemKind.XFS, FilesystemKind.BTRFS, FilesystemKind.NTFS])
@pytest.mark.parametrize("size", [4096, MIB])
def test_noise_is_a_reason_and_no_crash(kind: FilesystemKind, size: int) -> None:
    answer = conversion(BytesSource(b"\x5a" * size), Filesystem(kind=kind), 512, 4096)
    assert not isinstance(answer, Means)
    assert answer


def test_superblocks_that_are_none_are_damage() -> None:
    with pytest.raises(DamagedError, match="superblock"):
        xfs_sector_size(BytesSource(bytes(MIB)))
    with pytest.raises(DamagedError, match="superblock"):
        btrfs_sector_size(BytesSource(bytes(MIB)))


def test_an_xfs_that_cannot_be_made_again_says_why(tmp_path: Path) -> None:
    need("mkfs.xfs")
    paths = [tmp_path / "volume.img", tmp_path / "log.img", tmp_path / "realtime.img"]
    for path in paths:
        with path.open("wb") as stream:
            stream.truncate(320 * MIB)
    words = ("-l", f"logdev={paths[1]},size=64m", "-r", f"rtdev={paths[2]}", "-m", "reflink=0")
    run("mkfs.xfs", "-q", *words, paths[0])
    with open_source(paths[0]) as source:
        assert doubts(source) == (
            "it has a realtime section, whose files cannot be read out of an image",
            "its log is on another device",
        )


def test_an_unplayed_journal_speaks_against_a_copy(tmp_path: Path) -> None:
    """The flag that a mounted ext3 has; files read past its journal may be torn."""
    need("debugfs")
    path = volume(tmp_path / "volume.img", "mke2fs -q -t ext3 -b 1024 {}", 32 * MIB)
    with open_source(path) as source:
        assert remake_doubts(source, FilesystemKind.EXT3) == ()
    run("debugfs", "-w", "-R", "feature needs_recovery", path)
    with open_source(path) as source:
        (reason,) = remake_doubts(source, FilesystemKind.EXT3)
    assert reason.startswith("its files cannot be copied, because ")


def test_what_is_not_there_is_not_made_anew() -> None:
    source = BytesSource(bytes(MIB))
    assert remake_doubts(source, FilesystemKind.XFS) == ("it holds no xfs",)
    assert remake_doubts(source, FilesystemKind.NTFS) == ("this version does not make ntfs anew",)
