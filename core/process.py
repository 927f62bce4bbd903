"""The one door to other programs.

Everything liferaft starts goes through a :class:`Runner`: an argv list (never a shell string),
the C locale, closed standard input, named success codes, a time limit, and an error that carries
command, code and output with secrets replaced. The runner is a parameter of whoever needs one,
so a test passes a recording one and no code asks whether it is a rehearsal.
"""

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, Protocol

import msgspec

from core.errors import LiferaftError, MissingToolError, ProcessError
from core.stopping import is_stopping, is_undisturbed, undisturbed

log = logging.getLogger(__name__)

_PASSED_ON = ("PATH", "HOME", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "SOURCE_DATE_EPOCH")
_TAIL = 8000
#: Seconds that a program has to come to its own end when it is not wanted any more, and between two looks at it.
_PATIENCE, _LOOK = 10.0, 0.02
#: Seconds in which the kernel takes away the processes that were killed.
_KILLING = 2.0
#: Put before a program that is not to outlive us. The kernel kills it with the thread that started it (prctl(2),
#: PR_SET_PDEATHSIG), which in :meth:`SystemRunner.run` is the one that waits for its end.
_TIED = ("setpriv", "--pdeathsig", "KILL", "--")
#: What it starts does not inherit that. So it gets a namespace of processes, whose first one dies with unshare, and
#: everybody in it with the first, whatever their parents, groups and sessions are (pid_namespaces(7)). The first is a
#: shell: a first process gets no signal that it does not handle itself, and the program is to be asked to end. What a
#: shell says of a program that a signal ended is not the program's output, and its PWD is not for the environment.
_FENCED = (
    *("unshare", "--pid", "--fork", "--kill-child", "--"),
    *("sh", "-c", 'unset PWD; exec 3>&2 2>/dev/null; (exec 2>&3 3>&-; exec "$@"); exit $?', "sh"),
)
#: A shell's exit code for a program that a signal ended, less the signal's number (POSIX, "Exit Status for Commands").
_SIGNALLED = 128
#: What runs now, by the thread that waits for it.
_running: dict[int, "_Started"] = {}


class Result(msgspec.Struct, frozen=True):
    """What a program left behind. ``stdout`` is whole, ``stderr`` is its end."""

    returncode: int
    stdout: str
    stderr: str


class Runner(Protocol):
    """Starts a program, waits for it, judges its exit code."""

    def run(
        self,
        argv: Sequence[str],
        *,
        success: frozenset[int] = frozenset({0}),
        timeout: float = 600.0,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        secrets: Sequence[str] = (),
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        """Run ``argv`` and return what it printed.

        Args:
            success: exit codes that mean success.
            timeout: seconds after which the program's whole process group is killed.
            stdin: text for its standard input; closed when None.
            env: variables added to the small, C-locale environment.
            secrets: strings replaced by ``***`` in logs and errors.
            on_line: called with each line of output (both streams joined) as it comes;
                then ``stdout`` holds both.

        Raises:
            MissingToolError: the program is not installed.
            ProcessError: its code is not in ``success``, or time ran out.
        """
        ...


class SystemRunner:
    """The runner that really starts programs.

    Args:
        tied: a program is killed when this process is. fenced: and all that it has started. See :func:`tied_runner`.
    """

    def __init__(self, *, tied: bool = False, fenced: bool = False) -> None:
        self._fenced = fenced
        self._before = (*(_TIED if tied else ()), *(_FENCED if fenced else ()))

    def run(
        self,
        argv: Sequence[str],
        *,
        success: frozenset[int] = frozenset({0}),
        timeout: float = 600.0,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        secrets: Sequence[str] = (),
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        shown = tuple(_redact(word, secrets) for word in argv)
        log.debug("run: %s", shlex.join(shown))
        with tempfile.TemporaryFile("w+b") as errors, contextlib.ExitStack() as stack:
            joined = on_line is not None
            lasts = is_undisturbed()
            with undisturbed():
                errors_to = subprocess.STDOUT if joined else errors
                process = _start(argv, shown, stdin is not None, errors_to, env, cwd, self._before)
                stack.push(_Started(process, lasts=lasts).leave)
            try:
                if on_line is not None:
                    stdout = _follow(process, on_line, timeout, stdin)
                else:
                    stdout = process.communicate(stdin.encode() if stdin is not None else None, timeout)[0].decode(
                        errors="replace"
                    )
            except subprocess.TimeoutExpired:
                _kill(process)
                raise ProcessError(shown, -signal.SIGKILL, f"no end within {timeout:.0f} s") from None
            stderr = "" if joined else _tail(errors)
        stderr = _redact(stderr, secrets)
        code = process.returncode
        if self._fenced and code > _SIGNALLED:
            code = _SIGNALLED - code
        if code not in success:
            output = _redact(stdout[-_TAIL:], secrets) + stderr
            log.debug("failed (%d): %s", code, output)
            raise ProcessError(shown, code, output)
        return Result(code, stdout, stderr)


def tied_runner() -> SystemRunner:
    """A runner whose programs end with this process, even when it is killed: each program and all that it has started
    where this process may make namespaces of processes (root may), elsewhere the program alone.

    It may start nothing that is to stay, such as a filesystem that a program serves (FUSE). What was started in the
    last milliseconds before the kill, and could not yet say that it is tied, comes to its own end.
    """
    for runner in (SystemRunner(tied=True, fenced=True), SystemRunner(tied=True)):
        try:
            runner.run(["true"], timeout=20)
        except LiferaftError as error:
            log.debug("programs cannot be tied to this process: %s", error.message)
        else:
            return runner
    return SystemRunner()


def end_programs_of(thread: threading.Thread) -> None:
    """End what another thread waits for, if anything: to it, the program has failed. What is begun or put away
    undisturbed (core.stopping) comes to its own end."""
    started = _running.get(thread.ident or 0)
    if started is not None:
        _end_of_others([started])


def end_programs() -> None:
    """The same of all other threads at once; what a person has on the terminal is ended, too."""
    own = threading.get_ident()
    _end_of_others([started for thread, started in list(_running.items()) if thread != own])


def _end_of_others(found: Sequence["_Started"]) -> None:
    # What they print meanwhile is for those threads to read.
    _end([one for one in found if not one.lasts and one.process.returncode is None], lambda: None)


def become(argv: Sequence[str]) -> NoReturn:
    """Go on as another program, in this process, with its environment and terminal.

    Raises:
        MissingToolError, LiferaftError: it cannot be started.
    """
    log.debug("become: %s", shlex.join(argv))
    try:
        os.execvp(argv[0], list(argv))
    except FileNotFoundError:
        raise missing_tool(argv[0]) from None
    except OSError as error:
        raise LiferaftError(f"{argv[0]} could not be started: {error.strerror}") from None


def run_on_terminal(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Give this process's own terminal to a program that a person uses (a shell), and wait for its end.

    The one place where a program gets more than a closed standard input. It keeps our environment, because it is the
    person's, and stays in our session, whose terminal it uses. Whoever ends it hangs up on it, as if the terminal had
    gone away.

    Returns:
        its exit code, negative for a signal.

    Raises:
        MissingToolError, LiferaftError: it cannot be started.
    """
    log.debug("run on the terminal: %s", shlex.join(argv))
    with contextlib.ExitStack() as stack:
        stack.callback(_take_terminal_back, _terminal_group())
        try:
            with undisturbed():
                process = subprocess.Popen(argv, env={**os.environ, **(env or {})})
                started = _OnTerminal(process)
                stack.push(started.leave)
        except FileNotFoundError:
            raise missing_tool(argv[0]) from None
        except OSError as error:
            raise LiferaftError(f"{argv[0]} could not be started: {error.strerror}") from None
        if is_stopping():
            # Told before it was known to those who end programs.
            _end([started], lambda: None)
        return process.wait()


def _start(
    argv: Sequence[str],
    shown: tuple[str, ...],
    feeds: bool,
    stderr: IO[bytes] | int,
    env: Mapping[str, str] | None,
    cwd: str | None,
    before: tuple[str, ...],
) -> subprocess.Popen[bytes]:
    full = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    full.update(LC_ALL="C.UTF-8", LANG="C.UTF-8", **(env or {}))
    if "/sbin" not in full.get("PATH", ""):
        full["PATH"] = full.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    program = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=full["PATH"])
    if program is None:
        raise missing_tool(argv[0])
    try:
        return subprocess.Popen(
            [*before, program, *argv[1:]],
            stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=full,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise missing_tool(argv[0]) from None
    except OSError as error:
        raise LiferaftError(f"{shown[0]} could not be started: {error.strerror}") from None


def _follow(process: subprocess.Popen[bytes], on_line: Callable[[str], None], timeout: float, stdin: str | None) -> str:
    """Hand on each line as it comes; the time limit is for the whole run."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _kill(process)

    timer = threading.Timer(timeout, expire)
    timer.start()
    lines: list[str] = []
    try:
        if stdin is not None and process.stdin is not None:
            # Who ends without reading it says why by exit code and output.
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(stdin.encode())
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            lines.append(line)
            on_line(line)
        process.wait()
    finally:
        timer.cancel()
    if expired.is_set():
        raise subprocess.TimeoutExpired(process.args, timeout)
    return "\n".join(lines)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class _Started:
    """A program that runs. It is let go of when the block ends: one that nobody has waited for to the end is ended,
    whatever happened.

    Attributes:
        lasts: other threads do not end it.
    """

    def __init__(self, process: subprocess.Popen[bytes], *, lasts: bool = False) -> None:
        self.process = process
        self.lasts = lasts
        self._thread = threading.get_ident()
        _running[self._thread] = self

    def ask(self) -> None:
        """Tell it to end, and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Do not ask."""
        _kill(self.process)

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return _runs(self.process)

    def leave(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """An exit of the block."""
        try:
            if kind is not None:
                _end([self], lambda: _drain(self.process))
        finally:
            self.process.wait()
            _running.pop(self._thread, None)
            for stream in (self.process.stdin, self.process.stdout):
                # What the program was still to be fed goes nowhere.
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()


class _OnTerminal(_Started):
    """A program that shares our session and terminal: a shell, and the job that it has in the foreground.

    An interactive shell ignores SIGTERM (bash(1), SIGNALS); the hangup it passes on to all its jobs.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(process)
        #: The foreground job's process group, once that is to end; 0 for none of its own.
        self._group = 0

    def ask(self) -> None:
        """Hang up."""
        group = _terminal_group()
        self._group = group if group != os.getpgrp() else 0
        self._tell(signal.SIGHUP)
        # What was stopped hears it only now.
        self._tell(signal.SIGCONT)

    def kill(self) -> None:
        """Do not ask."""
        self._tell(signal.SIGKILL)

    def runs(self) -> bool:
        """Whether it, or its job, has not ended yet."""
        return super().runs() or (self._group > 0 and _has_members(self._group))

    def _tell(self, number: signal.Signals) -> None:
        # One that was waited for has a number that may be another's by now.
        if super().runs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)
        if self._group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, number)


def _terminal_group() -> int:
    """The process group in the foreground of the terminal on standard input; 0 where there is none."""
    try:
        return max(os.tcgetpgrp(0), 0)
    except OSError:
        return 0


def _take_terminal_back(group: int) -> None:
    """Give the terminal to the process group that had it: a shell that was killed has not, and who draws on a terminal
    that is another group's is stopped (tcsetpgrp(3); blocked, SIGTTOU is not sent)."""
    if group and _terminal_group() != group:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(0, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(programs: Sequence[_Started], meanwhile: Callable[[], None]) -> None:
    """Leave nothing of programs behind. They are asked to end, so that they can put their own things away, and killed
    when they do not; whatever they have started goes with them."""
    try:
        for program in programs:
            program.ask()
        until = time.monotonic() + _PATIENCE
        while any(program.runs() for program in programs) and time.monotonic() < until:
            meanwhile()
            time.sleep(_LOOK)
    finally:
        for program in programs:
            program.kill()
    until = time.monotonic() + _KILLING
    while any(_has_members(program.process.pid) for program in programs) and time.monotonic() < until:
        time.sleep(_LOOK)


def _runs(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has not ended yet. Its process number stays taken: it still names the group, and nobody else's."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _drain(process: subprocess.Popen[bytes]) -> None:
    """Read what it has printed and lose it: a program that waits to be read does not come to its end."""
    if process.stdout is not None and not process.stdout.closed:
        os.set_blocking(process.stdout.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while os.read(process.stdout.fileno(), 1 << 16):
                pass


def _has_members(group: int) -> bool:
    """Whether a process group has processes that have not ended (proc_pid_stat(5): state, parent, group).

    Those that wait to be taken note of count for the kernel, and in a container nobody may ever do that.
    """
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            state, _, found, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(found) == group and state not in "ZX":
                return True
    return False


def _tail(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - _TAIL, 0))
    return stream.read().decode(errors="replace")


def _redact(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text


def missing_tool(name: str) -> MissingToolError:
    """The error for a program that is not installed."""
    return MissingToolError(
        f"The program {name} is not installed.", hint=f"On Debian: apt-get install the package that has {name}."
    )


def find_tool(name: str) -> str | None:
    """The path of a program, looked for in /usr/sbin and /sbin too; None when it is not installed."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin")
