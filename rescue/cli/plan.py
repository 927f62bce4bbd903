"""``liferaft plan``: what a restore would do, before anything is done."""

from pathlib import Path

import click

from core.documents import encode_readable
from core.errors import UsageError
from core.files import write_atomically
from core.process import SystemRunner
from images.store.access import Access
from rescue.cli.terminal import access_options, json_option, repository_option
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore
from restore.render import render


@click.command("plan")
@click.argument("point", metavar="ID")
@repository_option
@access_options
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    metavar="TARGET",
    type=click.Path(path_type=Path),
    help="A disk or a raw image file that is there; once for each disk of the recovery point.",
)
@click.option("--grow", is_flag=True, help="Let the last ext filesystem take the space a larger disk has.")
@click.option("--no-verify", is_flag=True, help="Do not read back what was written.")
@click.option(
    "--boot",
    type=click.Choice([choice.value for choice in BootChoice]),
    default="auto",
    show_default=True,
    help="Repair the boot loader for this machine's firmware (auto: not for image files), a named one, or not.",
)
@click.option("--onto-source", is_flag=True, help="Allow the disk the recovery point was taken from as target.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Save the plan for `restore`.")
@json_option
def command(
    point: str,
    repository: str,
    access: Access,
    targets: tuple[Path, ...],
    grow: bool,
    no_verify: bool,
    boot: str,
    onto_source: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Plan the restore of recovery point ID; writes nothing to any disk.

    ID is the beginning of an id, a name, or "latest". The plan says what will be destroyed, what the
    target will become and each step; its digest is what `liferaft restore --confirm` wants back.

    \b
    liferaft plan latest --repo /mnt/usb/backup --target /dev/sda -o plan.json
    """
    choices = RestoreChoices(grow=grow, verify=not no_verify, boot=BootChoice(boot), onto_source=onto_source)
    plan = plan_restore(repository, point, targets, choices, SystemRunner(), access)
    if output is not None:
        try:
            write_atomically(output, encode_readable(plan).encode())
        except OSError as error:
            raise UsageError(f"{output} cannot be written: {error.strerror}.", hint="Name another file.") from None
    if as_json:
        click.echo(encode_readable(plan), nl=False)
        return
    click.echo(render(plan), nl=False)
    saved = f"--plan {output}" if output else "--plan FILE (save it with -o FILE)"
    click.echo(f"\nNothing was written. To do it:\n  liferaft restore {saved} --confirm {plan.digest}", err=True)
