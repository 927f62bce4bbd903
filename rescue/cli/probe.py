"""``liferaft probe``: what machine this is, and which disks may be targets."""

import click

from core.documents import encode_readable
from core.process import SystemRunner
from core.units import format_size
from images.probe import probe_machine
from rescue.cli.terminal import json_option


@click.command("probe")
@json_option
def command(as_json: bool) -> None:
    """Say what machine this is, and which of its disks may be a restore's target, or why not."""
    machine = probe_machine(SystemRunner())
    if as_json:
        click.echo(encode_readable(machine), nl=False)
        return
    click.echo(f"{machine.product or 'unknown machine'}, {machine.architecture}, {format_size(machine.ram)} of RAM")
    click.echo(f"started by {machine.firmware.upper()}, Secure Boot {machine.secure_boot}")
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
