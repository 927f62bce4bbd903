"""``liferaft extract``: files out of a recovery point."""

import sys
from pathlib import Path

import click

from core.documents import encode
from core.errors import ExitCode, UsageError
from core.units import format_size
from images.store.access import Access
from rescue.cli.terminal import access_options, json_option, open_sink, progress_option, repository_option, tell
from rescue.jobs.browse_extract import ExtractResult, extract_to_folder, extract_to_stream, extract_to_tar

#: Sentences of one sort that are shown; --json has them all.
_SHOWN = 20


@click.command("extract")
@click.argument("place", metavar="ID:PATH")
@click.argument("target", metavar="DEST")
@repository_option
@access_options
@click.option("--tar", "as_tar", is_flag=True, help="Write a tar file whatever DEST is called; with - to stdout.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist. Folders are merged.")
@json_option
@progress_option
def command(
    place: str,
    target: str,
    repository: str,
    access: Access,
    as_tar: bool,
    overwrite: bool,
    as_json: bool,
    progress: str,
) -> int:
    """Bring files or folders back from a recovery point, without restoring it and without root.

    ID:PATH is as for `liferaft ls`. DEST is

    \b
      a folder     made when missing; what PATH names is put into it under its own name,
                   the content of a volume's top folder directly
      NAME.tar     a pax tar file: owners, modes, times, attributes, links and devices all
                   survive in it without root (unpack: tar --xattrs --xattrs-include='*' -xpf)
      -            stdout, for one file

    Into a folder come modes, times, user attributes, access lists, hard and symbolic links and
    holes; as root also owners, devices and system attributes. Without root those are left out,
    counted and said; that alone is exit code 0. What DEST's filesystem does not take, or what is
    encrypted in the image, is said, and the exit code is 4. Nothing outside DEST is ever written,
    and no symbolic link is followed.

    A file of which a part cannot be read is kept as NAME.damaged with zeros in that part (in a
    tar file: under its name); the rest goes on, every such file is named, and the exit code is 5.

    \b
    liferaft extract latest:/etc/fstab . --repo R
    liferaft extract latest:/home/anna anna.tar --repo R
    liferaft extract latest:disk0-part3/Users/Anna/Documents /mnt/usb --repo http://server/backup
    liferaft extract latest:/var/log/syslog - --repo R | less
    """
    sink = open_sink(progress)
    if target == "-" and as_json:
        raise UsageError("With - stdout is the file's: --json has no place on it.")
    if target == "-" and as_tar:
        result = extract_to_tar(repository, place, sys.stdout.buffer, overwrite=False, sink=sink, access=access)
    elif target == "-":
        result = extract_to_stream(repository, place, sys.stdout.buffer, sink=sink, access=access)
    elif as_tar or target.endswith(".tar"):
        result = extract_to_tar(repository, place, Path(target), overwrite=overwrite, sink=sink, access=access)
    else:
        result = extract_to_folder(repository, place, Path(target), overwrite=overwrite, sink=sink, access=access)
    _report(result, progress)
    if as_json:
        click.echo(encode(result), nl=False)
    if result.damaged:
        return ExitCode.DAMAGED
    return ExitCode.WARNINGS if result.warnings else ExitCode.DONE


def _report(result: ExtractResult, progress: str) -> None:
    """To stderr: what came out, and what did not."""
    counts = [(result.files, "file"), (result.folders, "folder"), (result.others, "link or special file")]
    words = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count) or "nothing"
    tell(progress, f"{result.path}: {words}, {format_size(result.size)}.")
    for note in result.notes:
        tell(progress, f"note: {note}")
    for word, sentences in (("warning", result.warnings), ("Damaged", result.damaged)):
        for sentence in sentences[:_SHOWN]:
            tell(progress, f"{word}: {sentence}")
        if len(sentences) > _SHOWN:
            tell(progress, f"{word}: and {len(sentences) - _SHOWN} more; --json has them all.")
