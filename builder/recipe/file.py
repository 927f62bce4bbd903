"""Reading a recipe: TOML text to the frozen facts.

No file that a recipe names is opened here. Fields that are not known are refused with the nearest name that is, because
a misspelt ``[job]`` must not become a medium that does nothing on the day it is needed.
"""

import tomllib
from importlib.resources import files
from pathlib import Path

import msgspec

from builder.recipe.check import check_recipe
from builder.recipe.recipe import Recipe
from builder.site.ssh_key import is_key
from core.errors import UsageError
from core.fields import allowed_values, nearest_field, unknown_fields
from core.files import read_small
from core.units import MIB

_HINT = "docs/recipe.md lists every field."
#: A recipe is a page that a person wrote; more than this is another file.
_LIMIT = MIB


def default_recipe() -> Recipe:
    """The recipe that is embedded in liferaft."""
    return parse_recipe(files("builder").joinpath("data/default.toml").read_text(), name="the embedded recipe")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file; the paths in it begin at its folder and come out absolute.

    Raises:
        UsageError: it cannot be read, is not TOML, or has a field that is unknown or wrong.
    """
    try:
        text = read_small(path, f"The recipe {path}", _LIMIT, hint="A recipe is a TOML file.").decode()
    except UnicodeDecodeError:
        raise UsageError(f"The recipe {path} is not text.", hint="A recipe is a TOML file in UTF-8.") from None
    return _rooted(parse_recipe(text, name=str(path)), path.absolute().parent)


def parse_recipe(text: str, *, name: str) -> Recipe:
    """TOML text to a recipe; ``name`` is what an error calls it. Paths in it stay as they are written.

    Raises:
        UsageError: not TOML, or a field is unknown (the nearest known one is named) or wrong.
    """
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{name} is not valid TOML: {error}.", hint="docs/recipe.md shows a whole recipe.") from None
    _refuse_unknown(content, name)
    try:
        recipe = msgspec.convert(content, Recipe)
    except msgspec.ValidationError as error:
        allowed = allowed_values(str(error), Recipe)
        hint = f"It may be {', '.join(allowed)}. {_HINT}" if allowed else _HINT
        raise UsageError(f"{name} is not a valid recipe: {error}.", hint=hint) from None
    check_recipe(recipe, name)
    return recipe


def _refuse_unknown(content: dict[str, object], name: str) -> None:
    for field, place in unknown_fields(content, Recipe):
        near = nearest_field(field, Recipe)
        where = f" in {place.removeprefix('$.')}" if place != "$" else ""
        raise UsageError(
            f"{name} has a field {field!r}{where} that recipes do not have.",
            hint=f"Is {near!r} meant? Nothing was done." if near else f"{_HINT} Nothing was done.",
        )


def _rooted(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every path that it names below ``folder``, where it is relative."""

    def rooted(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(folder / Path(path).expanduser()) for path in paths)

    kernel = msgspec.structs.replace(recipe.kernel, modules=rooted(recipe.kernel.modules))
    firmware = msgspec.structs.replace(
        recipe.firmware, files=rooted(recipe.firmware.files), machines=rooted(recipe.firmware.machines)
    )
    windows = msgspec.structs.replace(recipe.windows, drivers=rooted(recipe.windows.drivers))
    keys = tuple(key if is_key(key) else str(folder / Path(key).expanduser()) for key in recipe.ssh.keys)
    return msgspec.structs.replace(
        recipe,
        kernel=kernel,
        firmware=firmware,
        windows=windows,
        ssh=msgspec.structs.replace(recipe.ssh, keys=keys),
        ca_certificates=rooted(recipe.ca_certificates),
        hooks=rooted((recipe.hooks,))[0] if recipe.hooks else "",
    )
