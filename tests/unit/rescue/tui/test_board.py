"""The progress board, with a clock that the test owns."""

from core.events import Event, Stage
from rescue.tui.board import STICK_NAMES, Board


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_stages_follow_the_events() -> None:
    clock = Clock()
    board = Board((Stage.PREFLIGHT, Stage.STREAM, Stage.VERIFY), clock=clock)
    assert not board.begun
    assert [line[:3] for line in board.stages(78)] == ["[ ]", "[ ]", "[ ]"]
    board.take(Event(stage=Stage.PREFLIGHT, message="Checking"))
    assert not board.begun
    clock.now = 3.0
    board.take(Event(stage=Stage.STREAM, done=25 << 20, total=100 << 20, rate=float(5 << 20), eta=15.0))
    assert board.begun
    assert board.stages(78) == [
        "[x] Check the recovery point and the disk  3 s",
        "[>] Write the data",
        "    [##########------------------------------]  25 %",
        "    25.00 MiB of 100.00 MiB   5.00 MiB/s   15 s left",
        "[ ] Read back and compare",
    ]
    clock.now = 20.0
    board.take(Event(stage=Stage.STREAM, done=100 << 20, total=100 << 20))
    board.take(Event(stage=Stage.VERIFY, done=0, total=100 << 20, message="Reading back"))
    assert [line[:3] for line in board.stages(78) if line[0] == "["] == ["[x]", "[x]", "[>]"]
    board.take(Event(stage=Stage.DONE, message="done"))
    assert [line[:3] for line in board.stages(78)] == ["[x]", "[x]", "[x]"]


def test_a_stage_that_is_left_early_is_not_called_done() -> None:
    """Two disks: the first is verified while the second is still to be written."""
    board = Board((Stage.STREAM, Stage.VERIFY), clock=Clock())
    board.take(Event(stage=Stage.STREAM, done=50, total=100))
    board.take(Event(stage=Stage.VERIFY, done=50, total=100))
    assert [line[:3] for line in board.stages(78) if line[0] == "["] == ["[ ]", "[>]"]


def test_a_stage_that_nobody_announced_is_shown_when_it_comes() -> None:
    """A filesystem that is made smaller is read back without a step for that in the plan."""
    board = Board((Stage.PREFLIGHT, Stage.STREAM, Stage.BOOT), clock=Clock())
    board.take(Event(stage=Stage.STREAM, done=100, total=100))
    board.take(Event(stage=Stage.VERIFY, done=50, total=100))
    lines = [line for line in board.stages(78) if line[0] == "["]
    assert [line[:3] for line in lines] == ["[x]", "[x]", "[>]", "[ ]"]
    assert lines[2] == "[>] Read back and compare"


def test_a_stick_is_whole_when_its_repository_is_copied() -> None:
    board = Board((Stage.CHECK, Stage.STICK, Stage.COPY), names=STICK_NAMES, clock=Clock())
    board.take(Event(stage=Stage.CHECK, message="Reading"))
    assert not board.begun
    board.take(Event(stage=Stage.STICK, done=1, total=2))
    assert board.begun and not board.has_come_to(Stage.COPY)
    board.take(Event(stage=Stage.COPY, message="its repository comes next"))
    assert board.has_come_to(Stage.COPY)


def test_silence_names_the_stage() -> None:
    clock = Clock()
    board = Board((Stage.BOOT,), clock=clock)
    board.take(Event(stage=Stage.BOOT, message="update-initramfs"))
    clock.now = 9.0
    assert board.silence() == ""
    clock.now = 75.0
    assert board.silence() == "No news for 1 min 15 s from: Make it boot on this machine."


def test_a_stall_of_a_stage_without_figures_is_shown_until_it_goes_on() -> None:
    board = Board((Stage.PREFLIGHT,), clock=Clock())
    board.take(Event(stage=Stage.PREFLIGHT, message="Checking"))
    board.take(Event(stage=Stage.PREFLIGHT, message="Checking", stalled=12.0))
    assert board.stages(78) == ["[>] Check the recovery point and the disk", "    NO PROGRESS for 12 s: Checking"]
    assert not board.begun
    board.take(Event(stage=Stage.PREFLIGHT, message="Checking"))
    assert board.stages(78) == ["[>] Check the recovery point and the disk"]
    assert board.log(9) == ["Checking"]


def test_the_log_keeps_messages_and_marks_warnings() -> None:
    board = Board((), clock=Clock())
    for number in range(300):
        board.take(Event(stage=Stage.BOOT, message=f"line {number}", warning=number == 299))
    board.take(Event(stage=Stage.STREAM, message="Writing", done=1, total=2))
    assert board.log(2) == ["line 298", "warning: line 299"]
    assert board.log(0) == []
