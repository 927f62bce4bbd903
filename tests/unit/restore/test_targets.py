"""The open target: its lock, its bounds, what it writes and reads back."""

import fcntl
import threading
from pathlib import Path

import msgspec
import pytest

from core.errors import DeviceError, RefusedError
from images.model.layout import DiskIdentity
from restore.targets import Candidate, open_target

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
    monkeypatch.setattr("restore.targets.LOCK_PATIENCE", 0.3)
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
