"""``liferaft inject``: adds drivers, firmware, files or a job to a medium that is built already."""

from pathlib import Path

import click

from builder.inject.inject import InjectReport
from core.documents import encode
from core.errors import ExitCode
from core.process import tied_runner
from core.units import format_duration, format_size
from rescue.cli.terminal import json_option, open_sink, progress_option
from rescue.jobs.inject import inject_medium

_FILE = click.Path(path_type=Path)


@click.command("inject")
@click.argument("medium", type=_FILE)
@click.option("-o", "--output", "out", type=_FILE, help="The new ISO. MEDIUM itself stays as it is.")
@click.option("--netboot", type=_FILE, metavar="FOLDER", help="The new netboot set, with -o or instead of it.")
@click.option(
    "--driver",
    "drivers",
    multiple=True,
    type=_FILE,
    metavar="PATH",
    help="A kernel module (.ko, .ko.xz, .ko.zst), a folder of them, or a .deb with them, for the medium's kernel. "
    "Drivers of disk, network and USB controllers go into the initrd too. Repeatable.",
)
@click.option(
    "--firmware",
    multiple=True,
    type=_FILE,
    metavar="PATH",
    help="A firmware file, or a folder laid out as /lib/firmware. Repeatable.",
)
@click.option(
    "--windows-driver",
    "windows",
    multiple=True,
    type=_FILE,
    metavar="FOLDER",
    help="A folder with an .inf, carried in liferaft/drivers for a restored Windows. Repeatable.",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="SRC:DEST",
    help="A file or folder of this machine, and its absolute path in the live system. Repeatable.",
)
@click.option(
    "--job", type=_FILE, help="A job (docs/job.md) that starts by itself when the medium boots; replaces the old one."
)
@click.option("--cache", type=_FILE, help="Where the work is done; by default ~/.cache/liferaft.")
@json_option
@progress_option
def command(
    medium: Path,
    out: Path | None,
    netboot: Path | None,
    drivers: tuple[Path, ...],
    firmware: tuple[Path, ...],
    windows: tuple[Path, ...],
    files: tuple[str, ...],
    job: Path | None,
    cache: Path | None,
    as_json: bool,
    progress: str,
) -> int:
    """Make a new medium from MEDIUM with drivers, firmware, files or a job added: in seconds, without root.

    MEDIUM is an ISO or the folder of a netboot set (liferaft build --netboot).

    \b
    What was built stays as it is; what is added lies in one more layer above it. So it can be done again:
        liferaft inject rescue.iso -o new.iso --driver ./megaraid_sas.ko
        liferaft inject new.iso -o newer.iso --job restore-office.json

    A driver is checked before anything is written: it must be built for exactly the medium's kernel
    (liferaft inspect ISO says which). A driver that has to be compiled goes into a recipe ([kernel] dkms).
    """
    report = inject_medium(
        medium,
        out,
        cache,
        open_sink(progress),
        tied_runner(),
        netboot=netboot,
        drivers=drivers,
        firmware=firmware,
        windows=windows,
        files=files,
        job=job,
    )
    if as_json:
        click.echo(encode(report), nl=False)
    else:
        click.echo(_describe(report))
    return ExitCode.WARNINGS if report.warnings else ExitCode.DONE


def _describe(report: InjectReport) -> str:
    lines = [f"Written in {format_duration(report.seconds)}"]
    if report.path:
        lines += [f"  {report.path}: {format_size(report.size)}", f"  sha256 {report.sha256}"]
    if report.netboot:
        lines.append(f"  {report.netboot}: the netboot set")
    lines += [f"  added {path}" for path in report.added]
    if report.early:
        lines.append(f"  {len(report.early)} files of it are in the initrd too: the medium is found through them")
    lines += [f"warning: {warning}" for warning in report.warnings]
    return "\n".join(lines)
