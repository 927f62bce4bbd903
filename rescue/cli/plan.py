"""``liferaft plan``: what a restore would do, before anything is done."""

from pathlib import Path

import click
import msgspec

from core.documents import encode_readable
from core.errors import ExitCode, UsageError
from core.events import Event, Stage
from core.files import write_atomically
from core.process import SystemRunner
from images.model.machine import Machine
from images.store.access import Access
from rescue.cli.choosing import choice_options
from rescue.cli.targeting import ask_matching, target_options
from rescue.cli.terminal import access_options, json_option, open_sink, progress_option, tell
from rescue.jobs.restore import RestoreChoices, plan_restore
from rescue.jobs.restore_check import check_plan, read_machine, read_plan
from restore.plan.plan import Plan
from restore.plan.render import render

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("plan")
@click.argument("point", metavar="[ID]", required=False)
@click.option("--repo", "repository", default="", metavar="REPO", help="The repository. With --check: where it is now.")
@access_options
@target_options
@click.option(
    "--machine",
    "machine_file",
    metavar="FILE",
    type=_FILE,
    help="Plan for the machine of which `liferaft probe --json` wrote FILE, not for this one; needs no root.",
)
@click.option("--check", "checked", metavar="PLAN", type=_FILE, help="Say every reason against a saved, edited plan.")
@choice_options
@click.option("-o", "--output", type=_FILE, help="Save the plan for `restore`.")
@json_option
@progress_option
def command(
    point: str | None,
    repository: str,
    access: Access,
    targets: tuple[str, ...],
    skip: tuple[str, ...],
    match: bool,
    machine_file: Path | None,
    checked: Path | None,
    choices: RestoreChoices,
    output: Path | None,
    as_json: bool,
    progress: str,
) -> int:
    """Plan the restore of recovery point ID; writes nothing to any disk.

    ID is the beginning of an id, a name, or "latest". The plan says what will be destroyed, what the
    target will become and each step; its digest is what `liferaft restore --confirm` wants back.
    A saved plan may be edited (docs/plan.md); --check then says every reason against it.

    \b
    liferaft plan latest --repo /mnt/usb/backup --target /dev/sda -o plan.json
    liferaft plan latest --repo R --target disk0=/dev/sda --target disk1=/dev/sdb
    liferaft plan latest --repo R --machine web01.json --target S4EWNX0R123456
    liferaft plan --check plan.json
    """
    machine = _machine(machine_file)
    if checked is not None:
        if any((targets, skip, match, choices != RestoreChoices(), output)):
            raise UsageError(
                "--check stands alone: the plan says what goes where, and how.",
                hint="Leave out --target, -o and what else makes a plan.",
            )
        return _check(checked, point, repository, access, machine, as_json, progress)
    if not (point and repository and (targets or match)):
        raise UsageError("Nothing says what to restore where.", hint="Give ID --repo REPO --target TARGET, or --match.")
    choices = msgspec.structs.replace(choices, skip=skip, match=match)
    plan = plan_restore(
        repository,
        point,
        targets,
        choices,
        SystemRunner(),
        access,
        machine=machine,
        ask=ask_matching(),
        sink=open_sink(progress),
    )
    if output is not None:
        try:
            write_atomically(output, encode_readable(plan).encode())
        except OSError as error:
            raise UsageError(f"{output} cannot be written: {error.strerror}.", hint="Name another file.") from None
    if as_json:
        click.echo(encode_readable(plan), nl=False)
        return ExitCode.DONE
    click.echo(render(plan), nl=False)
    saved = f"--plan {output}" if output else "--plan FILE (save it with -o FILE)"
    tell(progress, f"\nNothing was written. To do it:\n  liferaft restore {saved} --confirm {plan.digest}")
    return ExitCode.DONE


def _check(
    path: Path,
    point: str | None,
    repository: str,
    access: Access,
    machine: Machine | None,
    as_json: bool,
    progress: str,
) -> int:
    if point:
        raise UsageError("--check stands alone: the plan says what goes where.", hint="Leave out ID.")
    plan, sink = load_plan(path), open_sink(progress)
    warnings = check_plan(plan, repository, SystemRunner(), access, machine=machine, sink=sink)
    if as_json:
        click.echo(encode_readable(plan), nl=False)
    else:
        click.echo(render(plan), nl=False)
    for warning in warnings:
        sink(Event(stage=Stage.PREFLIGHT, message=warning, warning=True))
    if not as_json:
        against = "It can be carried out, with warnings" if warnings else "Nothing speaks against it"
        tell(progress, f"\n{against}. To do it:\n  liferaft restore --plan {path} --confirm {plan.digest}")
    return ExitCode.WARNINGS if warnings else ExitCode.DONE


def load_plan(path: Path) -> Plan:
    """A saved plan. Raises UsageError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", hint="liferaft plan -o makes one.") from None
    return read_plan(content, str(path))


def _machine(path: Path | None) -> Machine | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", hint="liferaft probe --json makes one.") from None
    return read_machine(content, str(path))
