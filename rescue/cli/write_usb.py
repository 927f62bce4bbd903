"""``liferaft write-usb``: an ISO onto a USB stick, alone or with a repository behind it."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from builder.stick.data import DataKind, NoMakerError
from builder.stick.layout import NotKeptError
from builder.stick.source import NoMediumError
from core.documents import encode
from core.errors import ExitCode, LiferaftError, RefusedError, UsageError
from core.process import SystemRunner
from core.units import format_duration, format_size
from images.store.access import Access
from rescue.cli.terminal import (
    access_options,
    json_option,
    new_passphrase,
    new_passphrase_option,
    open_sink,
    progress_option,
    tell,
)
from rescue.jobs.stick_repository import PlannedRepository, UnmountedError, plan_repository
from rescue.jobs.write_usb import (
    NOT_REMOVABLE,
    StickChoices,
    StickPlan,
    StickReport,
    describe,
    loses_data,
    plan_stick,
    write_planned,
)

#: The option that helps with an error. The job does not name it: the wizard has switches of its own, and not for all.
_HELPS: dict[type[LiferaftError], str] = {
    NoMediumError: "Another system's image is written with --any-iso.",
    NotKeptError: "--data makes a new partition for data.",
    NoMakerError: "--filesystem names another filesystem.",
    UnmountedError: "Or let --data --filesystem ext4 make one that every Linux mounts.",
}


@click.command("write-usb")
@click.argument("iso", type=click.Path(path_type=Path, readable=False))
@click.argument("device", type=click.Path(path_type=Path, readable=False))
@click.option("--data", is_flag=True, help="Make a partition for data behind the ISO, in all of the rest.")
@click.option(
    "--filesystem",
    type=click.Choice([kind.value for kind in DataKind]),
    default=None,
    help="Of the data partition: exfat is read everywhere, ext4 survives being pulled out best.  [default: exfat]",
)
@click.option("--keep-data", is_flag=True, help="Write another ISO and leave the stick's data partition as it is.")
@click.option(
    "--repository",
    "repository",
    metavar="REPO",
    default="",
    help="Copy all recovery points of REPO to the data partition; the wizard finds them there.",
)
@access_options
@click.option("--new-repository", is_flag=True, help="Make an empty repository on the data partition.")
@click.option("--encrypt", is_flag=True, help="Encrypt the stick's repository; the copy of an encrypted one always is.")
@new_passphrase_option
@click.option("--not-removable", is_flag=True, help="DEVICE is meant, though it does not say that it is removable.")
@click.option("--any-iso", is_flag=True, help="Write an image that is not liferaft's; it is not checked.")
@click.option("--yes", is_flag=True, help="Do not ask. What is on DEVICE is lost.")
@json_option
@progress_option
def command(
    iso: Path,
    device: Path,
    data: bool,
    filesystem: str | None,
    keep_data: bool,
    repository: str,
    access: Access,
    new_repository: bool,
    encrypt: bool,
    new_passphrase_file: Path | None,
    not_removable: bool,
    any_iso: bool,
    yes: bool,
    as_json: bool,
    progress: str,
) -> int:
    """Write a rescue medium to a USB stick, read it back and compare.

    DEVICE is a whole disk (liferaft probe lists them) or a file as large as a stick. A disk that is in use, that the
    system runs from, that is too small or not removable is refused. A stick that lies about its size is found out.
    The stick starts only when all of it is written and proven: one that was pulled out early starts nothing.

    \b
    liferaft write-usb rescue.iso /dev/sdX
    liferaft write-usb rescue.iso /dev/sdX --data --repository /srv/backup
    liferaft write-usb newer.iso /dev/sdX --keep-data
    """
    if filesystem is not None and not data:
        raise UsageError("--filesystem is for a new data partition.", hint="Add --data.")
    if data and keep_data:
        raise UsageError("--data makes a new partition and --keep-data leaves the old one alone.", hint="Take one.")
    if (repository or new_repository) and not (data or keep_data):
        raise UsageError("A repository needs a partition for data.", hint="Add --data, or --keep-data.")
    choices = StickChoices(
        data=data,
        filesystem=DataKind(filesystem or DataKind.EXFAT),
        keep_data=keep_data,
        not_removable=not_removable,
        any_iso=any_iso,
    )
    sink, runner = open_sink(progress), SystemRunner()
    planned = _repository(repository, access, new_repository, encrypt, new_passphrase_file)
    with _teaching():
        plan = plan_stick(iso, device, choices, runner, sink, repository=planned)
    tell(progress, describe(plan))
    if loses_data(plan):
        tell(progress, "--keep-data would leave its partition for data alone.")
    if not yes:
        _ask(plan)
    with _teaching():
        report = write_planned(plan, runner, sink)
    click.echo(encode(report) if as_json else _describe(report), nl=not as_json)
    return ExitCode.WARNINGS if report.warnings else ExitCode.DONE


@contextlib.contextmanager
def _teaching() -> Iterator[None]:
    """Name, with an error of the job, the option that helps."""
    try:
        yield
    except LiferaftError as error:
        error.hint = " ".join(filter(None, (error.hint, *_options_for(error))))
        raise


def _options_for(error: LiferaftError) -> Iterator[str]:
    yield from (words for kind, words in _HELPS.items() if isinstance(error, kind))
    if isinstance(error, RefusedError) and any(reason.endswith(NOT_REMOVABLE) for reason in error.reasons):
        yield "If it is the right one, say so with --not-removable."


def _repository(
    source: str, access: Access, new: bool, encrypt: bool, passphrase_file: Path | None
) -> PlannedRepository | None:
    if source and new:
        raise UsageError("--repository copies one, --new-repository makes an empty one.", hint="Take one of them.")
    if not (source or new):
        if encrypt or passphrase_file:
            raise UsageError("There is no repository to encrypt.", hint="Add --repository or --new-repository.")
        return None
    return plan_repository(source, access, new_passphrase(passphrase_file), encrypt=encrypt)


def _ask(plan: StickPlan) -> None:
    """The name of the stick, typed."""
    name = Path(plan.stick.node).name
    if not sys.stdin.isatty():
        raise RefusedError(
            f"Nobody can be asked whether {plan.stick.node} is the right one. Nothing was written.",
            hint="Add --yes when it is.",
        )
    if str(click.prompt(f"Type {name} to go on, anything else to stop", err=True)).strip() != name:
        raise click.Abort


def _describe(report: StickReport) -> str:
    rate = f" ({format_size(round(report.iso_size / report.write_seconds))}/s)" if report.write_seconds >= 1 else ""
    lines = [
        f"{report.node}: {format_size(report.written)} written{rate}, {format_size(report.verified)} read back and "
        f"compared, in {format_duration(report.seconds)}",
        f"  {report.medium}",
        f"  sha256 {report.sha256}",
    ]
    if report.data is not None:
        what = "kept" if report.data.kept else report.data.filesystem
        lines.append(f"  partition {report.data.number} for data: {format_size(report.data.size)}, {what}")
    if report.repository is not None:
        lines.append(f"  repository in {report.repository.folder}: {report.repository.points} recovery points")
    lines += [f"warning: {warning}" for warning in report.warnings]
    lines.append("It can be unplugged.")
    return "\n".join(lines)
