"""``liferaft snapshots``: the recovery points of a repository."""

import click

from core.documents import encode
from core.errors import ExitCode
from core.units import format_size
from images.store.access import Access
from images.store.catalogue import PointSummary
from rescue.cli.terminal import access_options, json_option, repository_option
from rescue.jobs.points import list_with_damage


@click.command("snapshots")
@repository_option
@access_options
@json_option
def command(repository: str, access: Access, as_json: bool) -> int:
    """List the recovery points of a repository, oldest first.

    Recovery points that are damaged, or not signed as required, are named on stderr, and the exit code is 5.
    """
    points, damaged = list_with_damage(repository, access)
    if as_json:
        click.echo(encode(points), nl=False)
    elif points:
        _print_table(points)
    elif not damaged:
        click.echo(f"{repository} holds no recovery points yet.", err=True)
    for problem in damaged:
        click.echo(f"Not listed: {problem}", err=True)
    return ExitCode.DAMAGED if damaged else ExitCode.DONE


def _print_table(points: tuple[PointSummary, ...]) -> None:
    width = max(len("name"), *(len(point.name) for point in points))
    click.echo(f"{'id':<12}  {'taken (UTC)':<19}  {'name':<{width}}  {'disks':>11}  {'in use':>11}  from")
    for point in points:
        click.echo(
            f"{point.id[:12]}  {point.created[:19].replace('T', ' ')}  {point.name:<{width}}  "
            f"{format_size(point.disk_size):>11}  {format_size(point.allocated):>11}  {point.origin}"
        )
