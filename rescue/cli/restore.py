"""``liferaft restore``: carry out a confirmed plan, or plan and do it in one go for scripts."""

from pathlib import Path

import click
import msgspec

from builder.site.document import site_hooks
from core.documents import encode
from core.errors import ExitCode, UsageError
from core.process import SystemRunner
from images.stack.keys import Keys
from images.store.access import Access
from rescue.cli.choosing import choice_options
from rescue.cli.luks_options import luks_options
from rescue.cli.plan import load_plan
from rescue.cli.targeting import ask_matching, target_options
from rescue.cli.terminal import (
    access_options,
    hooks_option,
    json_option,
    open_sink,
    progress_option,
    tell,
)
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from restore.plan.plan import Plan
from restore.plan.render import render
from restore.report import render_report


@click.command("restore")
@click.argument("point", metavar="[ID]", required=False)
@click.option(
    "--plan", "plan_file", metavar="FILE", type=click.Path(path_type=Path), help="A plan saved by `liferaft plan -o`."
)
@click.option("--confirm", default="", metavar="DIGEST", help="The digest the plan shows.")
@click.option("--repo", "repository", default="", metavar="REPO", help="With ID; with --plan: where it is now.")
@access_options
@target_options
@click.option("--yes", is_flag=True, help="With ID: do not ask. Everything on TARGET is lost.")
@choice_options
@click.option("--no-discard", is_flag=True, help="Do not tell the target which ranges nobody needs.")
@click.option(
    "--journal",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What is done is remembered there, so that a second run goes on.  [default: in the state folder]",
)
@click.option(
    "--scratch",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where filesystems are made smaller, when they must be.  [default: TMPDIR, or /tmp]",
)
@luks_options
@hooks_option
@json_option
@progress_option
def command(
    point: str | None,
    plan_file: Path | None,
    confirm: str,
    repository: str,
    access: Access,
    targets: tuple[str, ...],
    skip: tuple[str, ...],
    match: bool,
    yes: bool,
    choices: RestoreChoices,
    no_discard: bool,
    journal: Path | None,
    scratch: Path | None,
    keys: Keys,
    hooks: Path | None,
    as_json: bool,
    progress: str,
) -> int:
    """Restore a recovery point to disks or image files.

    ID is the beginning of an id, a name, or "latest". In two steps, with a look at the plan between
    them (this is the safe way), or in one for scripts.
    A restore that was stopped goes on when the same command is run again.

    \b
    liferaft plan latest --repo R --target /dev/sda -o plan.json
    liferaft restore --plan plan.json --confirm 0123456789abcdef
    liferaft restore latest --repo R --target /dev/sda --yes
    """
    runner, sink = SystemRunner(), open_sink(progress)
    if plan_file is not None:
        if any((point, targets, skip, match, yes, choices != RestoreChoices())):
            raise UsageError(
                "--plan stands alone: the plan says what goes where, and how.",
                hint="Leave out ID, --target and the options of `plan`.",
            )
        if not confirm:
            raise UsageError("A plan is carried out only when its digest is given back.", hint="Add --confirm DIGEST.")
        plan = load_plan(plan_file)
    else:
        if not (point and repository and (targets or match)):
            raise UsageError(
                "Nothing says what to restore where.",
                hint="Give --plan FILE --confirm DIGEST, or ID --repo REPO --target TARGET --yes.",
            )
        choices = msgspec.structs.replace(choices, skip=skip, match=match, estimate=not yes)
        # Whoever says --yes is not there to be asked.
        ask = None if yes else ask_matching()
        plan = plan_restore(repository, point, targets, choices, runner, access, ask=ask, sink=sink)
        tell(progress, render(plan))
        confirm = confirm or (plan.digest if yes else _ask(plan))
    report = run_plan(
        plan,
        confirm,
        runner,
        sink,
        repository=repository,
        hooks=hooks or site_hooks(),
        access=access,
        keys=keys,
        journal=journal,
        discard=not no_discard,
        scratch=scratch,
    )
    click.echo(encode(report) if as_json else render_report(report), nl=False)
    return ExitCode.WARNINGS if report.warnings else ExitCode.DONE


def _ask(plan: Plan) -> str:
    """The digest as the person types it."""
    answer = click.prompt(f"Type the digest {plan.digest} to go on, anything else to stop", err=True)
    return str(answer).strip()
