"""``liferaft snapshots``: the recovery points of a repository."""

import click

from core.documents import encode
from core.units import format_size
from rescue.cli.terminal import json_option, repository_option
from rescue.jobs.points import list_points


@click.command("snapshots")
@repository_option
@json_option
def command(repository: str, as_json: bool) -> None:
    """List the recovery points of a repository, oldest first."""
    points = list_points(repository)
    if as_json:
        click.echo(encode(points), nl=False)
        return
    if not points:
        click.echo(f"{repository} holds no recovery points yet.", err=True)
        return
    width = max(len("name"), *(len(point.name) for point in points))
    click.echo(f"{'id':<12}  {'taken (UTC)':<19}  {'name':<{width}}  {'disks':>11}  {'in use':>11}  from")
    for point in points:
        click.echo(
            f"{point.id[:12]}  {point.created[:19].replace('T', ' ')}  {point.name:<{width}}  "
            f"{format_size(point.disk_size):>11}  {format_size(point.allocated):>11}  {point.origin}"
        )
