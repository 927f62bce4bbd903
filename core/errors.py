"""Every error liferaft raises on purpose, and the exit code each one ends in.

The tree (catch the highest name that means what you mean)::

    LiferaftError                 1  failed
    ├── UsageError                2  the words of the command or of a document are wrong
    ├── RefusedError              3  preflight or a guard refused; nothing was written
    │   ├── MissingToolError      3  a program that the work needs is not installed
    │   └── UnreachableError      3  a repository or URL that cannot be reached
    ├── DamagedError              5  input that is not what its format promises
    ├── ProcessError              1  a program ended with a code that is not success
    ├── DeviceError               1  reading or writing a device failed
    └── StoppedError            130  the user stopped the work

This module knows nothing of terminals: only the command line turns an error into an exit.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a liferaft process says when it ends (DESIGN §8)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    WARNINGS = 4
    DAMAGED = 5
    STOPPED = 130


class LiferaftError(Exception):
    """One clear sentence, and what to do about it.

    Args:
        message: one sentence for the person at the machine.
        hint: what they can do next; empty when there is nothing to say.
    """

    code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def within(self, what: str) -> None:
        """Begin the message with what was being done, for whoever was told only of the last thing that failed."""
        self.message = f"{what}: {self.message}"
        self.args = (self.message,)


class UsageError(LiferaftError):
    """The words of a command, or the fields of a document that a person wrote, are wrong."""

    code = ExitCode.USAGE


class RefusedError(LiferaftError):
    """Preflight or a guard refused the work. Nothing was written.

    Args:
        reasons: every reason against, not only the first; the message when there is one.
    """

    code = ExitCode.REFUSED

    def __init__(self, message: str, *, hint: str = "", reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.reasons = reasons or (message,)


class MissingToolError(RefusedError):
    """A program that the work needs is not on this machine."""


class UnreachableError(RefusedError):
    """A repository or URL did not answer."""


class DamagedError(LiferaftError):
    """Input that is not what its format promises: names file, offset, field, expected and found."""

    code = ExitCode.DAMAGED


class DeviceError(LiferaftError):
    """The operating system refused to read or write a device or file."""


class StoppedError(LiferaftError):
    """The user stopped the work."""

    code = ExitCode.STOPPED


class ProcessError(LiferaftError):
    """A program ended with a code that is not among the named success codes.

    Attributes:
        argv: the command, secrets already replaced.
        returncode: its exit code, negative for a signal.
        output: the end of what it printed, both streams.
    """

    def __init__(self, argv: tuple[str, ...], returncode: int, output: str, *, hint: str = "") -> None:
        self.argv = argv
        self.returncode = returncode
        self.output = output
        how = f"was ended by signal {-returncode}" if returncode < 0 else f"failed with exit code {returncode}"
        last = output.strip().splitlines()[-1] if output.strip() else "it printed nothing"
        super().__init__(f"{argv[0]} {how}: {last}", hint=hint)
