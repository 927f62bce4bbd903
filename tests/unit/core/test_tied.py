"""Programs that end with us: killed with everything that they have started, and otherwise as any program."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import ProcessError
from core.process import SystemRunner, end_programs_of, tied_runner

_ROOT = Path(__file__).parents[3]
#: What builds: root, and root of a user namespace.
_ROOTS = {"root": (), "root of a namespace": ("unshare", "--user", "--map-root-user", "--")}
#: Root without what namespaces need: as a user is who may not make any (setpriv(1), capabilities(7)).
_BARE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
#: A program that starts others: in its group, in a session of its own and deaf to signals, and one whose parent ends.
_FAMILY = (
    "sh -c 'touch one; exec sleep 300' & setsid sh -c 'trap \"\" HUP INT TERM; touch two; sleep 300' & "
    "sh -c '(touch three; exec sleep 300) &' & "
    "until [ -e one ] && [ -e two ] && [ -e three ]; do sleep 0.05; done; touch ready; wait"
)
#: One of them is waited for in a thread, as a build's second part is.
_WORK = """
import sys, threading
from core.process import tied_runner
thread = threading.Thread(target=lambda: tied_runner().run(["sh", "-c", sys.argv[1]]))
thread.start()
thread.join()
"""


def _working_in(folder: Path) -> dict[int, str]:
    """The processes whose working folder it is, and what they are called: those of other namespaces too."""
    found: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").readlink() == folder and (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found[int(path.name)] = (path / "comm").read_text().strip()
        except OSError:
            continue
    return found


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; what still works there afterwards is ended."""
    yield tmp_path
    for number in _working_in(tmp_path):
        os.kill(number, signal.SIGKILL)


def _kill_at_work(folder: Path, launcher: tuple[str, ...], script: str) -> None:
    """Start a program by a tied runner, and kill who started it when the program is ready."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    argv = [*launcher, sys.executable, "-c", _WORK, script]
    with subprocess.Popen(argv, cwd=folder, env=environment, start_new_session=True) as process:
        try:
            until = time.monotonic() + 60
            while not ((folder / "ready").exists() and "sleep" in _working_in(folder).values()):
                assert process.poll() is None and time.monotonic() < until, _working_in(folder)
                time.sleep(0.02)
        finally:
            process.kill()


def _left(folder: Path, expected: set[str]) -> set[str]:
    """What works there still, when it is what was expected or after some seconds."""
    until = time.monotonic() + 15
    while (left := set(_working_in(folder).values())) != expected and time.monotonic() < until:
        time.sleep(0.05)
    return left


def _skip_where_it_cannot_be(launcher: tuple[str, ...]) -> None:
    if os.geteuid() != 0 and not launcher:
        pytest.skip("needs root")
    if launcher and subprocess.run([*launcher, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"this kernel does not let us: {' '.join(launcher)}")


@pytest.mark.parametrize("who", _ROOTS)
def test_with_a_killed_process_go_its_programs_and_all_that_they_have_started(who: str, killed: Path) -> None:
    _skip_where_it_cannot_be(_ROOTS[who])
    _kill_at_work(killed, _ROOTS[who], _FAMILY)
    assert _left(killed, set()) == set()


def test_who_may_not_make_namespaces_ends_the_programs_themselves(killed: Path) -> None:
    launcher = _BARE if os.geteuid() == 0 else ()
    _skip_where_it_cannot_be(launcher or ("true",))
    _kill_at_work(killed, launcher, "sleep 300 & touch ready; wait")
    # The one that the program has started goes on: what is lost without namespaces.
    assert _left(killed, {"sleep"}) == {"sleep"}


@pytest.fixture
def runner() -> SystemRunner:
    """As root has it."""
    _skip_where_it_cannot_be(())
    return tied_runner()


def test_root_has_namespaces_of_processes(runner: SystemRunner) -> None:
    """The number of a program is its own namespace's: the second, behind the shell that guards it."""
    assert runner.run(["sh", "-c", "echo $$"]).stdout == "2\n"


def test_output_input_and_exit_codes_are_those_of_the_program(runner: SystemRunner, tmp_path: Path) -> None:
    said = runner.run(["sh", "-c", "cat; pwd; echo why >&2; exit 3"], success=frozenset({3}), stdin="fed ", cwd="/")
    assert (said.returncode, said.stdout, said.stderr) == (3, "fed /\n", "why\n")
    lines: list[str] = []
    runner.run(["printf", "%s\n", "a b", "$HOME", "--"], on_line=lines.append)
    assert lines == ["a b", "$HOME", "--"]
    # What is built follows from it: the same bit for bit, wherever it is built.
    assert sorted(runner.run(["env"]).stdout.splitlines()) == sorted(SystemRunner().run(["env"]).stdout.splitlines())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_program_that_a_signal_ended_is_told_as_such(runner: SystemRunner, number: signal.Signals) -> None:
    with pytest.raises(ProcessError) as caught:
        runner.run(["sh", "-c", f"echo last words >&2; kill -{number} $$"])
    assert (caught.value.returncode, caught.value.output) == (-number, "last words\n")
    assert caught.value.argv[0] == "sh"


def test_a_program_that_is_not_wanted_is_asked_to_end(runner: SystemRunner, tmp_path: Path) -> None:
    """Not only killed, which would take ten seconds (core.process._PATIENCE) and leave its things as they are."""
    started, failed = threading.Event(), list[ProcessError]()
    script = "trap 'touch away; kill %1; exit 7' TERM; echo here; sleep 300 & wait"

    def work() -> None:
        try:
            runner.run(["bash", "-c", script], cwd=str(tmp_path), on_line=lambda line: started.set())
        except ProcessError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(60)
    before = time.monotonic()
    end_programs_of(thread)
    thread.join(60)
    assert time.monotonic() - before < 8
    assert [error.returncode for error in failed] == [7] and (tmp_path / "away").exists()
    assert _working_in(tmp_path) == {}


def test_a_program_that_knows_no_signals_ends_at_once_too(runner: SystemRunner) -> None:
    def on_line(line: str) -> None:
        raise KeyboardInterrupt

    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runner.run(["sh", "-c", "echo here; exec sleep 300"], on_line=on_line)
    assert time.monotonic() - before < 8


def test_time_runs_out_for_all_of_them(runner: SystemRunner, tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="no end within"):
        runner.run(["sh", "-c", "setsid sleep 300 & sleep 300"], timeout=0.5, cwd=str(tmp_path))
    assert _left(tmp_path, set()) == set()
