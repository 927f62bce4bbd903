"""Faults of real block devices: a disk that shrinks, that is mounted, that two names mean; what it discards."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.errors import DeviceError, ExitCode, RefusedError
from core.events import Event, Stage, ignore
from core.process import SystemRunner
from core.units import MIB
from images.probe import MEDIUM_LABEL
from rescue.jobs.capture import capture_disks
from restore.plan.plan import Plan
from tests.disk.test_loop_disks import loop
from tests.flow.disks import need, run
from tests.flow.faulty import OLD, assert_rest_untouched, carry_out, old_target, plan
from tests.flow.small import START, make, noise_disk, take

SIZE = 24 * MIB


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("losetup", "sfdisk", "lsblk", "mount", "mke2fs")
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    return noise_disk(tmp_path_factory.mktemp("faults") / "disk.img", mebibytes=17)


@pytest.fixture(scope="module")
def repository(disk: Path) -> Path:
    take(make(disk.parent / "repository"), disk)
    return disk.parent / "repository"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return old_target(tmp_path / "target.img", SIZE)


@pytest.fixture
def node(file: Path, disk: Path) -> Iterator[Path]:
    with loop(file) as found:
        yield found


def test_a_device_is_restored_and_the_rest_is_untouched(repository: Path, disk: Path, file: Path, node: Path) -> None:
    made = plan(repository, node)
    report = carry_out(made)
    assert report.verified
    run("sync", file)
    assert file.read_bytes()[START : 17 * MIB] == disk.read_bytes()[START:]
    assert_rest_untouched(made, "disk0", file)


def test_a_device_that_shrinks_half_way(repository: Path, file: Path, node: Path) -> None:
    made = plan(repository, node)

    def shrink(event: Event) -> None:
        if event.stage is Stage.STREAM and file.stat().st_size == SIZE:
            os.truncate(file, 6 * MIB)
            run("losetup", "--set-capacity", node)

    with pytest.raises(DeviceError) as raised:
        carry_out(made, shrink)
    assert str(node) in raised.value.message
    assert raised.value.code is ExitCode.FAILED


def test_a_device_that_is_gone_half_way_is_told_as_gone(repository: Path, file: Path, node: Path) -> None:
    """The kernel makes a disk that is taken out one of no bytes; writes to it fail for want of space."""
    made = plan(repository, node)

    def vanish(event: Event) -> None:
        if event.stage is Stage.STREAM and file.stat().st_size == SIZE:
            os.truncate(file, 0)
            run("losetup", "--set-capacity", node)

    with pytest.raises(DeviceError, match=rf"disk0-part1: write .*: {node} is gone: ") as raised:
        carry_out(made, vanish)
    assert raised.value.code is ExitCode.FAILED
    assert "goes on where it stopped" in raised.value.hint


def test_a_file_that_is_attached_under_another_name_is_refused(repository: Path, file: Path, node: Path) -> None:
    other = file.with_name("other.img")
    other.hardlink_to(file)
    before = file.read_bytes()
    with pytest.raises(RefusedError, match=f"attached as {node}"):
        plan(repository, other)
    assert file.read_bytes() == before


def test_a_mounted_disk_is_refused(repository: Path, file: Path, tmp_path: Path) -> None:
    with loop(file) as node:
        made = plan(repository, node)
    run("mke2fs", "-q", "-F", file)
    before = file.read_bytes()
    place = tmp_path / "place"
    place.mkdir()
    with loop(file, 512, "--read-only") as node:
        run("mount", "-o", "ro", node, place)
        try:
            with pytest.raises(RefusedError) as raised:
                plan(repository, node)
            assert any("mounted" in reason for reason in raised.value.reasons), raised.value.reasons
            edited = _for_node(made, node)
            with pytest.raises(RefusedError) as raised:
                carry_out(edited)
        finally:
            run("umount", place)
    assert any("mounted" in reason for reason in raised.value.reasons), raised.value.reasons
    assert raised.value.code is ExitCode.REFUSED
    assert file.read_bytes() == before


def _for_node(made: Plan, node: Path) -> Plan:
    """A plan that was made when the loop device had another number, or nothing was on it."""
    target = msgspec.structs.replace(made.targets[0], file=str(node))
    return msgspec.structs.replace(made, targets=(target,))


def test_the_rescue_medium_is_refused_in_the_plan_and_in_an_edited_one(
    repository: Path, file: Path, tmp_path: Path
) -> None:
    """An image with the label of our media, as written to a stick: on a device, nothing of it mounted."""
    need("xorriso")
    with loop(file) as node:
        made = plan(repository, node)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(bytes(MIB))
    medium = tmp_path / "medium.iso"
    run("xorriso", "-as", "mkisofs", "-quiet", "-V", f"{MEDIUM_LABEL}_1", "-o", medium, tmp_path / "tree")
    with file.open("r+b") as stream:
        stream.write(medium.read_bytes())
    before = file.read_bytes()
    with loop(file) as node:
        with pytest.raises(RefusedError) as raised:
            plan(repository, node)
        assert f"{node} carries the rescue medium" in raised.value.reasons
        with pytest.raises(RefusedError) as raised:
            carry_out(_for_node(made, node))
    assert f"{node} carries the rescue medium" in raised.value.reasons
    assert raised.value.code is ExitCode.REFUSED
    assert file.read_bytes() == before


def test_a_kernels_write_error_ends_in_its_own_words(repository: Path, tmp_path: Path) -> None:
    """The file below the device has no room for a part of it: the kernel fails the writes there, and only there."""
    place = tmp_path / "small"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place)
    try:
        file = place / "target.img"
        file.touch()
        os.truncate(file, SIZE)
        with loop(file) as node:
            made = plan(repository, node)
            with pytest.raises(DeviceError, match=f"{node}: .*(Input/output error|No space left)") as raised:
                carry_out(made)
        assert raised.value.code is ExitCode.FAILED
        assert "Running the same restore again" in raised.value.hint or "failing" in raised.value.hint
        # What is behind the plan's ranges is as it was: nothing.
        with file.open("rb") as stream:
            stream.seek(18 * MIB)
            assert not any(stream.read(5 * MIB))
    finally:
        run("umount", place)


def test_a_disk_that_carries_the_repository_is_refused(disk: Path, file: Path, tmp_path: Path) -> None:
    run("mke2fs", "-q", "-F", file)
    place = tmp_path / "place"
    place.mkdir()
    with loop(file) as node:
        run("mount", node, place)
        try:
            take(make(place / "repository"), _small(disk.parent))
            with pytest.raises(RefusedError) as raised:
                plan(place / "repository", node)
        finally:
            run("umount", place)
    assert any("carries the repository" in reason for reason in raised.value.reasons), raised.value.reasons


def _small(folder: Path) -> Path:
    return noise_disk(folder / "small.img", mebibytes=3)


def test_two_loop_devices_on_one_file_are_one_disk(disk: Path, file: Path, node: Path, tmp_path: Path) -> None:
    other = noise_disk(tmp_path / "other.img", seed=5, mebibytes=3)
    make(tmp_path / "repo")
    capture_disks([_small(tmp_path), other], str(tmp_path / "repo"), name="", runner=SystemRunner(), sink=ignore)
    with loop(file) as second:
        with pytest.raises(RefusedError) as raised:
            plan(tmp_path / "repo", node, second)
    assert any("same" in reason or "twice" in reason for reason in raised.value.reasons), raised.value.reasons
    assert file.read_bytes() == bytes([OLD]) * SIZE


def test_a_name_by_id_is_the_same_disk(file: Path, node: Path, tmp_path: Path) -> None:
    link = tmp_path / "by-id-name"
    link.symlink_to(node)
    other = noise_disk(tmp_path / "other.img", seed=5, mebibytes=3)
    make(tmp_path / "repo")
    capture_disks([_small(tmp_path), other], str(tmp_path / "repo"), name="", runner=SystemRunner(), sink=ignore)
    with pytest.raises(RefusedError) as raised:
        plan(tmp_path / "repo", node, link)
    assert any("same" in reason or "twice" in reason for reason in raised.value.reasons), raised.value.reasons


def test_what_is_not_allocated_is_discarded_on_the_device(disk: Path, file: Path, node: Path, tmp_path: Path) -> None:
    """A loop device hands discards on to its file: what nobody needs becomes a hole, what is needed does not."""
    source = tmp_path / "source.img"
    with source.open("wb") as stream:
        stream.truncate(20 * MIB)
    run("sfdisk", "-q", source, stdin="label: dos\nstart=2048\n")
    run("mke2fs", "-q", "-E", f"offset={START}", source, f"{19 * 1024}K")
    taken = capture_disks([source], str(tmp_path / "repo"), name="", runner=SystemRunner(), sink=ignore)
    assert taken.id
    before = file.stat().st_blocks
    kept = carry_out(plan(tmp_path / "repo", node), discard=False)
    assert kept.discarded == 0
    run("sync", file)
    assert file.stat().st_blocks > before - 12 * MIB // 512
    report = carry_out(plan(tmp_path / "repo", node))
    assert report.discarded >= 12 * MIB
    run("sync", file)
    assert file.stat().st_blocks <= before - 12 * MIB // 512
    copy = tmp_path / "part.img"
    copy.write_bytes(file.read_bytes()[START : 20 * MIB])
    run("e2fsck", "-fn", copy)
