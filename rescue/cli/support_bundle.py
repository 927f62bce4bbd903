"""``liferaft support-bundle``: everything a helper asks for, in one file, without the secrets."""

import datetime
from pathlib import Path

import click

from core.documents import encode
from core.process import SystemRunner
from core.units import format_size
from rescue.cli.terminal import json_option, open_sink, progress_option
from rescue.jobs.support import SupportContents, bundle_path, save_support_bundle


@click.command("support-bundle")
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    help="The ZIP file to write, or a folder (a mounted stick) in which it gets a name with the time.",
)
@json_option
@progress_option
def command(out: Path, as_json: bool, progress: str) -> None:
    """Save what is needed to find out what went wrong: one ZIP file of text.

    It holds the journal, the kernel's messages, the machine document, disks with their SMART data, network settings,
    the medium's document, and the plans and reports of this run. Passphrases, tokens, passwords in addresses and keys
    are replaced by ***. It opens on any computer: read it before you send it.

    \b
    In the rescue system, with a stick:   mount /dev/sdb1 /mnt
                                          liferaft support-bundle -o /mnt
                                          umount /mnt
    """
    path = bundle_path(out, datetime.datetime.now(datetime.UTC))
    contents = save_support_bundle(path, SystemRunner(), open_sink(progress))
    click.echo(encode(contents).decode() if as_json else _describe(path, contents), nl=not as_json)


def _describe(path: Path, contents: SupportContents) -> str:
    there = len(contents.parts) - len(contents.missing)
    lines = [f"{path}: {there} parts, {format_size(path.stat().st_size)}"]
    lines += [f"  without {part.path}: {part.note}" for part in contents.missing]
    lines.append("Secrets that were known or looked like ones are ***; read it before you send it.")
    return "\n".join(lines)
