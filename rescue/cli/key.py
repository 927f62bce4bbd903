"""``liferaft key``: who may open an encrypted repository, and the keys that sign recovery points."""

from pathlib import Path

import click

from core.documents import encode
from core.errors import ExitCode
from images.store.access import Access
from rescue.cli.terminal import json_option, new_passphrase, new_passphrase_option, write_access_options
from rescue.jobs.keys import add_passphrase, change_passphrase, list_keys, make_signing_key, remove_passphrase

_repository = click.argument("repository", metavar="REPO")
_label = click.option("--label", default="", help="For people: whose passphrase it is.")
_KEPT = (
    "Whoever knew it may have kept the key itself. To close the repository to them, copy it into a new one "
    "(liferaft init --encrypt, liferaft copy)."
)


@click.group("key")
def command() -> None:
    """Passphrases of an encrypted repository, and keys to sign recovery points with.

    Each passphrase opens a key slot of its own. Adding, changing and removing them rewrites no data.
    """


@command.command("list")
@_repository
@json_option
def list_command(repository: str, as_json: bool) -> int:
    """List the key slots. Needs no passphrase; says nothing about the passphrases."""
    slots, problems = list_keys(repository)
    if as_json:
        click.echo(encode(slots), nl=False)
    else:
        click.echo(f"{'slot':<8}  {'made (UTC)':<19}  label")
        for slot in slots:
            click.echo(f"{slot.id[:8]}  {slot.created[:19].replace('T', ' '):<19}  {slot.label}")
    for problem in problems:
        click.echo(f"Damaged: {problem}", err=True)
    return ExitCode.DAMAGED if problems else ExitCode.DONE


@command.command("add")
@_repository
@write_access_options
@new_passphrase_option
@_label
def add_command(repository: str, access: Access, new_passphrase_file: Path | None, label: str) -> None:
    """Let one more passphrase open the repository. Asks for one that opens it now, then for the new one."""
    click.echo(add_passphrase(repository, access, new_passphrase(new_passphrase_file), label))


@command.command("change")
@_repository
@write_access_options
@new_passphrase_option
@_label
def change_command(repository: str, access: Access, new_passphrase_file: Path | None, label: str) -> None:
    """Change a passphrase: asks for the old one, then for the new one. The old one opens nothing afterwards."""
    click.echo(change_passphrase(repository, access, new_passphrase(new_passphrase_file), label))
    click.echo(f"The passphrase is changed. {_KEPT}", err=True)


@command.command("remove")
@_repository
@click.argument("slot")
@write_access_options
def remove_command(repository: str, slot: str, access: Access) -> None:
    """Take a passphrase's right away. SLOT is the beginning of its id.

    Needs a passphrase that stays, so that somebody can still open the repository.
    """
    click.echo(remove_passphrase(repository, access, slot))
    click.echo(f"The key slot is removed. {_KEPT}", err=True)


@command.command("new-signing-key")
@click.argument("private", metavar="PRIVATE.pem", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("public", metavar="[PUBLIC.pem]", required=False, type=click.Path(path_type=Path, dir_okay=False))
def signing_key_command(private: Path, public: Path | None) -> None:
    """Make a pair of keys: PRIVATE signs (capture --sign-key), PUBLIC is required (restore --require-signature).

    PUBLIC is PRIVATE's name with .pub.pem when it is not given. Keep PRIVATE where no captured
    machine's recovery points lie.
    """
    public = public or private.with_name(f"{private.stem}.pub.pem")
    make_signing_key(private, public)
    click.echo(f"{private}: signs; keep it secret\n{public}: give it to whoever restores")
