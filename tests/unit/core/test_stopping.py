"""Being told to stop: once ends the work, again does not end what puts it away."""

import signal
import threading
import time

import pytest

from core.stopping import SIGNALS, is_stopping, lasting, stoppable, told_to_stop, undisturbed


@pytest.mark.parametrize("number", SIGNALS)
def test_each_of_them_is_an_interruption_and_the_next_ends_nothing(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(number)
    # systemd.kill(5), SendSIGHUP=: right behind; what is left to do then is to return the exit code.
    signal.raise_signal(signal.SIGHUP)


def test_when_none_has_come_everything_is_as_it_was() -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    with stoppable():
        assert not set(before) & {signal.getsignal(one) for one in SIGNALS}
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_what_is_put_away_is_interrupted_only_by_a_third_press(capfd: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), stoppable():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            # timeout(1) sends two; systemd.kill(5), SendSIGHUP=, one of the other kind behind.
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
                signal.raise_signal(number)
            done.append("undone")
            assert capfd.readouterr().err == ""
            signal.raise_signal(signal.SIGINT)
            done.append("undone too")
            assert "third Ctrl-C" in capfd.readouterr().err
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    assert done == ["undone", "undone too"]


@pytest.mark.parametrize("number", SIGNALS)
def test_what_was_ignored_stays_ignored(number: signal.Signals) -> None:
    """nohup(1): "If standard input is a terminal ... ignoring hangup signals"; POSIX of a job in the background."""
    signal.signal(number, signal.SIG_IGN)
    with stoppable():
        signal.raise_signal(number)
        others = [one for one in SIGNALS if one != number]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(others[0])


def test_a_block_is_not_cut_in_two() -> None:
    done: list[str] = []
    with stoppable(), pytest.raises(KeyboardInterrupt):
        with undisturbed():
            signal.raise_signal(signal.SIGTERM)
            with undisturbed():
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"]


def test_a_signal_that_another_thread_takes_wakes_the_one_that_waits() -> None:
    """Of two that come together the kernel gives both to another thread now and then (signal(7))."""
    inside, ended = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        ended.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(60) and thread.ident is not None
    later = threading.Timer(0.2, signal.pthread_kill, (thread.ident, signal.SIGTERM))
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt), stoppable():
        later.start()
        threading.Event().wait(60)
    ended.set()
    thread.join()
    assert time.monotonic() - before < 30


def test_a_thread_whose_start_was_cut_short_has_begun_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, real = threading.Event(), threading.enumerate
    late = threading.Thread(target=begun.set)
    looks: list[bool] = []

    def enumerate_with_it() -> list[threading.Thread]:
        """As threading does it from the moment on in which it is started; here the kernel takes its time."""
        looks.append(begun.is_set())
        if len(looks) == 3:
            late.start()
        return [*real(), *([late] if late.ident is None else [])]

    monkeypatch.setattr("core.stopping.threading.enumerate", enumerate_with_it)
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert len(looks) >= 3
    late.join()


def test_a_block_of_another_thread_holds_nothing_back() -> None:
    inside, ended = threading.Event(), threading.Event()

    def work() -> None:
        with undisturbed():
            inside.set()
            ended.wait(20)

    thread = threading.Thread(target=work)
    with stoppable(), pytest.raises(KeyboardInterrupt):
        thread.start()
        try:
            assert inside.wait(20)
            signal.raise_signal(signal.SIGTERM)
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("when", ["begin", "inside", "end"])
def test_what_lasts_is_ended_once_whenever_the_signal_comes(when: str) -> None:
    done: list[str] = []

    def step(name: str) -> str:
        done.append(f"{name} of it")
        if name == when:
            signal.raise_signal(signal.SIGHUP)
        done.append(f"{name} is done")
        return "thing"

    def end(thing: str) -> None:
        assert thing == "thing"
        step("end")

    with stoppable(), pytest.raises(KeyboardInterrupt):
        with lasting(lambda: step("begin"), end):
            step("inside")
    inside = {"begin": [], "inside": ["inside of it"], "end": ["inside of it", "inside is done"]}[when]
    assert done == ["begin of it", "begin is done", *inside, "end of it", "end is done"]


def test_what_does_not_begin_is_not_ended() -> None:
    ended: list[None] = []

    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"), lasting(fail, ended.append):
        pass
    assert ended == []


class _Finalized:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_an_interruption_that_python_lets_fall_comes_again() -> None:
    """Python's data model, object.__del__: exceptions that occur during its execution are ignored."""
    with stoppable(), pytest.raises(KeyboardInterrupt):
        thing = _Finalized()
        del thing
        time.sleep(20)


def test_an_event_loop_is_told_instead() -> None:
    told: list[str] = []
    with stoppable():
        with told_to_stop(lambda: told.append("stop")):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)
        assert told == ["stop"]


def test_every_thread_may_ask_whether_it_is_still_wanted() -> None:
    heard: list[bool] = []

    def ask() -> None:
        thread = threading.Thread(target=lambda: heard.append(is_stopping()))
        thread.start()
        thread.join()

    ask()
    with pytest.raises(KeyboardInterrupt), stoppable():
        ask()
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            ask()
    assert heard == [False, False, True]


def test_outside_of_the_command_line_it_is_as_good_as_not_there() -> None:
    done: list[str] = []
    with undisturbed(), told_to_stop(lambda: done.append("told")):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert done == []
