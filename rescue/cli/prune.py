"""``liferaft prune``: give back the room that no recovery point needs."""

import re

import click

from core.documents import encode
from core.errors import ExitCode, UsageError
from core.units import counted, format_size, parse_size
from images.store.access import Access
from images.store.prune import PruneResult
from images.store.usage import Limit
from rescue.cli.terminal import json_option, open_sink, progress_option, repository_option, write_access_options
from rescue.jobs.prune import prune_repository

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")

max_unused_option = click.option(
    "--max-unused",
    default="5%",
    show_default=True,
    metavar="SHARE",
    help="How much may stay in packs unused, rather than be rewritten: 5%, 2 GiB, or 0.",
)


@click.command("prune")
@repository_option
@write_access_options
@max_unused_option
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
@progress_option
def command(repository: str, access: Access, max_unused: str, dry_run: bool, as_json: bool, progress: str) -> int:
    """Remove from a repository what no recovery point needs.

    Packs that hold nothing needed are deleted, those that hold much of it are rewritten, and what
    interrupted captures left is removed. Needs room for about one pack (1 GiB) for the time being.
    A power cut at any moment does no harm: run it again. Nobody else may write meanwhile; restores
    may run, and one that meets a pack that is gone goes on when it is started again.
    """
    limit = parse_limit(max_unused)
    result = prune_repository(repository, limit, dry_run=dry_run, sink=open_sink(progress), access=access)
    click.echo(encode(result), nl=False) if as_json else print_result(result)
    return ExitCode.WARNINGS if result.warnings else ExitCode.DONE


def parse_limit(text: str) -> Limit:
    """``5%``, ``2 GiB`` or ``unlimited``.

    Raises:
        UsageError: it is none of them.
    """
    if text.strip().lower() == "unlimited":
        return Limit(share=1.0)
    match = _PERCENT.fullmatch(text.strip())
    if match is None:
        return Limit(size=parse_size(text))
    share = float(match.group(1)) / 100
    if share > 1:
        raise UsageError(f"{text} is more than all.")
    return Limit(share=share)


def print_result(result: PruneResult) -> None:
    """The result for people."""
    verbs = ("would be deleted", "rewritten", "become") if result.dry_run else ("deleted", "rewritten", "are")
    click.echo(
        f"{counted(result.deleted, 'pack')} {verbs[0]}, {result.rewritten} {verbs[1]} ({format_size(result.copied)} "
        f"copied), {counted(result.strays, 'other file')} removed; {format_size(result.freed)} {verbs[2]} free."
    )
    if result.dry_run and result.room:
        click.echo(f"{format_size(result.room)} are needed for the time being.")
    click.echo(
        f"{counted(result.points, 'recovery point')}; {format_size(result.stored)} stored, "
        f"of which {format_size(result.unused)} are not needed."
    )
    for warning in result.warnings:
        click.echo(f"Warning: {warning}.", err=True)
