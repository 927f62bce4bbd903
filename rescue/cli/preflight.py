"""``liferaft preflight``: what a medium cannot drive on a machine, said before the disaster."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from builder.preflight.findings import MachinePreflight, PreflightReport, Severity
from builder.preflight.render import describe_machine, describe_medium
from core.documents import encode
from core.errors import ExitCode
from core.process import SystemRunner
from rescue.cli.terminal import json_option
from rescue.jobs.preflight import preflight

_VERDICTS = {None: "ready", Severity.NOTE: "ready", Severity.WARNING: "warnings", Severity.BLOCKS: "NOT READY"}
_WIDTH = 100


@click.command("preflight")
@click.argument("medium", type=click.Path(path_type=Path))
@click.option(
    "--machine",
    "machines",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A machine's document, or a folder of them; may be repeated. Without it: the machine this runs on.",
)
@click.option("-v", "--verbose", is_flag=True, help="Notes, too: what is good to know and needs nothing done.")
@json_option
def command(medium: Path, machines: tuple[Path, ...], verbose: bool, as_json: bool) -> int:
    """Say what the rescue medium MEDIUM (an ISO, or a netboot folder) cannot drive on a machine, and what mends it.

    \b
    On each machine:     liferaft probe --json > web1.json
    Where the media is:  liferaft preflight --machine web1.json rescue.iso
    For all of them:     liferaft preflight --machine inventory/ rescue.iso

    Looks for: devices without a driver, firmware files that drivers ask for, too little RAM, disks behind a RAID or VMD
    mode, and what Secure Boot would refuse (keys, revoked programs, SBAT). Nothing is started, and no machine is asked.

    Exit codes: 0 nothing is missing, 4 something may not work, 3 the medium cannot do its work on one of the machines.
    """
    report = preflight(medium, machines, SystemRunner())
    if as_json:
        click.echo(encode(report), nl=False)
    else:
        click.echo("\n".join(_describe(report, verbose)))
    match report.worst:
        case Severity.BLOCKS:
            return ExitCode.REFUSED
        case Severity.WARNING:
            return ExitCode.WARNINGS
    return ExitCode.DONE


def _describe(report: PreflightReport, verbose: bool) -> Iterator[str]:
    yield describe_medium(report)
    if len(report.machines) > 1:
        yield ""
        yield from _table(report)
    for machine in report.machines:
        yield ""
        yield from _details(machine, verbose)


def _table(report: PreflightReport) -> Iterator[str]:
    """One line for each machine."""
    rows = [("machine", "product", "drivers", "verdict")]
    for machine in report.machines:
        drivers = f"{machine.driven} of {machine.devices}"
        rows.append((machine.name, machine.product[:30] or "unknown", drivers, _VERDICTS[machine.worst]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()


def _details(machine: MachinePreflight, verbose: bool) -> Iterator[str]:
    yield f"{machine.name} ({machine.product or 'unknown machine'}): {_VERDICTS[machine.worst]}"
    for line in describe_machine(machine, notes=verbose):
        yield from _wrap(f"  {line}")


def _wrap(line: str) -> list[str]:
    margin = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, _WIDTH, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)
