"""``liferaft inspect``: what a finished medium is, and whether it is whole."""

from pathlib import Path

import click

from builder.finished.inspection import BootProgram, Finding, Inspection
from core.documents import encode_readable
from core.errors import ExitCode
from core.units import format_size
from rescue.cli.terminal import json_option, open_sink, progress_option
from rescue.jobs.inspect import inspect_finished


@click.command("inspect")
@click.argument("medium", metavar="ISO", type=click.Path(path_type=Path))
@click.option(
    "--sbom", type=click.Path(path_type=Path), help="Write the bill of materials there (CycloneDX 1.5, JSON)."
)
@json_option
@progress_option
@click.pass_context
def command(context: click.Context, medium: Path, sbom: Path | None, as_json: bool, progress: str) -> None:
    """Say what the medium ISO is: what is in it, how old it is, who signed it, whether every byte is right.

    ISO is a file that `liferaft build` made, a stick that it was written to, or the folder of a netboot set. Needs no
    root and changes nothing. Every file is read and compared with its digest; what differs is named with its range.

    \b
    liferaft inspect rescue.iso                        before it goes into the drawer
    liferaft inspect /dev/sdX                          is the stick still good?
    liferaft inspect rescue.iso --sbom rescue.cdx.json the list for the security team

    Exit code 5 when anything is wrong with the medium.
    """
    found = inspect_finished(medium, sbom, open_sink(progress))
    click.echo(encode_readable(found) if as_json else _describe(found), nl=not as_json)
    if found.findings:
        context.exit(int(ExitCode.DAMAGED))


def _describe(found: Inspection) -> str:
    lines = [f"{found.name}: {format_size(found.size)}"]
    document = found.medium
    if document is not None:
        lines.append(f"  built {document.built:%Y-%m-%d %H:%M} UTC by {document.liferaft}: {_age(found)}")
        lines.append(f"  Debian {document.release} {document.architecture}, kernel {document.kernel}")
        lines.append(f"  layers: {', '.join(document.layers)}")
        lines.append(f"  RAM needed: {format_size(document.ram)}; copied to RAM: {format_size(document.ram_copied)}")
    lines.append(f"  {found.packages} Debian packages, {len(found.python) or 'unknown'} Python packages")
    if found.has_job:
        lines.append("  a restore job starts by itself (liferaft/job.json)")
    lines.append("size by component:")
    lines += [f"  {format_size(part.size):>12}  {part.name}" for part in found.parts]
    lines.append("Secure Boot, in the order in which it starts:")
    for program in found.secure_boot:
        lines += _describe_program(program)
    if found.findings:
        lines.append("WRONG:")
        lines += [f"  {_describe_finding(finding)}" for finding in found.findings]
    else:
        lines.append(f"whole: {format_size(found.checked)} compared with their digests")
    return "\n".join(lines)


def _age(found: Inspection) -> str:
    days = "1 day old" if found.age_days == 1 else f"{found.age_days} days old"
    if found.old:
        return f"{days}. That is OLD: security updates, drivers and newer boot loaders are missing; build it again"
    return days


def _describe_program(program: BootProgram) -> list[str]:
    lines = []
    for signer in program.signers or ():
        state = "" if signer.intact else "  BROKEN"
        until = f"{signer.valid_from:%Y-%m-%d} to {signer.valid_until:%Y-%m-%d}"
        lines.append(f"  {program.name:8} signed by {signer.name} ({until}), vouched for by {signer.authority}{state}")
    if not lines:
        lines.append(f"  {program.name:8} not signed")
    if program.sbat:
        levels = ", ".join(f"{name} {level}" for name, level in sorted(program.sbat.items()))
        lines.append(f"  {'':8} SBAT: {levels}")
    return lines


def _describe_finding(finding: Finding) -> str:
    where = f"{finding.path}: " if finding.path else ""
    place = f" (offset {finding.place} of the ISO)" if finding.place else ""
    return f"{where}{finding.problem}{place}"
