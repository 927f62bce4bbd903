"""``liferaft init``: make a repository, encrypted or with parity where that is wanted."""

from pathlib import Path

import click

from core.documents import encode
from core.errors import UsageError
from core.units import KIB, format_size
from rescue.cli.terminal import json_option, new_passphrase, passphrase_option
from rescue.jobs.keys import NewRepository, init_repository

_SIZES = {f"{size}KiB": size * KIB for size in (64, 128, 256, 512)} | {
    f"{size}MiB": size * KIB * KIB for size in (1, 2, 4, 8, 16)
}


@click.command("init")
@click.argument("repository", metavar="REPO")
@click.option("--encrypt", is_flag=True, help="Encrypt everything with a passphrase.")
@passphrase_option("passphrase_file", what="that opens the new repository (with --encrypt)")
@click.option(
    "--parity",
    "parity_blocks",
    metavar="N",
    default=0,
    show_default=True,
    type=click.IntRange(0, 64),
    help="Keep parity, so that N damaged regions of each pack can be repaired. 4 costs 3.1 % of the space.",
)
@click.option(
    "--chunk-size",
    type=click.Choice(list(_SIZES)),
    default="1MiB",
    show_default=True,
    help="Smaller ones share more between recovery points and cost more memory and time.",
)
@json_option
def command(
    repository: str, encrypt: bool, passphrase_file: Path | None, parity_blocks: int, chunk_size: str, as_json: bool
) -> None:
    """Make a repository in a folder that is missing or empty.

    What is chosen here cannot be changed later. A plain repository needs no init: capture makes it.
    The passphrase cannot be recovered: if all are lost, so are the recovery points.

    \b
    liferaft init /mnt/usb/backup --encrypt --parity 4
    """
    if passphrase_file is not None and not encrypt:
        raise UsageError(
            "A passphrase file is given, and the repository would not be encrypted.",
            hint="Add --encrypt, or leave out --passphrase-file and LIFERAFT_PASSPHRASE_FILE.",
        )
    passphrase = new_passphrase(passphrase_file)() if encrypt else None
    made = init_repository(
        repository, passphrase=passphrase, parity_blocks=parity_blocks, chunk_size=_SIZES[chunk_size]
    )
    click.echo(encode(made) if as_json else _describe(made), nl=not as_json)


def _describe(made: NewRepository) -> str:
    parity = f"parity for {made.parity_blocks} damaged regions a pack" if made.parity_blocks else "no parity"
    kind = "encrypted" if made.encrypted else "not encrypted"
    return f"{made.location}: {kind}, {parity}, chunks of {format_size(made.chunk_size)}"
