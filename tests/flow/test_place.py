"""Volumes of the 63-sector time moved to 1 MiB: their boot sectors, judged by the filesystems' own tools."""

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from core.errors import DamagedError, DeviceError
from core.events import ignore
from core.process import SystemRunner
from images.model.layout import DiskIdentity, FilesystemKind
from images.sources import BytesSource, open_source
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.filesystems.held import HeldPartition
from restore.filesystems.patches import Patch, PatchedSource
from restore.filesystems.place import corrected_place
from restore.perform.relocate import relocate
from restore.plan.steps import RelocateFilesystem
from restore.target.candidates import Candidate
from restore.target.target import open_target
from tests.flow.disks import MIB, need, run

OLD_LBA, NEW_LBA = 63, 2048
#: Where a boot sector keeps the first sector of its partition (FAT specification 3.1, exFAT specification 3.1.3).
HIDDEN, EXFAT_OFFSET = (0x1C, "<I"), (0x40, "<Q")


def ntfs(path: Path) -> Path:
    need("mkntfs", "ntfsinfo")
    run("mkntfs", "-q", "-F", "-f", "-p", str(OLD_LBA), "-H", "255", "-S", "63", "-s", "512", path)
    return path


def fat(bits: int, path: Path) -> Path:
    need("mkfs.fat", "minfo", "fsck.fat")
    run("mkfs.fat", "-F", str(bits), "-h", str(OLD_LBA), "-s", "1" if bits != 12 else "8", path)
    return path


def exfat(path: Path) -> Path:
    """No tool writes PartitionOffset into a file: the field and its checksum (specification 3.4) are set here."""
    need("mkfs.exfat", "fsck.exfat")
    run("mkfs.exfat", path)
    content = bytearray(path.read_bytes())
    for start in (0, 12 * 512):
        struct.pack_into("<Q", content, start + 0x40, OLD_LBA)
        total = 0
        for index in range(11 * 512):
            if index not in (106, 107, 112):
                total = (((total & 1) << 31) + (total >> 1) + content[start + index]) & 0xFFFFFFFF
        content[start + 11 * 512 : start + 12 * 512] = struct.pack("<I", total) * 128
    path.write_bytes(content)
    run("fsck.exfat", "-n", path)
    return path


MAKERS = {
    FilesystemKind.NTFS: ntfs,
    FilesystemKind.FAT12: lambda path: fat(12, path),
    FilesystemKind.FAT16: lambda path: fat(16, path),
    FilesystemKind.FAT32: lambda path: fat(32, path),
    FilesystemKind.EXFAT: exfat,
}


def volume(kind: FilesystemKind, folder: Path) -> Path:
    path = folder / "volume.img"
    size = 40 if kind is FilesystemKind.FAT32 else 12
    with path.open("wb") as stream:
        stream.truncate(size * MIB)
    return MAKERS[kind](path)


def moved(kind: FilesystemKind, content: bytes, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The volume put to 1 MiB of a disk and corrected there by the performer; the volume afterwards, and warnings."""
    disk = folder / "disk.img"
    disk.write_bytes(bytes(NEW_LBA * 512) + content + b"\xa5" * MIB)
    candidate = Candidate(
        node=str(disk), file=str(disk), identity=DiskIdentity(), size=disk.stat().st_size, sector_size=512,
        contents=(), obstacles=(),
    )  # fmt: skip
    step = RelocateFilesystem(
        disk="disk0", number=1, kind=kind, offset=NEW_LBA * 512, size=len(content), old_lba=OLD_LBA,
        old_sector_size=512,
    )  # fmt: skip
    with open_target(candidate) as target:
        work = SimpleNamespace(candidates={"disk0": candidate}, targets={"disk0": target}, say=lambda stage, text: None)
        outcome = relocate(step, work)
    after = disk.read_bytes()
    assert not any(after[: NEW_LBA * 512])
    assert after[NEW_LBA * 512 + len(content) :] == b"\xa5" * MIB
    part = folder / "moved.img"
    part.write_bytes(after[NEW_LBA * 512 : NEW_LBA * 512 + len(content)])
    return part, outcome.warnings


def differing(one: bytes, other: bytes) -> set[int]:
    return set(np.flatnonzero(np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8)).tolist())


@pytest.mark.parametrize("kind", MAKERS)
def test_a_moved_volume_names_its_new_place_and_nothing_else_changed(kind: FilesystemKind, tmp_path: Path) -> None:
    before = volume(kind, tmp_path).read_bytes()
    field = EXFAT_OFFSET if kind is FilesystemKind.EXFAT else HIDDEN
    assert struct.unpack_from(field[1], before, field[0])[0] == OLD_LBA
    part, warnings = moved(kind, before, tmp_path)
    after = part.read_bytes()
    assert not warnings
    copies = [0]
    if kind is FilesystemKind.NTFS:
        run("ntfsinfo", "-m", part)
        copies.append(len(after) - 512)
    elif kind is FilesystemKind.EXFAT:
        run("fsck.exfat", "-n", part)
        copies.append(12 * 512)
    else:
        run("fsck.fat", "-n", part)
        assert f"hidden sectors: {NEW_LBA}" in run("minfo", "-i", part, "::")
        copies += [6 * 512] if kind is FilesystemKind.FAT32 else []
    allowed: set[int] = set()
    for copy in copies:
        assert struct.unpack_from(field[1], after, copy + field[0])[0] == NEW_LBA
        allowed |= set(range(copy + field[0], copy + field[0] + struct.calcsize(field[1])))
        if kind is FilesystemKind.EXFAT:
            allowed |= set(range(copy + 11 * 512, copy + 12 * 512))
    assert differing(before, after) <= allowed


@pytest.mark.parametrize("kind", MAKERS)
def test_a_number_that_fits_nothing_is_left_and_said(kind: FilesystemKind, tmp_path: Path) -> None:
    with open_source(volume(kind, tmp_path)) as source:
        correction = corrected_place(source, kind, 4711, NEW_LBA)
    assert not correction.patches
    assert any(f"started at sector {OLD_LBA}, but it started at 4711" in line for line in correction.warnings)


@pytest.mark.parametrize("kind", MAKERS)
def test_correcting_again_changes_nothing(kind: FilesystemKind, tmp_path: Path) -> None:
    with open_source(volume(kind, tmp_path)) as source:
        correction = corrected_place(source, kind, OLD_LBA, NEW_LBA)
        assert correction.patches
        assert not corrected_place(PatchedSource(source, correction.patches), kind, OLD_LBA, NEW_LBA).patches


def test_the_copy_that_ntfsresize_writes_is_corrected_too(tmp_path: Path) -> None:
    need("ntfsresize")
    path = volume(FilesystemKind.NTFS, tmp_path)
    with path.open("r+b") as stream:
        stream.truncate(20 * MIB)
    run("ntfsresize", "-f", "-P", path)
    run("ntfsfix", "-d", path)
    content = path.read_bytes()
    (sectors,) = struct.unpack_from("<Q", content, 40)
    assert sectors * 512 < len(content) - 512
    assert content[-512:] == content[:512]
    part, warnings = moved(FilesystemKind.NTFS, content, tmp_path)
    after = part.read_bytes()
    assert not warnings
    assert after[-512:] == after[:512]
    assert struct.unpack_from("<I", after, HIDDEN[0])[0] == NEW_LBA


def test_an_exfat_region_with_a_wrong_checksum_is_left_and_said(tmp_path: Path) -> None:
    content = bytearray(volume(FilesystemKind.EXFAT, tmp_path).read_bytes())
    content[12 * 512 + 200] ^= 1
    correction = corrected_place(BytesSource(bytes(content)), FilesystemKind.EXFAT, OLD_LBA, NEW_LBA)
    assert [patch.offset for patch in correction.patches] == [0]
    assert correction.warnings == ("the backup boot region of exFAT does not match its checksum: left as it is",)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_volume_of_noise_is_damage(kind: FilesystemKind) -> None:
    with pytest.raises(DamagedError):
        corrected_place(BytesSource(b"\x5a" * MIB), kind, OLD_LBA, NEW_LBA)


def test_a_target_that_does_not_keep_what_is_written_is_an_error() -> None:
    """A disk that loses writes: the read-back finds out."""
    target = SimpleNamespace(
        node="/dev/lossy", size=MIB, read_at=lambda offset, length: memoryview(bytes(length)),
        write_at=lambda offset, data: None, flush=lambda: None,
    )  # fmt: skip
    with pytest.raises(DeviceError, match="do not read back"):
        HeldPartition(target, 0, MIB, 512).write(Patch(0, b"x"))


def test_a_disk_of_the_63_sector_time_is_aligned_on_the_whole_road(tmp_path: Path) -> None:
    need("sfdisk", "mkntfs", "mkfs.fat", "fsck.fat", "minfo", "ntfsinfo")
    source, target, repo = tmp_path / "source.img", tmp_path / "target.img", str(tmp_path / "repo")
    first, second = 63, 63 + 24 * 2048
    with source.open("wb") as stream:
        stream.truncate(64 * MIB)
    run(
        "sfdisk", "-q", source,
        stdin=f"label: dos\nstart={first},size={24 * 2048},type=7,bootable\nstart={second},size={32 * 2048},type=6\n",
    )  # fmt: skip
    part = tmp_path / "part.img"
    for start, size, make in (
        (first, 24, ("mkntfs", "-q", "-F", "-f", "-p", str(first), "-H", "255", "-S", "63", "-s", "512")),
        (second, 32, ("mkfs.fat", "-F", "16", "-h", str(second))),
    ):
        part.unlink(missing_ok=True)
        with part.open("wb") as stream:
            stream.truncate(size * MIB)
        run(*make, part)
        with source.open("r+b") as stream:
            stream.seek(start * 512)
            stream.write(part.read_bytes())
    runner = SystemRunner()
    capture_disks([source], repo, name="", runner=runner, sink=ignore)
    with target.open("wb") as stream:
        stream.truncate(70 * MIB)
    plan = plan_restore(repo, "latest", [target], RestoreChoices(boot=BootChoice.NO), runner)
    assert not run_plan(plan, plan.digest, runner, ignore).warnings
    table = json.loads(run("sfdisk", "--json", target))["partitiontable"]["partitions"]
    assert [entry["start"] % 2048 for entry in table] == [0, 0]
    content = target.read_bytes()
    for entry, size, tool in ((table[0], 24, ("ntfsinfo", "-m")), (table[1], 32, ("fsck.fat", "-n"))):
        assert entry["size"] == size * 2048
        start = entry["start"] * 512
        assert content[start + 28 : start + 32] == entry["start"].to_bytes(4, "little")
        part.write_bytes(content[start : start + size * MIB])
        run(*tool, part)
    start = table[0]["start"] * 512
    assert content[start : start + 512] == content[start + 24 * MIB - 512 : start + 24 * MIB]
