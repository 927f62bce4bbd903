"""Work on several disks at once: all of it, the first failure, and that nothing is left running."""

import signal
import threading
import time
from collections.abc import Callable

import pytest

from core.errors import DeviceError, ExitCode, StoppedError
from restore.together import Halt, together


def test_all_jobs_are_done_at_the_same_time() -> None:
    barrier, done = threading.Barrier(3, timeout=60), list[str]()

    def job(name: str) -> Callable[[], None]:
        def work() -> None:
            barrier.wait()
            done.append(name)

        return work

    together({name: job(name) for name in "abc"}, Halt())
    assert sorted(done) == ["a", "b", "c"]


def test_one_job_is_done_in_this_thread_and_its_error_is_its_own() -> None:
    failure, threads = DeviceError("broken"), list[int]()

    def work() -> None:
        threads.append(threading.get_ident())
        raise failure

    with pytest.raises(DeviceError) as raised:
        together({"disk0": work}, Halt())
    assert raised.value is failure
    assert str(failure) == "broken"
    assert threads == [threading.get_ident()]


def test_the_first_failure_is_told_with_its_disk_and_the_others_end() -> None:
    halt, ended = Halt(), threading.Event()

    def other() -> None:
        try:
            while True:
                halt.check()
        finally:
            ended.set()

    def fails() -> None:
        raise DeviceError("it is broken.", hint="Take another.")

    before = set(threading.enumerate())
    with pytest.raises(DeviceError) as raised:
        together({"disk0": other, "disk1": fails}, halt)
    assert raised.value.message == str(raised.value) == "disk1: it is broken."
    assert raised.value.hint == "Take another. The other disks were stopped, too."
    assert raised.value.code is ExitCode.FAILED
    assert ended.is_set()
    assert set(threading.enumerate()) <= before


def test_whoever_is_stopped_by_the_user_says_so_alone() -> None:
    def stopped() -> None:
        raise StoppedError("stopped by the user")

    with pytest.raises(StoppedError, match=r"^stopped by the user$"):
        together({"disk0": stopped, "disk1": lambda: None}, Halt())


def test_whoever_presses_ctrl_c_twice_waits_for_the_disks_all_the_same() -> None:
    """What is written must be at its end before anything is closed: the threads last longer than two interruptions."""
    halt, writing, ended = Halt(), threading.Barrier(3, timeout=60), list[str]()
    interrupted = threading.Semaphore(0)

    def slow() -> None:
        writing.wait()
        while True:
            try:
                halt.check()
                time.sleep(0.01)
            except StoppedError:
                break
        # The write that is under way ends only after the second interruption.
        assert interrupted.acquire(timeout=60)
        ended.append("written")

    def press() -> None:
        writing.wait()
        for _ in range(3):
            time.sleep(0.1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.1)
        interrupted.release(2)

    presser = threading.Thread(target=press)
    presser.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            together({"disk0": slow, "disk1": slow}, halt)
        assert ended == ["written", "written"]
    finally:
        interrupted.release(2)
        presser.join()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2])
def test_whoever_interrupts_while_the_threads_start_waits_for_those_at_work(
    when: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between the start of a thread and the next line, and the one before it (no thread, no memory)."""
    halt, starts, done = Halt(), list[threading.Thread](), list[str]()
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        starts.append(thread)
        if len(starts) == number and when == "before":
            raise KeyboardInterrupt
        start(thread)
        if len(starts) == number:
            raise KeyboardInterrupt

    def work() -> None:
        done.append("begun")
        with pytest.raises(StoppedError):
            while True:
                halt.check()
        # The write that was under way.
        time.sleep(0.1)
        done.append("ended")

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        together({"disk0": work, "disk1": work}, halt)
    assert len(starts) == number
    assert done.count("begun") == done.count("ended") <= number
    assert when == "after" or done.count("begun") <= number - 1


def test_a_thread_that_comes_to_work_after_the_halt_touches_nothing() -> None:
    halt, done = Halt(), list[str]()
    halt.set()
    with pytest.raises(StoppedError):
        together({name: lambda: done.append("written") for name in ("disk0", "disk1")}, halt)
    assert done == []


def test_no_jobs_are_no_work() -> None:
    together({}, Halt())
