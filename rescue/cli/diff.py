"""``liferaft diff``: what changed between two recovery points, by file."""

import click

from core.documents import encode
from core.errors import ExitCode
from core.units import format_size
from images.browse.compare import Change
from images.browse.entry import Kind
from images.browse.tree import shown
from images.store.access import Access
from rescue.cli.terminal import access_options, json_option, open_sink, progress_option, repository_option, tell
from rescue.jobs.compare import PathDifference, VolumeComparison, compare_points

_SIGNS = {Change.ADDED: "+", Change.REMOVED: "-", Change.CHANGED: "M"}


@click.command("diff")
@click.argument("old", metavar="ID1")
@click.argument("new", metavar="ID2")
@click.argument("path", metavar="[PATH]", required=False, default="")
@repository_option
@access_options
@json_option
@progress_option
def command(old: str, new: str, path: str, repository: str, access: Access, as_json: bool, progress: str) -> int:
    """Show which files changed from recovery point ID1 to ID2, or at and below PATH of them.

    \b
      + /etc/new        added, with its size
      - /etc/old        removed
      M /etc/fstab      changed: "content" when its bytes differ, and which of mode, owner,
                        time, target, device, attributes

    PATH is as for `liferaft ls`. The points may be of different machines: volumes are paired by
    partition GUID, then filesystem UUID, then id. A change of content is found even when size and
    time are the same; content that both share is not read. A renamed file shows as removed and
    added. What cannot be compared is named on stderr; then the exit code is 5.

    \b
    liferaft diff monday latest --repo R
    liferaft diff monday latest /etc --repo R
    """
    result = compare_points(repository, old, new, path=path, sink=open_sink(progress), access=access)
    if as_json:
        click.echo(encode(result), nl=False)
    else:
        for volume in result.volumes:
            _print_volume(volume)
    for problem in result.problems:
        tell(progress, f"Damaged: {problem}")
    return ExitCode.DAMAGED if result.problems else ExitCode.DONE


def _print_volume(volume: VolumeComparison) -> None:
    names = volume.new if volume.old == volume.new else f"{volume.old or '-'} → {volume.new or '-'}"
    if volume.note:
        changed = f"{volume.changed_chunks} chunks differ; " if volume.changed_chunks else ""
        click.echo(f"{names}: {changed}{volume.note}")
        return
    counts = {change: sum(1 for item in volume.differences if item.change is change) for change in Change}
    words = ", ".join(f"{count} {change}" for change, count in counts.items() if count) or "no file differs"
    click.echo(f"{names}: {words}")
    for item in volume.differences:
        click.echo(f"  {_SIGNS[item.change]} {_line(item)}")


def _line(item: PathDifference) -> str:
    name = shown(item.path) + ("/" if item.kind is Kind.FOLDER else "")
    size = item.new_size if item.old_size is None else item.old_size
    if item.change is not Change.CHANGED:
        return f"{name}  {format_size(size or 0)}" if item.kind is Kind.FILE else name
    words = list(item.metadata)
    if item.content:
        same = item.old_size == item.new_size
        sizes = f"{format_size(item.old_size or 0)}{'' if same else f' → {format_size(item.new_size or 0)}'}"
        words.insert(0, f"content ({sizes})")
    return f"{name}  {', '.join(words)}"
