"""Sticks as block devices: what is in use is refused, and the data partition holds a repository. Needs root."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.stick.data import DataKind
from core.errors import DeviceError, RefusedError
from core.events import ignore
from core.process import SystemRunner
from core.units import GIB, MIB
from images.store.access import Access
from images.store.connect import open_repository
from images.store.passphrase import Passphrase
from rescue.jobs.stick_repository import plan_repository
from rescue.jobs.write_usb import NOT_REMOVABLE, StickChoices, StickReport, plan_stick, write_planned
from tests.disk.test_loop_disks import loop
from tests.flow.disks import need, run
from tests.flow.small import make, noise_disk, take
from tests.flow.sticks import small_iso
from tests.flow.test_stick import assert_sound_table, parts


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("losetup", "sfdisk", "mkfs.ext4", "mkfs.exfat", "mount", "xorriso", "mkfs.fat", "e2fsck", "sgdisk", "findmnt")
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    return small_iso(tmp_path_factory.mktemp("small") / "iso")


def blank(path: Path, size: int) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def no_passphrase() -> Passphrase:
    raise AssertionError("nobody was to be asked")


def write(iso: Path, stick: Path, choices: StickChoices | None = None) -> StickReport:
    runner = SystemRunner()
    plan = plan_stick(iso, stick, choices or StickChoices(), runner, ignore)
    return write_planned(plan, runner, ignore)


def reasons(iso: Path, stick: Path) -> str:
    with pytest.raises(RefusedError) as caught:
        write(iso, stick, StickChoices())
    return "; ".join(caught.value.reasons)


def test_a_loop_device_is_written_marked_and_proven(iso: Path, tmp_path: Path) -> None:
    stick = blank(tmp_path / "stick.img", 64 * MIB)
    with loop(stick) as node:
        report = write(iso, node)
        assert "No errors detected" in run("sfdisk", "--verify", node)
    assert report.verified >= iso.stat().st_size
    # Marks were written where no ISO lies, and nothing else was there.
    with stick.open("rb") as stream:
        stream.seek(8 * MIB)
        assert any(stream.read(50 * MIB))
    assert "No problems found" in run("sgdisk", "--verify", stick)


def test_what_is_mounted_is_refused(iso: Path, tmp_path: Path) -> None:
    stick = blank(tmp_path / "stick.img", 64 * MIB)
    run("mkfs.ext4", "-q", "-F", stick)
    before = stick.read_bytes()
    place = tmp_path / "mnt"
    place.mkdir()
    with loop(stick) as node, mounted(node, place):
        assert f"is mounted on {place}" in reasons(iso, node)
    with loop(stick) as node:
        assert f"is attached as {node}" in reasons(iso, stick)
    assert stick.read_bytes()[:1024] == before[:1024]


def test_what_cannot_be_written_is_refused(iso: Path, tmp_path: Path) -> None:
    stick = blank(tmp_path / "stick.img", 64 * MIB)
    with loop(stick, 512, "--read-only") as node:
        assert "is read-only" in reasons(iso, node)
    with loop(stick, 4096) as node:
        assert "has sectors of 4096 bytes" in reasons(iso, node)
    with loop(iso) as node:
        assert "is the ISO itself" in reasons(iso, node)
        assert "is the ISO itself" in reasons(node, node)
    assert not any(stick.read_bytes())


def test_the_systems_own_disk_is_refused(iso: Path) -> None:
    source = run("findmnt", "--noheadings", "--output", "SOURCE", "/").strip()
    if not Path(source).is_block_device():
        pytest.skip(f"the root filesystem of this machine lies on {source}, which is no disk")
    disk = run("lsblk", "--noheadings", "--paths", "--inverse", "--output", "NAME,TYPE", "--list", source).split()
    found = reasons(iso, Path(disk[-2]))
    assert "is mounted on /" in found
    assert "is the disk that this system runs from" in found
    said = run("lsblk", "--noheadings", "--nodeps", "--output", "RM,TRAN", disk[-2]).split()
    assert (NOT_REMOVABLE in found) is (said[0] == "0" and "usb" not in said)


def test_a_stick_that_fails_half_way(iso: Path, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=3m", "none", place)
    try:
        stick = blank(place / "stick.img", 64 * MIB)
        with pytest.raises(DeviceError, match=r"writing .* failed: No space left") as caught:
            write(iso, stick)
        assert caught.value.hint.startswith("It starts nothing now.")
        with stick.open("rb") as stream:
            assert not any(stream.read(512))
    finally:
        run("umount", place)


def test_of_a_stick_with_partitions_of_its_owners_only_the_iso_is_taken(iso: Path, tmp_path: Path) -> None:
    """Behind the room for the ISO and right behind the ISO itself, with names of their own."""
    first = blank(tmp_path / "first.img", 3 * GIB)
    write(iso, first)
    lines = f"start={6 * MIB // 512}, size=64M, name=letters\nstart={GIB // 512}, size=1500M, name=pictures\n"
    run("sfdisk", "--append", "-q", first, stdin=lines)
    assert [part[0] for part in parts(first)][3:] == ["letters", "pictures"]
    with loop(first, 512, "--read-only") as node:
        for name, size, choices in (
            ("smaller", 64 * MIB, StickChoices()),
            ("larger", 4 * GIB, StickChoices()),
            ("data", GIB + 80 * MIB, StickChoices(data=True)),
        ):
            stick = blank(tmp_path / f"{name}.img", size)
            write(node, stick, choices)
            assert_sound_table(stick)
            assert parts(stick)[:2] == parts(iso)[:2]
            assert [part[0] for part in parts(stick)][2:] == (["LIFERAFT-DATA"] if choices.data else ["Gap1"])


@contextlib.contextmanager
def mounted(node: Path, place: Path) -> Iterator[None]:
    run("mount", node, place)
    try:
        yield
    finally:
        run("umount", place)


def test_a_repository_comes_with_it_and_outlives_the_next_iso(iso: Path, tmp_path: Path) -> None:
    repository = make(tmp_path / "repo")
    first = take(repository, noise_disk(tmp_path / "a.img"))
    stick = blank(tmp_path / "stick.img", GIB + 80 * MIB)
    planned = plan_repository(str(repository), None, no_passphrase, encrypt=False)
    runner = SystemRunner()
    choices = StickChoices(data=True, filesystem=DataKind.EXT4)
    report = write_planned(plan_stick(iso, stick, choices, runner, ignore, repository=planned), runner, ignore)
    assert report.repository is not None
    assert report.repository.points == 1
    second = take(repository, noise_disk(tmp_path / "b.img", seed=2))
    newer = small_iso(tmp_path / "newer", seed=2)
    planned = plan_repository(str(repository), None, no_passphrase, encrypt=False)
    choices = StickChoices(keep_data=True)
    write_planned(plan_stick(newer, stick, choices, runner, ignore, repository=planned), runner, ignore)
    assert points_on(stick, tmp_path / "mnt", None) == [first, second]


def test_the_copy_of_an_encrypted_repository_is_encrypted(iso: Path, tmp_path: Path) -> None:
    repository = make(tmp_path / "repo", encrypted=True)
    take(repository, noise_disk(tmp_path / "a.img"), encrypted=True)
    stick = blank(tmp_path / "stick.img", GIB + 80 * MIB)
    access = Access(ask=lambda: Passphrase("correct horse battery staple"))
    planned = plan_repository(str(repository), access, lambda: Passphrase("five other words"), encrypt=False)
    runner = SystemRunner()
    choices = StickChoices(data=True, filesystem=DataKind.EXT4)
    report = write_planned(plan_stick(iso, stick, choices, runner, ignore, repository=planned), runner, ignore)
    assert report.repository is not None
    assert report.repository.encrypted
    new = Access(ask=lambda: Passphrase("five other words"))
    assert len(points_on(stick, tmp_path / "mnt", new)) == 1


def points_on(stick: Path, place: Path, access: Access | None) -> list[str]:
    """Ids on the data partition, which begins at 1 GiB."""
    place.mkdir()
    size = data_size(stick)
    node = Path(
        run("losetup", "--find", "--show", "--read-only", f"--offset={GIB}", f"--sizelimit={size}", stick).strip()
    )
    try:
        run("e2fsck", "-f", "-n", node)
        run("mount", "-o", "ro", node, place)
        try:
            return [point.id for point in open_repository(str(place / "repository"), access).points()]
        finally:
            run("umount", place)
    finally:
        run("losetup", "--detach", node)


def data_size(stick: Path) -> int:
    """Bytes of the data partition, as sfdisk says."""
    [line] = [line for line in run("sfdisk", "--dump", stick).splitlines() if "LIFERAFT-DATA" in line]
    return int(line.split("size=")[1].split(",")[0]) * 512


def test_a_repository_that_does_not_fit_is_told_before(iso: Path, tmp_path: Path) -> None:
    repository = make(tmp_path / "repo")
    take(repository, noise_disk(tmp_path / "a.img"))
    (repository / "packs" / "large").write_bytes(bytes(100 * MIB))
    stick = blank(tmp_path / "stick.img", GIB + 80 * MIB)
    planned = plan_repository(str(repository), None, no_passphrase, encrypt=False)
    with pytest.raises(RefusedError, match="the data partition would have"):
        plan_stick(iso, stick, StickChoices(data=True), SystemRunner(), ignore, repository=planned)
