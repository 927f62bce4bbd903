import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.beside import beside
from builder.cache import open_cache
from core.errors import LiferaftError, ProcessError
from core.process import SystemRunner
from core.stopping import SIGNALS, stoppable

#: Seconds that nothing here takes, on whatever machine.
_LONG = 120
#: A program that is at work until somebody ends it, and fails then: left alone, it ends well.
_PROGRAM = ("sh", "-c", f"echo started; sleep {_LONG}")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Whoever runs the tests (nohup, a shell in the background) may have it ignored; afterwards all is as it was."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_both_make_is_there() -> None:
    with beside(lambda: 7) as made:
        assert made() == 7


def test_an_error_of_the_work_comes_where_its_result_is_asked_for() -> None:
    def fail() -> None:
        raise LiferaftError("no")

    reached = False
    with pytest.raises(LiferaftError, match="no"), beside(fail) as made:
        reached = True
        made()
    assert reached


def test_a_failing_body_ends_the_programs_of_the_work_and_is_what_is_told() -> None:
    errors: list[ProcessError] = []
    started = threading.Event()

    def work() -> None:
        try:
            SystemRunner().run(_PROGRAM, on_line=lambda line: started.set())
        except ProcessError as error:
            errors.append(error)
            raise

    with pytest.raises(ZeroDivisionError), beside(work):
        assert started.wait(_LONG)
        raise ZeroDivisionError
    assert [error.returncode for error in errors] == [-signal.SIGTERM]


def test_work_that_starts_another_program_after_one_was_ended_is_ended_too() -> None:
    ends: list[int] = []
    started = threading.Event()

    def work() -> None:
        for _ in range(2):
            try:
                SystemRunner().run(_PROGRAM, on_line=lambda line: started.set())
            except ProcessError as error:
                ends.append(error.returncode)

    with pytest.raises(ZeroDivisionError), beside(work):
        assert started.wait(_LONG)
        raise ZeroDivisionError
    assert ends == [-signal.SIGTERM, -signal.SIGTERM]


def test_the_programs_of_the_body_are_left_alone() -> None:
    with beside(lambda: None) as made:
        assert SystemRunner().run(["echo", "here"]).stdout == "here\n"
        made()


def test_an_interruption_while_the_thread_starts_leaves_no_work_behind(
    interruptible: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = threading.Thread.start
    ends: list[int] = []
    started = threading.Event()

    def start(self: threading.Thread) -> None:
        begin(self)
        if self.name == "beside":
            assert started.wait(_LONG)
            signal.raise_signal(signal.SIGINT)

    def work() -> None:
        try:
            SystemRunner().run(_PROGRAM, on_line=lambda line: started.set())
        except ProcessError as error:
            ends.append(error.returncode)

    monkeypatch.setattr(threading.Thread, "start", start)
    with stoppable(), pytest.raises(KeyboardInterrupt), beside(work):
        raise AssertionError("the body began")
    assert not [thread for thread in threading.enumerate() if thread.name == "beside"]
    assert ends == [-signal.SIGTERM]


def test_an_interruption_before_the_thread_starts_waits_for_nobody(
    interruptible: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"), beside(lambda: None):
        raise AssertionError("the body began")


def test_an_interruption_ends_work_that_waits_for_another_build(interruptible: None, tmp_path: Path) -> None:
    waits = threading.Event()

    def wait() -> None:
        with open_cache(tmp_path) as cache:
            waits.set()
            with cache.alone("base-k1"):
                raise AssertionError("both had it")

    with open_cache(tmp_path) as other, other.alone("base-k1"):
        with stoppable(), pytest.raises(KeyboardInterrupt), beside(wait) as made:
            assert waits.wait(_LONG)
            threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)).start()
            made()
        # The other one still has it.
        assert not [thread for thread in threading.enumerate() if thread.name == "beside"]


def test_a_failing_body_ends_work_that_waits_for_another_build(tmp_path: Path) -> None:
    waits = threading.Event()

    def wait() -> None:
        with open_cache(tmp_path) as cache:
            waits.set()
            with cache.alone("base-k1"):
                raise AssertionError("both had it")

    with open_cache(tmp_path) as other, other.alone("base-k1"):
        with pytest.raises(ZeroDivisionError), beside(wait):
            assert waits.wait(_LONG)
            raise ZeroDivisionError
        # The other one still has it.
        assert not [thread for thread in threading.enumerate() if thread.name == "beside"]
