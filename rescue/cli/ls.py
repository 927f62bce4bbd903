"""``liferaft ls``: the files in a recovery point."""

import stat
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from core.documents import encode
from core.errors import ExitCode
from core.units import format_size
from images.browse.entry import Kind
from images.browse.tree import Found, Tree, shown
from images.store.access import Access
from rescue.cli.terminal import access_options, json_option, repository_option
from rescue.jobs.browse import Listing, OpenPoint, VolumeFacts, facts, open_point, parse_place, walk

_LETTERS = {
    Kind.FILE: "-",
    Kind.FOLDER: "d",
    Kind.LINK: "l",
    Kind.CHARACTER: "c",
    Kind.BLOCK: "b",
    Kind.FIFO: "p",
    Kind.SOCKET: "s",
}


@click.command("ls")
@click.argument("place", metavar="ID:[PATH]")
@repository_option
@access_options
@click.option("-l", "long", is_flag=True, help="Show mode, owner, size, time (UTC) and where links point.")
@click.option("-R", "deep", is_flag=True, help="Show everything below PATH, as paths.")
@json_option
def command(place: str, repository: str, access: Access, long: bool, deep: bool, as_json: bool) -> int:
    """List the files in a recovery point, without restoring it and without root.

    ID is the beginning of an id, a name, or "latest". PATH is

    \b
      (nothing)         the volumes, and where they were mounted
      /etc/fstab        as the machine saw it: its fstab says what was mounted where;
                        failing that, the only volume that has such a path
      disk0-part2/etc   exactly that volume

    Folders end in /. Reads ext2/3/4, XFS, btrfs, NTFS, FAT and exFAT. Windows' alternate streams
    are listed as FILE:STREAM with -l, -R and --json. What cannot be read is named on stderr; then
    the exit code is 5.

    \b
    liferaft ls latest: --repo R
    liferaft ls -l latest:/home --repo R
    liferaft ls -R 4f2a:disk0-part1 --repo http://server/backup
    """
    wanted = parse_place(place)
    point = open_point(repository, wanted.point, access)
    if not wanted.path:
        return _list_volumes(point, as_json)
    tree, found = point.find(wanted.path)
    for note in tree.notes:
        click.echo(f"note: {note}", err=True)
    left_out = point.left_out(wanted.path, tree, found) if deep else ""
    if left_out:
        click.echo(f"note: {left_out}", err=True)
    problems: list[str] = []
    if as_json:
        entries = tuple(facts(entry) for entry in _entries(tree, found, problems, deep))
        listing = Listing(id=point.id, volume=tree.source.volume.id, entries=entries, problems=tuple(problems))
        click.echo(encode(listing), nl=False)
    elif long or deep or found.entry.kind is not Kind.FOLDER:
        for entry in _entries(tree, found, problems, deep):
            whole = deep or entry is found
            name = shown(point.place(wanted.path, tree, entry.path) if whole else entry.path.rsplit("/", 1)[1])
            click.echo(_long_line(entry, name) if long else name + ("/" if entry.entry.kind is Kind.FOLDER else ""))
    else:
        for name, node, kind in tree.names(found):
            known = kind or tree.node(f"{found.path}/{name}", node).entry.kind
            click.echo(shown(name) + ("/" if known is Kind.FOLDER else ""))
    for problem in problems:
        click.echo(f"Damaged: {problem}", err=True)
    return ExitCode.DAMAGED if problems else ExitCode.DONE


def _entries(tree: Tree, found: Found, problems: list[str], deep: bool) -> Iterator[Found]:
    """What is listed for a path: the entry itself, or what is in it."""
    if found.entry.kind is Kind.FOLDER:
        yield from walk(tree, found, problems, deep=deep)
    else:
        yield found
        yield from tree.streams(found)


def _list_volumes(point: OpenPoint, as_json: bool) -> int:
    volumes = tuple(point.volumes())
    if as_json:
        click.echo(encode(Listing(id=point.id, volumes=volumes)), nl=False)
        return ExitCode.DONE
    click.echo(f"{point.manifest.name}  {point.id[:12]}, taken {point.manifest.created[:19].replace('T', ' ')} UTC")
    width = max([len("volume"), *(len(volume.id) for volume in volumes)])
    click.echo(f"{'volume':<{width}}  {'filesystem':<10}  {'size':>11}  {'in use':>11}  {'mounted on':<12}  label")
    for volume in volumes:
        click.echo(_volume_line(volume, width))
    for volume in volumes:
        if volume.problem:
            click.echo(f"note: {volume.problem}", err=True)
    return ExitCode.DONE


def _volume_line(volume: VolumeFacts, width: int) -> str:
    kind = volume.filesystem or "unknown"
    sizes = f"{format_size(volume.size):>11}  {format_size(volume.allocated):>11}"
    return f"{volume.id:<{width}}  {kind:<10}  {sizes}  {volume.mounted or '-':<12}  {shown(volume.label)}".rstrip()


def _long_line(found: Found, name: str) -> str:
    entry = found.entry
    mode = _LETTERS[entry.kind] + stat.filemode(entry.mode)[1:]
    size = f"{entry.major}, {entry.minor}" if entry.kind in (Kind.CHARACTER, Kind.BLOCK) else str(entry.size)
    try:
        time = datetime.fromtimestamp(entry.mtime // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        time = f"@{entry.mtime // 1_000_000_000}"
    end = f" -> {shown(entry.target)}" if entry.kind is Kind.LINK else "/" if entry.kind is Kind.FOLDER else ""
    return f"{mode} {entry.links:>3} {entry.uid:>6} {entry.gid:>6} {size:>13} {time} {name}{end}"
