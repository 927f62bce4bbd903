"""``liferaft build``: makes the rescue medium."""

import os
import sys
from pathlib import Path

import click

from builder.architecture import Architecture
from builder.medium import BuildReport
from builder.namespace import root_prefix
from core.documents import encode
from core.errors import ExitCode
from core.process import SystemRunner, become, tied_runner
from core.units import MIB, format_duration, format_size
from rescue.cli.terminal import json_option, open_sink, progress_option
from rescue.jobs.build import build_medium

#: Smaller files on the medium are not worth a line of the report.
_WORTH_A_LINE = MIB // 4


@click.command("build")
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    help="The ISO to write. The old file stays until the new one is whole.",
)
@click.option(
    "--netboot",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the same medium as a folder for TFTP and web servers: PXE, UEFI HTTP Boot, iPXE. Its README.txt says "
    "how it is served; its site/ folder is yours and stays when the set is written again.",
)
@click.option(
    "--architecture",
    type=click.Choice([one.value for one in Architecture]),
    help="The processor of the machines that the medium starts, in the place of the recipe's; amd64 without either.",
)
@click.option("--cache", type=click.Path(path_type=Path), help="The build cache; by default ~/.cache/liferaft.")
@click.option(
    "--this-machine",
    is_flag=True,
    help="Add what the machine this runs on needs: firmware that its devices ask for, and drivers that DKMS compiled.",
)
@click.option(
    "--offline",
    is_flag=True,
    help="Do not ask the Debian mirror for newer packages: build from what it had the last time.",
)
@json_option
@progress_option
def command(
    recipe: Path | None,
    out: Path | None,
    netboot: Path | None,
    architecture: str | None,
    cache: Path | None,
    this_machine: bool,
    offline: bool,
    as_json: bool,
    progress: str,
) -> int:
    """Build the rescue medium: one ISO for CD and USB stick, BIOS and UEFI (arm64: UEFI).

    RECIPE is a TOML file (docs/recipe.md) that says what the medium has beside what every one has: packages,
    drivers and firmware, network, SSH keys, time zone, keyboard, certificates, hooks, repositories, a restore job.
    Without one the embedded recipe is built. All that a recipe names is checked before anything long begins.

    What was built before is taken from the cache: a change of network, keys, menu or job takes seconds; one of
    packages, release or Wi-Fi, or an update of Debian's to a package on the medium, installs Debian anew, which takes
    two to three minutes and needs root, or a user who may make user namespaces (/etc/subuid). The same recipe and
    the same packages give the same ISO, bit for bit.

    \b
    Example, site.toml:       time_zone = "Europe/Berlin"
                              [ssh]
                              keys = ["id_ed25519.pub"]
                              [[repository]]
                              address = "https://backup.example/repo"
    """
    if out is None and netboot is None:
        raise click.UsageError("Say what to write: -o FILE.iso, --netboot DIR, or both.")
    _be_root_of_a_namespace()
    sink = open_sink(progress)
    report = build_medium(
        recipe,
        out,
        cache,
        sink,
        tied_runner(),
        this_machine=this_machine,
        netboot=netboot,
        offline=offline,
        architecture=Architecture(architecture) if architecture else None,
    )
    if as_json:
        click.echo(encode(report), nl=False)
    else:
        click.echo(_describe(report))
    return ExitCode.WARNINGS if report.warnings else ExitCode.DONE


def _be_root_of_a_namespace() -> None:
    """A user goes on as root of a user namespace where there are such; where not, what is in the cache can be built."""
    if os.geteuid() == 0:
        return
    words, reason = root_prefix(SystemRunner())
    if words:
        become([*words, sys.executable, *sys.argv])
    click.echo(f"Building without root: {reason}. What is not in the cache cannot be built.", err=True)


def _describe(report: BuildReport) -> str:
    lines = [f"{report.path}: {format_size(report.size)}, built in {format_duration(report.seconds)}"]
    if report.sha256:
        lines.append(f"  sha256 {report.sha256}")
    if report.netboot:
        lines.append(f"  the netboot set {report.netboot}; how it is served: {report.netboot}/README.txt")
    for component in report.components:
        if component.size >= _WORTH_A_LINE:
            reused = "  (from the cache)" if component.reused else ""
            lines.append(f"  {format_size(component.size):>12}  {component.name}{reused}")
    lines.append(f"  {report.packages} Debian packages; the list is on the medium, liferaft/packages.txt")
    lines.append(f"RAM needed: {format_size(report.ram)}; copied to RAM: {format_size(report.ram_copied)}")
    lines += [f"warning: {warning}" for warning in report.warnings]
    return "\n".join(lines)
