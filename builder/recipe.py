"""The recipe: what a person writes (TOML) to say which medium they want.

Facts only; nothing here builds. Fields that are not known are refused with the nearest name that is,
because a misspelt ``[job]`` must not become a medium that does nothing on the day it is needed.
"""

import difflib
import re
import tomllib
from enum import StrEnum
from importlib.resources import files
from pathlib import Path

import msgspec

from core.errors import UsageError

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+")
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PARAMETER = re.compile(r"[!-~]+")
#: Characters that GRUB's script language would not pass on as they are.
_GRUB_SPECIAL = frozenset("\"'\\$;&|<>{}")


class Release(StrEnum):
    """Debian releases that a medium can be made of."""

    TRIXIE = "trixie"


class Compression(StrEnum):
    """How hard the squashfs is packed: ``fast`` for trying out, ``small`` for the medium."""

    FAST = "fast"
    SMALL = "small"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes on the medium.

    Attributes:
        release: the Debian release it is made of.
        hostname: the live system's name.
        packages: Debian packages added to those that every medium has.
        kernel_parameters: words added to the kernel command line of every menu entry.
        compression: how hard the squashfs is packed.
        job: the restore job that starts by itself when the medium boots; written to the
            medium as ``/liferaft/job.json``. Its fields are the job document's, checked by whoever runs it.
    """

    release: Release = Release.TRIXIE
    hostname: str = "liferaft"
    packages: tuple[str, ...] = ()
    kernel_parameters: tuple[str, ...] = ()
    compression: Compression = Compression.SMALL
    job: dict[str, object] | None = None


def default_recipe() -> Recipe:
    """The recipe that is embedded in liferaft."""
    return parse_recipe(files("builder").joinpath("data/default.toml").read_text(), name="the embedded recipe")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        UsageError: it cannot be read, is not TOML, or has a field that is unknown or wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"The recipe {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"The recipe {path} is not text.", hint="A recipe is a TOML file in UTF-8.") from None
    return parse_recipe(text, name=str(path))


def parse_recipe(text: str, *, name: str) -> Recipe:
    """TOML text to a recipe; ``name`` is what an error calls it.

    Raises:
        UsageError: not TOML, or a field is unknown (the nearest known one is named) or wrong.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name} is not valid TOML: {error}.", hint="docs/recipe.md shows a whole recipe.") from None
    _refuse_unknown(content, name)
    try:
        recipe = msgspec.convert(content, Recipe)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name} is not a valid recipe: {error}.", hint="docs/recipe.md lists every field.") from None
    _check(recipe, name)
    return recipe


def _refuse_unknown(content: dict[str, object], name: str) -> None:
    known = Recipe.__struct_fields__
    for field in content:
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1, cutoff=0.5)
            raise UsageError(
                f"{name} has a field {field!r} that recipes do not have.",
                hint=f"Did you mean {near[0]!r}?" if near else f"The fields are: {', '.join(known)}.",
            )


def _check(recipe: Recipe, name: str) -> None:
    for package in recipe.packages:
        if _PACKAGE.fullmatch(package) is None:
            raise UsageError(f"{name}: {package!r} in packages is not the name of a Debian package.")
    if _HOSTNAME.fullmatch(recipe.hostname) is None:
        raise UsageError(
            f"{name}: {recipe.hostname!r} is not a host name.", hint="Use a to z, 0 to 9 and hyphens, at most 63."
        )
    for parameter in recipe.kernel_parameters:
        if _PARAMETER.fullmatch(parameter) is None or _GRUB_SPECIAL & set(parameter):
            raise UsageError(
                f"{name}: {parameter!r} in kernel_parameters is not one kernel parameter.",
                hint="Each parameter is one string without spaces, quotes, or any of \\ $ ; & | < > { }.",
            )
