import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core import process
from core.errors import MissingToolError, ProcessError
from core.process import SystemRunner
from core.stopping import stoppable, undisturbed


def test_output_and_named_success_codes() -> None:
    runner = SystemRunner()
    assert runner.run(["sh", "-c", "echo out; exit 3"], success=frozenset({3})).stdout == "out\n"
    with pytest.raises(ProcessError) as caught:
        runner.run(["sh", "-c", "echo why >&2; exit 4"])
    assert caught.value.returncode == 4
    assert "why" in caught.value.message


def test_a_missing_program_is_named() -> None:
    with pytest.raises(MissingToolError, match="no-such-program"):
        SystemRunner().run(["no-such-program"])


def test_time_runs_out_and_the_group_is_killed() -> None:
    with pytest.raises(ProcessError, match="signal 9"):
        SystemRunner().run(["sh", "-c", "sleep 60 & wait"], timeout=0.3)
    with pytest.raises(ProcessError, match="signal 9"):
        SystemRunner().run(["sleep", "60"], timeout=0.3, on_line=lambda line: None)


def test_secrets_do_not_reach_the_error() -> None:
    with pytest.raises(ProcessError) as caught:
        SystemRunner().run(["sh", "-c", "echo hunter2; exit 1"], secrets=["hunter2"])
    assert "hunter2" not in caught.value.message + caught.value.output + " ".join(caught.value.argv)


def test_lines_come_one_by_one() -> None:
    lines: list[str] = []
    SystemRunner().run(["sh", "-c", "echo a; echo b >&2"], on_line=lines.append)
    assert lines == ["a", "b"]


def test_standard_input_is_closed_or_fed() -> None:
    assert SystemRunner().run(["cat"]).stdout == ""
    assert SystemRunner().run(["cat"], stdin="fed").stdout == "fed"


def _gone(number: int) -> bool:
    """Whether a process has ended; one that nobody has waited for has, too (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


#: How somebody stops waiting for a program: what it does with the lines, and what comes of it.
_ENDS: dict[str, tuple[Callable[[], None], type[BaseException]]] = {
    "an error": (lambda: int("no number"), ValueError),
    "an interruption": (lambda: signal.raise_signal(signal.SIGTERM), KeyboardInterrupt),
}


@pytest.mark.parametrize("how", _ENDS)
def test_a_program_that_is_not_wanted_any_more_puts_its_things_away(how: str, tmp_path: Path) -> None:
    """It is asked to end first, what it says then does not keep it, and what it started goes with it."""
    script = (
        "trap 'seq 100000; echo away >away; exit 1' TERM; (trap '' TERM; echo $BASHPID; exec sleep 60) & "
        "while :; do sleep 0.05; done"
    )
    numbers: list[int] = []
    act, error = _ENDS[how]

    def on_line(line: str) -> None:
        numbers.append(int(line))
        act()

    with stoppable(), pytest.raises(error):
        SystemRunner().run(["bash", "-c", script], cwd=str(tmp_path), on_line=on_line)
    assert (tmp_path / "away").read_text() == "away\n"
    assert _gone(numbers[0])


def test_a_program_that_does_not_end_when_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PATIENCE", 0.3)
    numbers: list[int] = []

    def on_line(line: str) -> None:
        numbers.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SystemRunner().run(["sh", "-c", "trap '' TERM; echo $$; sleep 60 & wait"], on_line=on_line)
    assert _gone(numbers[0])


def test_what_a_program_left_when_it_ended_is_ended_with_the_wait_for_it() -> None:
    """Somebody who holds its output keeps us waiting: that is what is interrupted then."""
    numbers: list[int] = []

    def on_line(line: str) -> None:
        numbers.append(int(line))
        time.sleep(0.2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SystemRunner().run(["bash", "-c", "sleep 60 & echo $!"], on_line=on_line)
    assert _gone(numbers[0])


def test_an_interruption_while_a_program_starts_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the start and the line that notes it: the worst moment."""
    started: list[int] = []
    popen = process.subprocess.Popen

    def start(*words: object, **options: object) -> object:
        made = popen(*words, **options)  # type: ignore[call-overload]
        started.append(made.pid)
        signal.raise_signal(signal.SIGHUP)
        return made

    monkeypatch.setattr(process.subprocess, "Popen", start)
    with stoppable(), pytest.raises(KeyboardInterrupt):
        SystemRunner().run(["sleep", "60"])
    assert _gone(started[0])


def test_a_program_that_does_not_read_what_it_is_fed_says_why_itself() -> None:
    with pytest.raises(ProcessError, match="no such option"):
        SystemRunner().run(
            ["sh", "-c", "exec 0<&-; echo no such option; exit 2"], stdin="x" * 200_000, on_line=lambda line: None
        )


def test_the_programs_of_another_thread_are_ended() -> None:
    started, failed = threading.Event(), list[ProcessError]()

    def work() -> None:
        try:
            SystemRunner().run(["sh", "-c", "echo here; sleep 60"], on_line=lambda line: started.set())
        except ProcessError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(60)
    process.end_programs_of(thread)
    thread.join(60)
    assert [error.returncode for error in failed] == [-signal.SIGTERM]


def test_all_programs_of_other_threads_are_ended_at_once_but_for_what_puts_things_away(tmp_path: Path) -> None:
    ends: dict[str, int] = {}
    started = {name: threading.Event() for name in ("one", "two", "away")}

    def work(name: str, script: str) -> None:
        try:
            SystemRunner().run(["sh", "-c", f"echo here; {script}"], on_line=lambda line: started[name].set())
            ends[name] = 0
        except ProcessError as error:
            ends[name] = error.returncode

    def put_away() -> None:
        with undisturbed():
            work("away", f"while ! test -e {tmp_path}/go; do sleep 0.05; done")

    threads = [threading.Thread(target=work, args=(name, "sleep 60")) for name in ("one", "two")]
    threads.append(threading.Thread(target=put_away))
    for thread in threads:
        thread.start()
    assert all(event.wait(60) for event in started.values())
    process.end_programs()
    for thread in threads[:2]:
        thread.join(60)
    assert ends == {"one": -signal.SIGTERM, "two": -signal.SIGTERM}
    process.end_programs_of(threads[2])
    (tmp_path / "go").touch()
    threads[2].join(60)
    assert ends["away"] == 0


def test_the_programs_of_the_own_thread_are_left_alone() -> None:
    """What is asked for while one runs: by a line that it prints."""
    assert SystemRunner().run(["echo", "here"], on_line=lambda line: process.end_programs()).stdout == "here"
