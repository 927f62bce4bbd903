"""The open target: its lock, its bounds, what it writes and reads back."""

import fcntl
import threading
from pathlib import Path

import msgspec
import pytest

from core.errors import DeviceError, RefusedError
from images.model.layout import DiskIdentity
from restore.target.backing import inode_of
from restore.target.candidates import Candidate
from restore.target.target import open_target

MIB = 1 << 20


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    file = tmp_path / "target.img"
    file.write_bytes(b"\xff" * (4 * MIB))
    return Candidate(
        node=str(file),
        file=str(file),
        identity=DiskIdentity(),
        size=4 * MIB,
        sector_size=512,
        contents=(),
        obstacles=(),
    )


def test_a_lock_that_is_held_for_a_moment_is_waited_for(candidate: Candidate) -> None:
    """udev takes it whenever it looks at a disk."""
    with Path(candidate.node).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        timer = threading.Timer(0.5, lambda: fcntl.flock(other, fcntl.LOCK_UN))
        timer.start()
        with open_target(candidate) as target:
            assert target.size == 4 * MIB
        timer.join()


def test_a_lock_that_stays_is_a_refusal(candidate: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore.target.target.LOCK_PATIENCE", 0.3)
    with Path(candidate.node).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="Another program"), open_target(candidate):
            pass


def test_what_is_written_reads_back_and_zeros_are_zeros(candidate: Candidate) -> None:
    with open_target(candidate) as target:
        target.write_at(MIB, b"x" * 4096)
        target.zero(2 * MIB, MIB)
        target.flush()
        assert bytes(target.read_at(MIB, 4096)) == b"x" * 4096
        assert bytes(target.read_at(2 * MIB, MIB)) == bytes(MIB)
        assert bytes(target.read_at(0, 4096)) == b"\xff" * 4096


@pytest.mark.parametrize(("offset", "length"), [(4 * MIB, 512), (-512, 512), (4 * MIB - 512, 1024)])
def test_nothing_is_written_outside(candidate: Candidate, offset: int, length: int) -> None:
    with open_target(candidate) as target:
        with pytest.raises(DeviceError, match="outside"):
            target.write_at(offset, bytes(length))
        with pytest.raises(DeviceError, match="outside"):
            target.zero(offset, length)


def test_a_target_with_obstacles_is_not_opened(candidate: Candidate) -> None:
    held = msgspec.structs.replace(candidate, obstacles=("one", "two"))
    with pytest.raises(RefusedError) as caught, open_target(held):
        pass
    assert caught.value.reasons == ("one", "two")


def test_a_thread_that_is_late_writes_nothing_into_another_file(candidate: Candidate, tmp_path: Path) -> None:
    """Whoever stops twice does not wait for the threads; the descriptor's number then belongs to the next file."""
    with open_target(candidate) as target:
        target.write_at(0, b"x" * 512)
    other = tmp_path / "other"
    with other.open("w+b", buffering=0) as stream:
        stream.write(b"mine" * 1024)
        for write in (
            lambda: target.write_at(0, b"y" * 512),
            lambda: target.zero(0, 512),
            lambda: target.write_zeros(0, 512),
            target.flush,
        ):
            with pytest.raises(DeviceError):
                write()
        assert not target.discard(0, 512)
    assert other.read_bytes() == b"mine" * 1024


def test_what_took_the_name_of_a_target_is_not_opened(candidate: Candidate) -> None:
    plain = msgspec.structs.replace(candidate, plain=True, inode=inode_of(Path(candidate.node)))
    with open_target(plain):
        pass
    file = Path(candidate.node)
    file.rename(file.with_name("kept"))
    file.write_bytes(b"other" * 1024)
    with pytest.raises(RefusedError, match="has 5120 bytes now, and had 4194304"), open_target(plain):
        pass
    file.write_bytes(b"o" * (4 * MIB))
    with pytest.raises(RefusedError, match="another file now"), open_target(plain):
        pass
    assert file.read_bytes() == b"o" * (4 * MIB)
