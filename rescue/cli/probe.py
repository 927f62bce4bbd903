"""``liferaft probe``: what machine this is, and which disks may be targets."""

import click

from core.documents import encode_readable
from core.process import SystemRunner
from core.units import format_size
from images.model.machine import Machine
from images.probe import probe_machine
from images.probe_hardware import describe_hardware
from rescue.cli.terminal import json_option


@click.command("probe")
@json_option
def command(as_json: bool) -> None:
    """Say what machine this is, and which of its disks may be a restore's target, or why not.

    With --json the machine's document: what `liferaft preflight` and recipes take, with every device and its driver
    and what the firmware trusts under Secure Boot.
    """
    machine = describe_hardware(probe_machine(SystemRunner()))
    if as_json:
        click.echo(encode_readable(machine), nl=False)
        return
    click.echo(f"{machine.product or 'unknown machine'}, {machine.architecture}, {format_size(machine.ram)} of RAM")
    click.echo(f"started by {machine.firmware.upper()}, Secure Boot {machine.secure_boot}")
    _show_trust(machine)
    for nic in machine.nics:
        click.echo(f"network  {nic.name}  {nic.mac}  {nic.driver or 'no driver'}  {'up' if nic.up else 'down'}")
    if not machine.disks:
        click.echo("\nNo disks. Is the controller in RAID or VMD mode, or its driver missing?")
    for disk in machine.disks:
        names = " ".join(word for word in (disk.identity.model, disk.identity.transport) if word)
        serial = f"serial {disk.identity.serial}" if disk.identity.serial else "no serial number"
        click.echo(f"\n{disk.node}  {format_size(disk.size)}  {names}  {serial}")
        for line in disk.contents:
            click.echo(f"    {line}")
        if disk.obstacles:
            click.echo("  not a target:")
            for obstacle in disk.obstacles:
                click.echo(f"    {obstacle}")
        else:
            click.echo("  may be a target")


def _show_trust(machine: Machine) -> None:
    """What the firmware lets start, in one line; how long dbx is says how old it is."""
    if machine.trust is None:
        return
    keys = ", ".join(one.subject for one in machine.trust.allowed.certificates) or "no certificate"
    level = " ".join(machine.trust.sbat_level.split()) or "none"
    forbidden = len(machine.trust.forbidden.images) + len(machine.trust.forbidden.certificates)
    click.echo(f"the firmware trusts {keys}; it refuses {forbidden} programs and keys; SBAT level {level}")
