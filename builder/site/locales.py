"""The locale of the live system's shells: Debian's compiled one, out of the package that has them all.

C.UTF-8 is in every medium. Messages stay English whatever the locale, because the medium carries no translations;
sorting, dates and numbers follow it.
"""

import difflib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from builder.archive.debian import Archive
from builder.cache import Cache, key_of
from core.errors import UsageError
from core.events import Event, Sink, Stage

DEFAULT = "C.UTF-8"
_HOME = "usr/lib/locale"


def build_locale(locale: str, sources: Iterable[str], archive: Callable[[], Archive], cache: Cache, sink: Sink) -> Path:
    """The folder of a locale, whose name is the one that it has in ``/usr/lib/locale``.

    Raises:
        UsageError: Debian has no such locale; the nearest is named.
        UnreachableError: Debian's packages cannot be fetched.
    """
    name = folder_name(locale)

    def make(folder: Path) -> None:
        sink(Event(stage=Stage.BUILD, message=f"Fetching the locale {locale}"))
        with cache.scratch("locale") as scratch:
            archive().unpack(("locales-all",), scratch)
            found = scratch / _HOME / name
            if not found.is_dir():
                near = difflib.get_close_matches(name, [path.name for path in (scratch / _HOME).iterdir()], n=1)
                raise UsageError(
                    f"locale: Debian has no locale {locale}.",
                    hint=f"Is {near[0].replace('utf8', 'UTF-8')} meant? Nothing was built." if near else "",
                )
            shutil.copytree(found, folder / name)

    folder, _ = cache.entry("locale", key_of(("locale 1", locale, *sources)), make)
    return folder / name


def folder_name(locale: str) -> str:
    """glibc's name of a UTF-8 locale's folder: ``de_DE.UTF-8`` and ``de_DE`` are ``de_DE.utf8``."""
    plain, at, modifier = locale.partition("@")
    return f"{plain.partition('.')[0]}.utf8{at}{modifier}"
