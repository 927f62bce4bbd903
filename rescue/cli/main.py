"""The command line: one program, one file per command, loaded only when it is called.

This is the only place where an error becomes an exit code. Data goes to stdout, talk to stderr.
"""

import contextlib
import importlib
import logging
import os
import sys
import traceback
from pathlib import Path

import click

from core.errors import ExitCode, LiferaftError, RefusedError
from core.stopping import stoppable

#: Command name -> module that holds it as ``command``. A module is imported when its command is called,
#: because every import counts on a machine that boots from a CD.
COMMANDS = {
    "build": "rescue.cli.build",
    "capture": "rescue.cli.capture",
    "check": "rescue.cli.check",
    "copy": "rescue.cli.copy",
    "diff": "rescue.cli.diff",
    "export": "rescue.cli.export",
    "extract": "rescue.cli.extract",
    "forget": "rescue.cli.forget",
    "init": "rescue.cli.init",
    "inspect": "rescue.cli.inspect",
    "inject": "rescue.cli.inject",
    "job": "rescue.cli.job",
    "key": "rescue.cli.key",
    "ls": "rescue.cli.ls",
    "plan": "rescue.cli.plan",
    "preflight": "rescue.cli.preflight",
    "probe": "rescue.cli.probe",
    "prune": "rescue.cli.prune",
    "rebuild-index": "rescue.cli.rebuild_index",
    "restore": "rescue.cli.restore",
    "self-test": "rescue.cli.self_test",
    "show": "rescue.cli.show",
    "snapshots": "rescue.cli.snapshots",
    "support-bundle": "rescue.cli.support_bundle",
    "tui": "rescue.cli.tui",
    "unlock": "rescue.cli.unlock",
    "write-usb": "rescue.cli.write_usb",
}

_AGAIN = " Nothing is broken: run the same command again."


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused (nothing was written), "
    "4 finished with warnings, 5 damaged input, 130 stopped.",
)
@click.version_option(package_name="liferaft", prog_name="liferaft")
@click.option("--debug", is_flag=True, help="Say every program that is started, and show tracebacks.")
def cli(debug: bool) -> None:
    """Take pictures of machines, and put failed machines back on their feet.

    \b
    Before the disaster:   liferaft build -o rescue.iso        make the rescue medium
                           liferaft capture /dev/sda --repo R  take a recovery point
    After it:              boot the medium and follow the wizard, or
                           liferaft plan ID --repo R --target /dev/sda -o plan.json
                           liferaft restore --plan plan.json --confirm DIGEST
    """
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(name)s: %(message)s")


def main() -> None:
    """Run the command line and exit."""
    _take_standard_numbers()
    code: int = ExitCode.STOPPED
    # Suppressed is what strikes between the two: then there is nothing left to say or to do.
    with contextlib.suppress(KeyboardInterrupt), stoppable():
        try:
            code = _run(debug="--debug" in sys.argv)
        except KeyboardInterrupt:
            code = _stop()
    sys.exit(code)


def _take_standard_numbers() -> None:
    """Where a standard stream was closed by whoever started us, no file that is opened later gets its number: what is
    said to the one would be written into the other. What is said is lost then, as it was meant to be."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken (open(2)).
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def _run(debug: bool) -> int:
    """Run the command, and see that what it printed is written; returns the exit code."""
    code = _called(debug)
    problem = _lost_output()
    if problem is None:
        return code
    lost = _lose_output(problem)
    return lost if code in (ExitCode.DONE, ExitCode.WARNINGS) else code


def _called(debug: bool) -> int:
    """Run the command and say its error, if any; returns the exit code."""
    try:
        return int(cli.main(standalone_mode=False) or ExitCode.DONE)
    except click.Abort as error:
        # click makes one of a KeyboardInterrupt, too; without a cause it is the answer to a question.
        return _stop(at_work=isinstance(error.__cause__, KeyboardInterrupt))
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return ExitCode.USAGE
    except LiferaftError as error:
        if debug:
            logging.exception("failed")
        show_error(error)
        return error.code
    except Exception as error:
        if isinstance(error, OSError) and _printing(error):
            # On the way from one to the other click prints a line, and the terminal may be what went away.
            return _stop() if isinstance(error.__context__, KeyboardInterrupt) else _lose_output(error)
        if debug:
            raise
        _say(f"Error: liferaft itself failed: {type(error).__name__}: {error}")
        _say("Hint: run it again with --debug and report what it prints.")
        return ExitCode.FAILED


def _stop(*, at_work: bool = True) -> int:
    """Say that the command was stopped; nothing that is not printed yet is waited for."""
    if sys.stdout is not None:
        _to_nowhere()
    _say(f"Stopped.{_AGAIN if at_work else ''}")
    return ExitCode.STOPPED


def _printing(error: OSError) -> bool:
    """Whether it was met while a command printed, and not in its work."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_code is click.echo.__code__


def _lost_output() -> OSError | None:
    """Why what was printed cannot be written to stdout; None when it is."""
    # Python has none when it was started with a closed one.
    if sys.stdout is None:
        return None
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def _lose_output(problem: OSError) -> int:
    """Say that the result is lost; Python's own last attempt to write it comes to nothing."""
    _to_nowhere()
    # Who closes a pipe early (head, less) has seen enough.
    if not isinstance(problem, BrokenPipeError):
        _say(f"Error: What was to be printed cannot be written: {problem.strerror}.")
        _say("Hint: Send it to another place. What the command does beside printing may be done already.")
    return ExitCode.FAILED


def _to_nowhere() -> None:
    with Path(os.devnull).open("wb") as nowhere, contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def show_error(error: LiferaftError) -> None:
    """One sentence, every reason, one hint: to stderr."""
    _say(f"Error: {error.message}")
    if isinstance(error, RefusedError) and len(error.reasons) > 1:
        for reason in error.reasons:
            _say(f"  - {reason}")
    if error.hint:
        _say(f"Hint: {error.hint}")


def _say(text: str) -> None:
    """To stderr; when that cannot be written, the exit code remains."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)
