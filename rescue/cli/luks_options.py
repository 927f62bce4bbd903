"""``--luks-key`` and ``--luks-passphrase-file``, for commands that open encrypted disks: they get ``keys``."""

import functools
import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from rescue.jobs.luks_keys import read_keys

T = TypeVar("T")
_FILE = click.Path(path_type=Path, dir_okay=False)


def luks_options(command: Callable[..., T]) -> Callable[..., T]:
    """Gives a command ``keys``. On a terminal a person is asked for what the given keys do not open."""

    @click.option(
        "--luks-key",
        "luks_files",
        multiple=True,
        metavar="FILE",
        type=_FILE,
        help="A key file of an encrypted disk (LUKS); several are tried in turn.",
    )
    @click.option(
        "--luks-passphrase-file",
        "luks_passphrases",
        multiple=True,
        metavar="FILE",
        type=_FILE,
        help="A file with the passphrase of an encrypted disk (LUKS) in one line.",
    )
    @functools.wraps(command)
    def with_keys(
        *words: object, luks_files: tuple[Path, ...], luks_passphrases: tuple[Path, ...], **options: object
    ) -> T:
        ask = _ask if sys.stdin.isatty() and sys.stderr.isatty() else None
        return command(*words, keys=read_keys(luks_files, luks_passphrases, ask), **options)

    return with_keys


def _ask(container: str) -> str:
    """What a person types; nothing gives up."""
    return getpass.getpass(f"Passphrase of the encrypted disk {container}: ", stream=sys.stderr)
