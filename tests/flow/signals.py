"""Commands as programs of their own, which tests send signals to."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
#: How a command is told to stop: from the keyboard, once and by somebody impatient; by kill(1); by a terminal that went
#: away; by timeout(1), which sends to the command and then to its group; by systemd with SendSIGHUP= (systemd.kill(5)).
WAYS = {
    "Ctrl-C": (signal.SIGINT,),
    "Ctrl-C twice": (signal.SIGINT, signal.SIGINT),
    "kill": (signal.SIGTERM,),
    "hangup": (signal.SIGHUP,),
    "timeout": (signal.SIGTERM, signal.SIGTERM),
    "systemd": (signal.SIGTERM, signal.SIGHUP),
}
_STOPPED = "Stopped. Nothing is broken: run the same command again."
#: Put before the program: work that takes time, so that a signal meets it.
SLOW = (
    "import time\n"
    "from images.capture import _Workers\n"
    "from images.store.backend import LocalBackend\n"
    "from builder.stick.stick import _Writing\n"
    "def slow(of, name, seconds):\n"
    "    quick = getattr(of, name)\n"
    "    setattr(of, name, lambda *words, **options: (time.sleep(seconds), quick(*words, **options))[1])\n"
    "slow(_Workers, '_pack', 0.3)\n"
    "slow(LocalBackend, 'read_range', 0.3)\n"
    "slow(_Writing, '_write', 0.3)\n"
)


def signals_as_at_the_start() -> None:
    """In a program that is about to start: whoever runs the tests (nohup, systemd) may have some of them ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Command:
    """liferaft at work, as a program of its own.

    Attributes:
        said: the file with what it says on stderr.
    """

    def __init__(self, folder: Path, *words: str | Path, launcher: tuple[str, ...] = (), slow: str = SLOW) -> None:
        self._folder = folder
        self._scratch = folder / "scratch"
        self._scratch.mkdir(exist_ok=True)
        self.said = folder / "said"
        # A file, because `liferaft build` starts itself again by its own name where it is not root.
        program = folder / "liferaft.py"
        program.write_text(f"{slow}from rescue.cli.main import main\nmain()\n")
        with self.said.open("w") as said, (folder / "printed").open("w") as printed:
            self.process = subprocess.Popen(
                [*launcher, sys.executable, str(program), *map(str, words)],
                cwd=folder,
                # Both are passed on to every program that it starts: by the folder in them they are known.
                env={
                    **os.environ,
                    "PATH": f"{folder}:{os.environ['PATH']}",
                    "PYTHONPATH": PYTHONPATH,
                    "HOME": str(folder),
                    "TMPDIR": str(self._scratch),
                },
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=said,
                start_new_session=True,
                preexec_fn=signals_as_at_the_start,
            )

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait until it has come so far, and is still at work."""
        until = time.monotonic() + 60
        while not reached():
            assert self.process.poll() is None, f"it ended by itself: {self.said.read_text()}"
            assert time.monotonic() < until, f"it never came so far: {self.said.read_text()}"
            time.sleep(0.01)

    def stop(self, *numbers: signal.Signals, says: str = _STOPPED) -> None:
        """Send signals, and see it end as it should."""
        for number in numbers:
            self.process.send_signal(number)
            time.sleep(0.02)
        code, said = self.process.wait(60), self.said.read_text()
        assert code == 130, said
        assert says in said and "Traceback" not in said
        self.nothing_left()

    def nothing_left(self) -> None:
        """No program, no scratch file, no mount, no loop device."""
        assert self.programs() == {}
        assert list(self._scratch.iterdir()) == []
        assert str(self._folder) not in Path("/proc/self/mountinfo").read_text()
        loops = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
        assert not [path for path in loops if str(self._folder) in path]

    def programs(self) -> dict[int, str]:
        """Those that run, it and whatever it has started: process to command line."""
        found: dict[int, str] = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self._folder).encode() in (path / "environ").read_bytes():
                    found[int(path.name)] = (path / "cmdline").read_text()
        return found

    def kill(self) -> None:
        """For a test that failed."""
        for number in self.programs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()
