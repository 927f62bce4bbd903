"""The build job: recipe file to medium. What every face that builds calls."""

from importlib.resources import as_file, files
from pathlib import Path

from builder.cache import default_cache
from builder.medium import BuildReport, build_iso
from builder.recipe import Recipe, default_recipe, read_recipe
from core.documents import decode_written, encode
from core.events import Sink
from core.process import Runner
from rescue.jobs.unattended import Job


def build_medium(recipe_path: Path | None, out: Path, cache: Path | None, sink: Sink, runner: Runner) -> BuildReport:
    """Build the rescue medium.

    Args:
        recipe_path: a TOML file; the embedded recipe when None.
        out: the ISO to write.
        cache: the build cache; the user's own when None.

    Raises:
        UsageError: the recipe, its job, or ``out`` is wrong. Nothing was built.
        RefusedError: root or a tool is missing.
        LiferaftError: a tool failed.
    """
    recipe = default_recipe() if recipe_path is None else read_recipe(recipe_path)
    _check_job(recipe, recipe_path)
    with as_file(files("rescue.live")) as live:
        return build_iso(recipe, out, cache or default_cache(), live, runner, sink)


def _check_job(recipe: Recipe, path: Path | None) -> None:
    """A job that the medium would refuse on the day it is needed is refused now."""
    if recipe.job is not None:
        decode_written(encode(recipe.job), Job, name=f"[job] of {path or 'the embedded recipe'}")
