"""What a recipe's values must be: everything that can be said against them without opening a file.

Names and addresses are looked at before anything long begins; whether a package, a keymap or a locale is there is asked
of Debian's archive (``debian``), and files that a recipe names are opened by ``site``.
"""

import datetime
import difflib
import re
import urllib.parse
import zoneinfo
from collections.abc import Iterable
from pathlib import PurePath

from builder.recipe.network import check_network
from builder.recipe.recipe import Menu, OfferedRepository, Recipe
from core.errors import UsageError
from images.store.connect import BACKENDS

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+")
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PARAMETER = re.compile(r"[!-~]+")
#: Characters that GRUB's script language would not pass on as they are.
_GRUB_SPECIAL = frozenset("\"'\\$;&|<>{}")
_SNAPSHOT = re.compile(r"\d{8}T\d{6}Z")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")
_KEYMAP = re.compile(r"[a-z][a-z0-9_-]{0,30}(\([A-Za-z0-9_-]{1,60}\))?")
_LOCALE = re.compile(r"C\.UTF-8|[a-z]{2,3}_[A-Z]{2}(\.UTF-8)?(@[a-z]+)?")
#: GRUB's own names (its manual, "color_normal"); the last eight are no backgrounds in text mode.
_DARK = ("black", "blue", "green", "cyan", "red", "magenta", "brown", "light-gray")
_BRIGHT = ("dark-gray", "light-blue", "light-green", "light-cyan", "light-red", "light-magenta", "yellow", "white")
#: Fields of a job that may be addresses.
JOB_ADDRESSES = ("repository", "report_url", "passphrase_file", "luks_passphrase_file")
_MENU_WIDTH = 70
_MENU_LINES = 6
_MENU_SECONDS = range(3601)


def check_recipe(recipe: Recipe, name: str) -> None:
    """Refuse what cannot be; ``name`` is what an error calls the recipe.

    Raises:
        UsageError: naming the field and what is wrong with it.
    """
    lists = {
        "packages": recipe.packages,
        "kernel.dkms": recipe.kernel.dkms,
        "firmware.packages": recipe.firmware.packages,
    }
    for field, packages in lists.items():
        _check_packages(packages, field, name)
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
    _check_archive(recipe, name)
    _check_place(recipe, name)
    _check_menu(recipe.menu, name)
    for number, repository in enumerate(recipe.repositories):
        _check_repository(repository, f"{name}: repository[{number}]")
    check_network(recipe.network, name)
    _check_paths(recipe, name)
    _check_secrets(recipe, name)


def _check_packages(packages: Iterable[str], field: str, name: str) -> None:
    for package in packages:
        if _PACKAGE.fullmatch(package) is None:
            raise UsageError(f"{name}: {package!r} in {field} is not the name of a Debian package.")


def _check_archive(recipe: Recipe, name: str) -> None:
    if recipe.snapshot:
        try:
            if _SNAPSHOT.fullmatch(recipe.snapshot) is None:
                raise ValueError
            datetime.datetime.strptime(recipe.snapshot, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
        except ValueError:
            raise UsageError(
                f"{name}: snapshot is {recipe.snapshot!r}, which is not a time as snapshot.debian.org writes it.",
                hint="Write it in UTC, like 20261101T000000Z.",
            ) from None
    if recipe.mirror:
        parts = _split(recipe.mirror, f"{name}: mirror")
        if parts.scheme not in ("http", "https", "file") or (parts.scheme != "file" and not parts.hostname):
            raise UsageError(
                f"{name}: mirror is not the address of a Debian archive.",
                hint="For example http://deb.debian.org/debian",
            )


def _check_place(recipe: Recipe, name: str) -> None:
    zones = zoneinfo.available_timezones()
    # A builder without the database asks the medium's own later (site).
    if _ZONE.fullmatch(recipe.time_zone) is None or (zones and recipe.time_zone not in zones):
        near = difflib.get_close_matches(recipe.time_zone, sorted(zones), n=1)
        raise UsageError(
            f"{name}: time_zone is {recipe.time_zone!r}, which is no time zone.",
            hint=f"Is {near[0]} meant?"
            if near
            else "Write it like Europe/Berlin; `timedatectl list-timezones` has all.",
        )
    if recipe.keymap and _KEYMAP.fullmatch(recipe.keymap) is None:
        raise UsageError(
            f"{name}: keymap is {recipe.keymap!r}; expected a layout, or layout(variant).",
            hint="For example de, or de(nodeadkeys); `man xkeyboard-config` has all.",
        )
    if _LOCALE.fullmatch(recipe.locale) is None:
        raise UsageError(
            f"{name}: locale is {recipe.locale!r}; expected a UTF-8 locale.", hint="For example de_DE.UTF-8."
        )


def _check_menu(menu: Menu, name: str) -> None:
    lines = [("title", menu.title), *(("text", line) for line in menu.text)]
    for field, line in lines:
        if not 1 <= len(line) <= _MENU_WIDTH or not line.isascii() or not line.isprintable() or "'" in line:
            raise UsageError(
                f"{name}: menu.{field} has {line[:_MENU_WIDTH]!r}, which the boot menu cannot show.",
                hint=f"At most {_MENU_WIDTH} ASCII characters in a line, and no apostrophe.",
            )
    if len(menu.text) > _MENU_LINES:
        raise UsageError(f"{name}: menu.text has {len(menu.text)} lines; there is room for {_MENU_LINES}.")
    for field, colors in (("color", menu.color), ("highlight", menu.highlight)):
        letters, slash, background = colors.partition("/")
        if not slash or letters not in _DARK + _BRIGHT or background not in _DARK:
            raise UsageError(
                f"{name}: menu.{field} is {colors!r}; expected letters/background by GRUB's names.",
                hint=f"Backgrounds: {', '.join(_DARK)}; letters also: {', '.join(_BRIGHT)}.",
            )
    if menu.timeout not in _MENU_SECONDS:
        raise UsageError(f"{name}: menu.timeout is {menu.timeout}; expected 0 to {_MENU_SECONDS.stop - 1} seconds.")


def _check_repository(repository: OfferedRepository, place: str) -> None:
    address = repository.address
    scheme, colon, rest = address.partition(":")
    known = scheme in BACKENDS and rest.startswith("//") and _split(address, f"{place}.address").netloc
    if not (address.startswith("/") or (colon and scheme == "file" and "/" in rest) or known):
        shown = repr(address) if "@" not in address else "an address"
        raise UsageError(
            f"{place}.address is {shown}, which is not a repository's.",
            hint="Give file:/folder, http(s)://server/folder or s3://bucket/folder.",
        )
    for text in (address, repository.name):
        if len(text) > 500 or not text.isprintable():
            raise UsageError(f"{place} has a text that is too long (500 characters) or cannot be shown.")


def _check_paths(recipe: Recipe, name: str) -> None:
    lists = {
        "kernel.modules": recipe.kernel.modules,
        "firmware.files": recipe.firmware.files,
        "firmware.machines": recipe.firmware.machines,
        "windows.drivers": recipe.windows.drivers,
        "ca_certificates": recipe.ca_certificates,
        "ssh.keys": recipe.ssh.keys,
    }
    for field, paths in lists.items():
        for path in paths:
            if not path.strip() or "\0" in path:
                raise UsageError(f"{name}: {field} has an empty name.")
        if len(set(paths)) != len(paths):
            twice = next(path for path in paths if paths.count(path) > 1)
            raise UsageError(f"{name}: {field} names {PurePath(twice).name[:80]} twice.")


def _check_secrets(recipe: Recipe, name: str) -> None:
    """What a thief of the medium could use stays off it, unless the recipe says so in a field of its own."""
    secrets = secrets_of(recipe)
    if secrets and not recipe.carry_secrets:
        raise UsageError(
            f"{name}: {secrets[0]} holds a secret, and whoever has the medium could read it.",
            hint="Leave it out and type it at the machine, or say carry_secrets = true and lock the medium away.",
        )


def secrets_of(recipe: Recipe) -> tuple[str, ...]:
    """The fields that hold a password, a token or a passphrase and go on the medium.

    The mirror's address does not: its user is taken out of all that is made from it (``mirror.without_user``)."""
    job = recipe.job or {}
    addresses = [(f"repository[{n}].address", one.address) for n, one in enumerate(recipe.repositories)]
    addresses += [(f"job.{field}", str(job.get(field, ""))) for field in JOB_ADDRESSES]
    secrets = [place for place, address in addresses if holds_secret(address, place)]
    secrets += [f"network.wifi[{n}].passphrase" for n, wifi in enumerate(recipe.network.wifi) if wifi.passphrase]
    return tuple(secrets)


def holds_secret(address: str, place: str) -> bool:
    """Whether something stands before the host of an address: a user and a password, or a token.

    Raises:
        UsageError: it cannot be read as an address; ``place`` is what the error calls it.
    """
    return "://" in address and bool(_split(address, place).username or _split(address, place).password)


def _split(address: str, place: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(address)
    except ValueError as error:
        raise UsageError(f"{place} is not an address: {error}.") from None
