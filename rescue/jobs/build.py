"""The build job: recipe file to medium. What every face that builds calls."""

from importlib.resources import as_file, files
from pathlib import Path, PurePath

import msgspec

from builder.architecture import Architecture
from builder.cache import default_cache
from builder.medium import BuildReport, build_iso
from builder.recipe.file import default_recipe, read_recipe
from builder.recipe.recipe import Recipe
from core.documents import decode_written, encode
from core.errors import UsageError
from core.events import Event, Sink, Stage, WarningsKept
from core.process import Runner
from rescue.jobs.access import read_passphrase
from rescue.jobs.machine_drivers import machine_drivers
from rescue.jobs.unattended import SECRETS, Job, trusted_keys


def build_medium(
    recipe_path: Path | None,
    out: Path | None,
    cache: Path | None,
    sink: Sink,
    runner: Runner,
    *,
    this_machine: bool = False,
    netboot: Path | None = None,
    offline: bool = False,
    architecture: Architecture | None = None,
) -> BuildReport:
    """Build the rescue medium.

    Args:
        recipe_path: a TOML file; the embedded recipe when None.
        out: the ISO to write; None when only the netboot set is wanted.
        netboot: the folder that becomes the netboot set, if any.
        cache: the build cache; the user's own when None.
        this_machine: add the firmware and the compiled drivers that the machine this runs on needs.
        architecture: in the place of the recipe's.
        offline: build from the packages that the mirror had the last time.

    Raises:
        UsageError: the recipe, its job, or ``out`` is wrong. Nothing was built.
        RefusedError: root or a tool is missing.
        LiferaftError: a tool failed.
    """
    sink = WarningsKept(sink)
    recipe = default_recipe() if recipe_path is None else read_recipe(recipe_path)
    if architecture is not None:
        recipe = msgspec.structs.replace(recipe, architecture=architecture)
    job = _check_job(recipe, recipe_path)
    secrets: dict[str, Path] = {}
    if job and recipe_path:
        for field in SECRETS:
            secrets |= passphrase_beside(field, getattr(job, field), recipe_path, sink)
    if job and secrets and netboot and not job.passphrase_over_http:
        raise UsageError(
            f"{recipe_path}: [job] names a passphrase beside the recipe, and a netboot set gives files to everybody "
            "who asks.",
            hint="Give an https:// address in the job, or allow it with passphrase_over_http = true.",
        )
    machines = machine_drivers(recipe, this_machine, runner, sink)
    with as_file(files("rescue.live")) as live:
        report = build_iso(
            recipe,
            out,
            cache or default_cache(),
            live,
            runner,
            sink,
            job_files=secrets,
            machines=machines,
            netboot=netboot,
            offline=offline,
        )
    return msgspec.structs.replace(report, warnings=sink.warnings)


def _check_job(recipe: Recipe, path: Path | None) -> Job | None:
    """A job that the medium would refuse on the day it is needed is refused now."""
    if recipe.job is None:
        return None
    job = decode_written(encode(recipe.job), Job, name=f"[job] of {path or 'the embedded recipe'}")
    trusted_keys(job)
    return job


def passphrase_beside(field: str, named: str, recipe: Path, sink: Sink) -> dict[str, Path]:
    """The file of a passphrase that the job's ``field`` names by a relative path, by its name: it lies beside the
    recipe, and on the medium it will lie beside the job."""
    if not named or "://" in named or Path(named).is_absolute():
        return {}
    if PurePath(named).name != named:
        raise UsageError(
            f"{recipe}: {field} is {named}: a file that goes onto the medium lies beside the recipe, without folders.",
            hint="A full path means a file of the rescue system.",
        )
    path = recipe.absolute().parent / named
    # What is not a passphrase now would not be one on the day it is needed.
    read_passphrase(path, lambda warning: None)
    warning = f"The medium will hold the passphrase in {path}: whoever has the medium can read the recovery points."
    sink(Event(stage=Stage.BUILD, message=warning, warning=True))
    return {named: path}
