"""What commands share: progress on a terminal (one line that is rewritten, or JSON lines), and common options.

A command that opens a repository takes ``--repo`` and the passphrase from here::

    @repository_option
    @access_options                 # reads only; write_access_options when it changes the repository
    def command(repository: str, access: Access, ...) -> None:
"""

import contextlib
import functools
import getpass
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, TypeVar

import click

from core.documents import encode
from core.errors import UsageError
from core.events import Event, Sink, Stage, ignore
from core.units import format_duration, format_size
from images.store.passphrase import AskPassphrase, Passphrase
from rescue.jobs.access import access_from, read_passphrase, read_signer, read_trusted

T = TypeVar("T")

_NAMES = {
    Stage.PREFLIGHT: "Checking before the first write",
    Stage.CAPTURE: "Capturing",
    Stage.STREAM: "Restoring",
    Stage.VERIFY: "Verifying",
    Stage.EXTRACT: "Extracting",
    Stage.EXPORT: "Exporting",
    Stage.COMPARE: "Comparing",
    Stage.CHECK: "Checking",
    Stage.COPY: "Copying",
    Stage.STICK: "Writing",
    Stage.PRUNE: "Pruning",
}


class TerminalSink:
    """Renders events to a stream (stderr). On a terminal the progress line is rewritten in place; elsewhere a
    line is printed every ten seconds, so that a log stays readable. When nothing can be written there any more (a full
    disk, a pipe that nobody reads), the work goes on unseen."""

    QUIET_INTERVAL = 10.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._shown = False
        self._last = time.monotonic()
        self._line = ""
        self._lock = threading.Lock()

    def __call__(self, event: Event, /) -> None:
        with self._lock, contextlib.suppress(OSError):
            if event.total or event.done or event.stalled:
                self._progress(event)
            elif event.message:
                self._clear()
                self._stream.write(f"{'warning: ' if event.warning else ''}{event.message}\n")
                self._stream.flush()

    def close(self) -> None:
        """Leave the last progress line standing."""
        with self._lock, contextlib.suppress(OSError):
            if self._shown:
                self._stream.write("\n")
                self._shown = False

    def _progress(self, event: Event) -> None:
        text = progress_text(event)
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{text[:width]}")
            self._shown = True
        elif time.monotonic() - self._last >= self.QUIET_INTERVAL or event.done >= event.total > 0:
            if text != self._line:
                self._stream.write(text + "\n")
            self._last, self._line = time.monotonic(), text
        self._stream.flush()

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\n")
            self._shown = False


def progress_text(event: Event) -> str:
    """One line: what, how much of how much, rate, ETA or stall."""
    words = [_NAMES.get(event.stage, event.stage.capitalize())]
    if event.total:
        words.append(f"{min(event.done / event.total, 1):4.0%}")
        words.append(f"{format_size(event.done)} of {format_size(event.total)}")
    elif event.done:
        words.append(format_size(event.done))
    if event.rate:
        words.append(f"{format_size(int(event.rate))}/s")
    if event.stalled:
        # What is waited for, where the stage has no figures of its own. Behind: a narrow terminal cuts the end.
        waiting = f": {event.message}" if event.message and not event.total and not event.done else ""
        words.append(f"NO PROGRESS for {format_duration(event.stalled)}{waiting}")
    elif event.eta is not None and event.done < event.total:
        words.append(f"{format_duration(event.eta)} left")
    return "  ".join(words)


class JsonSink:
    """Writes every event as one JSON line; where nobody reads any more, the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: Event, /) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._stream.write(encode(event).decode())
            self._stream.flush()


def open_sink(style: str) -> Sink:
    """The sink for ``--progress``: ``json``, ``none`` or ``text``."""
    if style == "json":
        return JsonSink(sys.stderr)
    if style == "none":
        return ignore
    sink = TerminalSink(sys.stderr)
    click.get_current_context().call_on_close(sink.close)
    return sink


def tell(progress: str, text: str) -> None:
    """A sentence about the result, on stderr: as one more event for who asked for ``--progress json``."""
    if progress == "json":
        JsonSink(sys.stderr)(Event(stage=Stage.DONE, message=text))
    else:
        click.echo(text, err=True)


progress_option = click.option(
    "--progress",
    type=click.Choice(["text", "json", "none"]),
    default="text",
    show_default=True,
    help="How progress is told on stderr; json is one event a line.",
)
hooks_option = click.option(
    "--hooks",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder of the site's own programs, run before and after the work (docs/hooks.md). "
    "Without it, a restore takes those of the medium's recipe, where there are any.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document on stdout.")
repository_option = click.option(
    "--repo",
    "repository",
    required=True,
    metavar="REPO",
    help="The repository: a folder, file:…, http(s)://… or s3://…",
)
#: Bytes below which a passphrase gets a hint.
_SHORT = 16
_FILE = click.Path(path_type=Path, dir_okay=False)
_SIGNERS = click.option(
    "--require-signature",
    "signers",
    multiple=True,
    metavar="PUBLIC.pem",
    type=_FILE,
    help="Read only recovery points that the owner of this key has signed; of one of them, when given several times.",
)


def access_options(command: Callable[..., T]) -> Callable[..., T]:
    """``--passphrase-file`` and ``--require-signature``, for a command that reads: gives it ``access``.

    On a terminal, an encrypted repository asks for its passphrase when none is given.
    """

    @passphrase_option("passphrase_file")
    @_SIGNERS
    @functools.wraps(command)
    def with_access(*words: object, passphrase_file: Path | None, signers: tuple[Path, ...], **options: object) -> T:
        access = access_from(open_passphrase(passphrase_file), asking("Passphrase"), read_trusted(signers))
        return command(*words, access=access, **options)

    return with_access


def write_access_options(command: Callable[..., T]) -> Callable[..., T]:
    """The same for a command that changes a repository, without ``--require-signature``: whoever writes the catalogue
    or deletes has to see every recovery point, not only those of one signer."""

    @passphrase_option("passphrase_file")
    @functools.wraps(command)
    def with_access(*words: object, passphrase_file: Path | None, **options: object) -> T:
        return command(*words, access=access_from(open_passphrase(passphrase_file), asking("Passphrase")), **options)

    return with_access


def destination_access_options(command: Callable[..., T]) -> Callable[..., T]:
    """``--to-passphrase-file``, for a command with a second repository: gives it ``destination_access``."""

    @passphrase_option("to_passphrase_file", prefix="to-", what="of the repository that is written to")
    @functools.wraps(command)
    def with_access(*words: object, to_passphrase_file: Path | None, **options: object) -> T:
        ask = asking("Passphrase of the repository that is written to")
        access = access_from(open_passphrase(to_passphrase_file), ask)
        return command(*words, destination_access=access, **options)

    return with_access


def sign_option(command: Callable[..., T]) -> Callable[..., T]:
    """``--sign-key``: gives the command ``sign``, a key or None."""

    @click.option(
        "--sign-key", metavar="PRIVATE.pem", type=_FILE, help="Sign what is made (liferaft key new-signing-key)."
    )
    @functools.wraps(command)
    def with_key(*words: object, sign_key: Path | None, **options: object) -> T:
        return command(*words, sign=read_signer(sign_key) if sign_key else None, **options)

    return with_key


def passphrase_option(
    name: str, *, prefix: str = "", what: str = "of the encrypted repository"
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """The option for a file that holds a passphrase. There is none for the passphrase itself: other users of the
    machine would see it in the list of processes."""
    return click.option(
        f"--{prefix}passphrase-file",
        name,
        type=_FILE,
        envvar=f"LIFERAFT_{prefix.upper().replace('-', '_')}PASSPHRASE_FILE",
        show_envvar=True,
        help=f"A file with the passphrase {what}, on one line. Default: it is asked for on the terminal.",
    )


new_passphrase_option = click.option(
    "--new-passphrase-file",
    type=_FILE,
    help="A file with the new passphrase, on one line. Default: it is asked for on the terminal, twice.",
)


def open_passphrase(path: Path | None) -> Passphrase | None:
    """The passphrase in a file; says so on stderr when others may read it."""
    return read_passphrase(path, lambda text: click.echo(f"warning: {text}", err=True)) if path else None


def asking(prompt: str) -> AskPassphrase | None:
    """Asks on the terminal, without showing what is typed; None when there is no terminal."""

    def ask() -> Passphrase:
        try:
            return Passphrase(getpass.getpass(f"{prompt}: ", stream=sys.stderr))
        except EOFError:
            raise click.Abort from None

    return ask if sys.stdin.isatty() else None


def new_passphrase(path: Path | None) -> AskPassphrase:
    """A new passphrase: from a file, or typed twice.

    The function that is returned raises UsageError when there is neither file nor terminal, or both differ.
    """
    given = open_passphrase(path)

    def ask() -> Passphrase:
        if given is not None:
            return given
        first, again = asking("New passphrase"), asking("The same again")
        if first is None or again is None:
            raise UsageError(
                "There is no new passphrase.",
                hint="Give it in a file (init: --passphrase-file, key: --new-passphrase-file) or run it on a terminal.",
            )
        passphrase = first()
        if again() != passphrase:
            raise UsageError("The two passphrases differ.", hint="Nothing was changed. Try again.")
        if len(passphrase.encode()) < _SHORT:
            click.echo(
                "That is short. Whoever gets hold of the repository can try passphrases undisturbed; "
                "five random words resist.",
                err=True,
            )
        return passphrase

    return ask
