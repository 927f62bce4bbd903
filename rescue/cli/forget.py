"""``liferaft forget``: remove recovery points, named or by rules."""

from collections.abc import Callable
from typing import TypeVar

import click

from core.documents import encode
from core.errors import ExitCode, UsageError
from core.units import counted
from images.store.access import Access
from images.store.forget import ForgetResult, GroupBy
from images.store.retention import ALL, Policy, parse_period
from rescue.cli.prune import max_unused_option, parse_limit, print_result
from rescue.cli.terminal import json_option, open_sink, progress_option, repository_option, tell, write_access_options
from rescue.jobs.forget import forget_points
from rescue.jobs.prune import prune_repository

T = TypeVar("T", bound=Callable[..., object])


class _Count(click.ParamType[int]):
    name = "count"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if str(value).lower() == "all":
            return ALL
        try:
            count = int(str(value))
        except ValueError:
            count = -1
        if count < 0:
            self.fail(f"{value!r} is not a count: give a number or 'all'.", param, ctx)
        return count


def _keep_options(command: T) -> T:
    for rule in ("yearly", "monthly", "weekly", "daily", "hourly", "last"):
        what = "newest ones" if rule == "last" else f"newest one of each of the last N {_UNITS[rule]} that have one"
        option = click.option(f"--keep-{rule}", type=_Count(), default=0, metavar="N", help=f"Keep the {what}.")
        command = option(command)
    return command


_UNITS = {"hourly": "hours", "daily": "days", "weekly": "weeks", "monthly": "months", "yearly": "years"}


@click.command("forget")
@click.argument("points", nargs=-1, metavar="[ID...]")
@repository_option
@write_access_options
@_keep_options
@click.option(
    "--keep-within", metavar="PERIOD", help="Keep all not older than this before the newest: 30d, 12h, 2w, 1y6m."
)
@click.option("--keep-name", multiple=True, metavar="GLOB", help="Keep those whose name matches; may be repeated.")
@click.option(
    "--group-by",
    default="host,disks",
    show_default=True,
    metavar="FIELDS",
    help="Apply the rules to each history on its own: host, disks, name; '' for one history of all.",
)
@click.option("--allow-empty", is_flag=True, help="Let the rules remove the last recovery point of a group, too.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--prune", "then_prune", is_flag=True, help="Prune afterwards, if something was removed.")
@max_unused_option
@json_option
@progress_option
def command(
    points: tuple[str, ...],
    repository: str,
    access: Access,
    keep_last: int,
    keep_hourly: int,
    keep_daily: int,
    keep_weekly: int,
    keep_monthly: int,
    keep_yearly: int,
    keep_within: str | None,
    keep_name: tuple[str, ...],
    group_by: str,
    allow_empty: bool,
    dry_run: bool,
    then_prune: bool,
    max_unused: str,
    as_json: bool,
    progress: str,
) -> int:
    """Remove recovery points: those named, or those that no rule keeps.

    A recovery point stays when any rule keeps it. Counts go by what is there: --keep-daily 7 keeps the
    newest of each of the last 7 days that have one, however long ago. N may be "all". While there are
    fewer than N, the oldest one stays, too. The last recovery point of a machine is never removed by
    rules. The room is given back by prune (or --prune).

    \b
    liferaft forget 3fa9c1d2 --repo /backup
    liferaft forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --prune --repo /backup
    """
    policy = Policy(
        last=keep_last,
        hourly=keep_hourly,
        daily=keep_daily,
        weekly=keep_weekly,
        monthly=keep_monthly,
        yearly=keep_yearly,
        within=parse_period(keep_within) if keep_within else None,
        names=keep_name,
    )
    limit = parse_limit(max_unused)
    sink = open_sink(progress)
    result = forget_points(
        repository,
        points,
        policy,
        grouping=_grouping(group_by),
        may_empty=allow_empty,
        dry_run=dry_run,
        sink=sink,
        access=access,
    )
    click.echo(encode(result), nl=False) if as_json else _print(result, progress)
    code = ExitCode.WARNINGS if result.warnings else ExitCode.DONE
    if then_prune and result.removed and not dry_run:
        pruned = prune_repository(repository, limit, dry_run=False, sink=sink, access=access)
        if not as_json:
            print_result(pruned)
        code = ExitCode.WARNINGS if pruned.warnings else code
    return code


def _grouping(text: str) -> tuple[GroupBy, ...]:
    try:
        return tuple(GroupBy(word.strip()) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(
            f"--group-by {text!r} is not known.", hint="Give host, disks, name, or several of them."
        ) from None


def _print(result: ForgetResult, progress: str) -> None:
    width = max((len(point.name) for point in result.points), default=0)
    group = ""
    for point in result.points:
        if point.group != group:
            group = point.group
            click.echo(f"{group}:" if group != "named" else "Named:")
        fate = f"keep    {', '.join(point.reasons)}" if point.reasons else "remove"
        click.echo(f"  {point.id[:12]}  {point.created[:19].replace('T', ' '):<19}  {point.name:<{width}}  {fate}")
    verb = "would be removed" if result.dry_run else "removed"
    click.echo(f"{len(result.removed)} of {counted(len(result.points), 'recovery point')} {verb}.")
    for warning in result.warnings:
        tell(progress, f"Warning: {warning}")
