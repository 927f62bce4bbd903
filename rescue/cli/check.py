"""``liferaft check``: is a repository sound?"""

import click

from core.documents import encode
from core.errors import ExitCode
from core.units import counted, format_duration, format_size
from images.model.extents import Extent, merge
from images.store.access import Access
from images.store.check import Depth
from images.store.findings import CheckResult, Garbage, Hit
from rescue.cli.terminal import access_options, json_option, open_sink, progress_option, repository_option
from rescue.jobs.check import check_repository

_SHOWN = 50


@click.command("check")
@repository_option
@access_options
@click.option("--data", is_flag=True, help="Read, decrypt and hash every record and every parity block, too.")
@click.option(
    "--sample",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PERCENT",
    help="Like --data, for so many percent of the packs, drawn anew each time.",
)
@click.option("--repair", is_flag=True, help="Repair what can be repaired: from parity, from other copies, from packs.")
@json_option
@progress_option
def command(
    repository: str,
    access: Access,
    data: bool,
    sample: float | None,
    repair: bool,
    as_json: bool,
    progress: str,
) -> int:
    """Check that everything is there that the recovery points need.

    Without options the structure is checked: manifests, indexes, sizes of packs, every page of every
    map; that takes seconds to minutes. --data reads everything, as a restore of all would.
    Nothing is changed unless --repair is given. Damage is named with file and offset, and with the
    recovery points, volumes and LBA ranges it hits.

    \b
    liferaft check --repo /mnt/usb/backup
    liferaft check --repo /mnt/usb/backup --data --repair

    \b
    Exit codes: 0  every recovery point restores, nothing to do (garbage may be there)
                4  every recovery point restores, and something was repaired or should be (--repair)
                5  damage is left: some recovery points, or parts of them, do not restore
    """
    depth = Depth(data=data or sample is not None, percent=100.0 if sample is None else sample)
    result = check_repository(repository, depth, repair=repair, sink=open_sink(progress), access=access)
    if as_json:
        click.echo(encode(result), nl=False)
    else:
        _print(result, repair=repair)
    if not result.harmless:
        return ExitCode.DAMAGED
    return ExitCode.WARNINGS if result.damage_count or result.repaired or result.unprotected else ExitCode.DONE


def _print(result: CheckResult, *, repair: bool) -> None:
    click.echo(
        f"{counted(result.points, 'recovery point')}, {counted(result.indexes, 'index', 'indexes')}, "
        f"{counted(result.packs, 'pack')} ({format_size(result.stored)}); {counted(result.pages, 'page')} and "
        f"{counted(result.chunks, 'chunk')} in their maps."
    )
    if result.proven_records:
        size = format_size(result.proven_bytes)
        click.echo(
            f"{counted(result.proven_records, 'record')} ({size}) read and proven in {format_duration(result.seconds)}."
        )
    _print_garbage(result.garbage, harmless=result.harmless)
    if result.unprotected:
        click.echo(f"{counted(result.unprotected, 'pack')} without parity yet: check --data --repair makes it.")
    for text in (*result.notes, *(f"Repaired: {text}" for text in result.repaired)):
        click.echo(text)
    _print_damage(result)
    if not result.damage_count:
        click.echo("No damage." if not result.repaired else "No damage is left.")
    elif result.harmless:
        click.echo("Every recovery point restores all the same; --repair puts this right.")
    elif not repair:
        click.echo(
            "Hint: --repair (with --data) brings back what can be, from parity, other copies and packs.", err=True
        )
    else:
        click.echo("Hint: a new capture of the same disks stores again what they still hold of it.", err=True)


def _print_garbage(garbage: Garbage, *, harmless: bool) -> None:
    size = garbage.pack_bytes + garbage.record_bytes
    files = garbage.leftovers + garbage.packs + garbage.strays
    if size or files:
        click.echo(
            f"Not needed{'' if harmless else ' by what can be read'}: {counted(garbage.records, 'record')} and "
            f"{counted(files, 'file')}, {format_size(size)}"
            + ("; liferaft prune collects them." if harmless else ". What is damaged may need them.")
        )


def _print_damage(result: CheckResult) -> None:
    hits: dict[str, list[Hit]] = {}
    for hit in result.hits:
        hits.setdefault(hit.record, []).append(hit)
    for damage in result.damages[:_SHOWN]:
        click.echo(f"Damaged {damage.kind}: {damage.message}")
        for text in _merged(hits.pop(damage.record, []))[:_SHOWN]:
            click.echo(f"    hits {text}")
    if result.damage_count > _SHOWN:
        click.echo(f"… and {result.damage_count - _SHOWN} more; --json lists up to 10000.")
    rest = [hit for found in hits.values() for hit in found]
    if rest:
        click.echo("Cannot be restored:")
        for text in _merged(rest)[:_SHOWN]:
            click.echo(f"    {text}")
    if result.affected:
        click.echo(f"Recovery points that do not restore whole: {', '.join(point[:12] for point in result.affected)}.")


def _merged(hits: list[Hit]) -> list[str]:
    """Neighbouring ranges of one volume as one line."""
    lines: list[str] = []
    volumes: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        volumes.setdefault((hit.point, hit.volume), []).append(hit)
    for found in volumes.values():
        first = found[0]
        for extent in merge(sorted(Extent(hit.first_lba, hit.first_lba + hit.sector_count) for hit in found)):
            size = sum(hit.size for hit in found if extent.start <= hit.first_lba < extent.end)
            lines.append(
                f"{first.name} ({first.point[:12]}): {first.volume}, LBA {extent.start} to {extent.end - 1} "
                f"({format_size(size)})"
            )
    return lines
