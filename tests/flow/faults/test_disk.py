"""A target that fails, shrinks, disappears, loses power or is stopped: told, the rest untouched, and it goes on."""

import errno
import json
import os
import re
import threading
from pathlib import Path

import pytest

from core.errors import DeviceError, ExitCode, StoppedError
from core.events import Event, Stage
from core.units import MIB
from rescue.cli.main import main
from tests.flow.faulty import TARGET_SIZE, Door, assert_rest_untouched, assert_restored, carry_out, old_target, plan
from tests.flow.small import CHUNK, START


def test_an_error_at_one_lba_is_told_with_its_place(repository: Path, target: Path, door: Door) -> None:
    made = plan(repository, target)
    at = START + 20 * CHUNK + 4096
    door.failing = {at}
    with pytest.raises(DeviceError) as raised:
        carry_out(made)
    assert raised.value.code is ExitCode.FAILED
    said = re.fullmatch(
        r"disk0-part1: write .*: /.*/target\.img: writing (\d+) bytes at (\d+) \(LBA (\d+) to (\d+)\) failed: "
        r"Input/output error\.",
        str(raised.value),
    )
    assert said is not None, str(raised.value)
    length, offset, first, last = map(int, said.groups())
    assert offset <= at < offset + length
    assert first <= at // 512 <= last
    assert (first * 512, (last + 1) * 512) == (offset, offset + length)
    assert_rest_untouched(made, "disk0", target)


@pytest.mark.parametrize("number", [0, 2, 9])
def test_a_disk_that_disappears_half_way(repository: Path, target: Path, door: Door, number: int) -> None:
    made = plan(repository, target)
    door.error = errno.ENODEV

    def vanish(count: int, offset: int, length: int) -> None:
        if count >= number and offset >= START:
            door.failing = set(range(0, TARGET_SIZE, 512))

    door.before_write = vanish
    with pytest.raises(DeviceError, match="No such device") as raised:
        carry_out(made)
    assert "Running the same restore again" in raised.value.hint
    assert_rest_untouched(made, "disk0", target)


@pytest.mark.parametrize("size", [START + 30 * CHUNK, 6 * MIB], ids=["below the partition's end", "above it"])
def test_a_target_that_shrinks_half_way(repository: Path, target: Path, door: Door, size: int) -> None:
    made = plan(repository, target)

    def shrink(count: int, offset: int, length: int) -> None:
        if offset == START + 8 * CHUNK:
            os.truncate(target, size)

    door.before_write = shrink
    with pytest.raises(DeviceError, match=rf"target\.img has \d+ bytes now, and had {TARGET_SIZE} when it was opened"):
        carry_out(made)


def test_what_reads_back_wrong_once_is_written_again(repository: Path, target: Path, door: Door, disk: Path) -> None:
    """A bit turns on the way to the disk; the bad range is fetched anew, and it is said."""
    made = plan(repository, target)
    at = START + 11 * CHUNK + 77

    def after_everything(event: Event) -> None:
        if event.stage is Stage.VERIFY and event.message.startswith("disk0-part1: read back") and not turned:
            turned.append(at)
            with target.open("r+b") as stream:
                stream.seek(at)
                stream.write(bytes([disk.read_bytes()[at] ^ 1]))

    turned: list[int] = []
    report = carry_out(made, after_everything)
    assert turned
    assert report.rewritten == CHUNK
    assert "read back wrong" in report.warnings[0]
    assert_restored(target, disk)
    assert_rest_untouched(made, "disk0", target)


def test_what_never_reads_back_right_is_named(repository: Path, target: Path, door: Door) -> None:
    made = plan(repository, target)
    door.turned = {START + 11 * CHUNK + 77}
    first = (START + 11 * CHUNK) // 512
    with pytest.raises(DeviceError, match=rf"not what was written: LBA {first} to {first + CHUNK // 512 - 1}"):
        carry_out(made)
    assert_rest_untouched(made, "disk0", target)


@pytest.mark.parametrize("stage", [Stage.LAYOUT, Stage.STREAM, Stage.VERIFY])
def test_whoever_stops_it_is_obeyed_and_it_goes_on(
    repository: Path, target: Path, door: Door, disk: Path, stage: Stage
) -> None:
    made = plan(repository, target)

    def stop(event: Event) -> None:
        if event.stage is stage:
            raise StoppedError("stopped by the user")

    with pytest.raises(StoppedError):
        carry_out(made, stop)
    assert_rest_untouched(made, "disk0", target)
    assert carry_out(made).verified
    assert_restored(target, disk)


class _PowerCutError(BaseException):
    """Not an error that anything may handle."""


def test_a_power_cut_at_every_write_and_then_again(repository: Path, tmp_path: Path, door: Door, disk: Path) -> None:
    """Whatever was written when the power went, the same plan carried out again ends in the same disk."""
    cut, survived = 0, False
    while not survived:
        target = old_target(tmp_path / "target.img")
        made = plan(repository, target)
        door.writes.clear()
        over = threading.Event()

        def power(number: int, offset: int, length: int, over: threading.Event = over, cut: int = cut) -> None:
            if number >= cut or over.is_set():
                over.set()
                raise _PowerCutError

        door.before_write = power
        try:
            carry_out(made)
            survived = True
        except _PowerCutError:
            assert_rest_untouched(made, "disk0", target)
            door.before_write = lambda number, offset, length: None
            assert carry_out(made).verified
        assert_restored(target, disk)
        assert_rest_untouched(made, "disk0", target)
        # Not every single one of many alike: the first, the last, and every third between them.
        cut += 1 if cut < 6 else 3
    assert cut > 10, f"only {cut} writes were cut"


def test_the_command_ends_with_the_right_code_and_json_stays_json(
    repository: Path,
    target: Path,
    door: Door,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door.failing = {START + 20 * CHUNK}
    words = ["restore", "latest", "--repo", str(repository), "--target", str(target), "--boot", "no", "--yes"]
    monkeypatch.setattr("sys.argv", ["liferaft", *words, "--progress", "json", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == ExitCode.FAILED
    said = capsys.readouterr()
    assert said.out == "", "no report of a restore that failed"
    assert "Input/output error" in said.err
    lines = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
    assert {line["stage"] for line in lines if "stage" in line} >= {"preflight", "layout", "stream"}
