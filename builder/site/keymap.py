"""The keyboard of the live system's consoles: a keymap for loadkeys, compiled from XKB's layouts.

Debian has no ready-made console keymaps that cover today's layouts; its installer compiles them with ``ckbcomp``
(package console-setup) from xkb-data. So does this, on the building machine, with the medium's versions of both.
"""

import difflib
import gzip
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from builder.archive.debian import Archive
from builder.cache import Cache, key_of
from core.errors import LiferaftError, UsageError
from core.events import Event, Sink, Stage
from core.process import Runner

_PACKAGES = ("console-setup", "xkb-data")
_NAME = re.compile(r"(?P<layout>[^()]+)(\((?P<variant>[^()]+)\))?")


def build_keymap(
    keymap: str,
    sources: Iterable[str],
    archive: Callable[[], Archive],
    cache: Cache,
    runner: Runner,
    sink: Sink,
) -> bytes:
    """The keymap ``layout`` or ``layout(variant)``, gzip-packed, as loadkeys reads it.

    Args:
        sources: lines of the sources.list that ``archive`` opens.

    Raises:
        UsageError: XKB has no such layout or variant; the nearest is named.
        UnreachableError: Debian's packages cannot be fetched.
    """
    found = _NAME.fullmatch(keymap)
    assert found is not None, "the recipe's check has seen to the form"
    layout, variant = found["layout"], found["variant"] or ""

    def make(folder: Path) -> None:
        sink(Event(stage=Stage.BUILD, message=f"Compiling the keymap {keymap}"))
        with cache.scratch("keymap") as scratch:
            archive().unpack(_PACKAGES, scratch)
            xkb = scratch / "usr/share/X11/xkb"
            _refuse_unknown(layout, variant, (xkb / "rules" / "evdev.lst").read_text())
            argv = ["perl", str(scratch / "usr/bin/ckbcomp"), f"-I{xkb}", "-model", "pc105", "-layout", layout]
            text = runner.run([*argv, *(("-variant", variant) if variant else ())], timeout=60).stdout
        if not text.startswith("keymaps "):
            raise LiferaftError(f"ckbcomp made no keymap of {keymap}: it printed {text[:80]!r}.")
        (folder / "keymap.kmap.gz").write_bytes(gzip.compress(text.encode(), mtime=0))

    folder, _ = cache.entry("keymap", key_of(("keymap 1", keymap, *sources)), make)
    return (folder / "keymap.kmap.gz").read_bytes()


def _refuse_unknown(layout: str, variant: str, listing: str) -> None:
    layouts, variants = _parse(listing)
    if layout not in layouts:
        near = difflib.get_close_matches(layout, sorted(layouts), n=1, cutoff=0.4)
        raise UsageError(
            f"keymap: there is no keyboard layout {layout!r}.",
            hint=f"Is {near[0]} meant? Nothing was built." if near else "Nothing was built.",
        )
    known = variants.get(layout, set())
    if variant and variant not in known:
        near = difflib.get_close_matches(variant, sorted(known), n=1, cutoff=0.3)
        raise UsageError(
            f"keymap: the layout {layout} has no variant {variant!r}.",
            hint=f"Is {layout}({near[0]}) meant? Nothing was built." if near else "Nothing was built.",
        )


def _parse(listing: str) -> tuple[set[str], dict[str, set[str]]]:
    """Layouts, and the variants of each, in XKB's ``evdev.lst`` (sections begin with ``!``)."""
    layouts: set[str] = set()
    variants: dict[str, set[str]] = {}
    section = ""
    for line in listing.splitlines():
        if line.startswith("!"):
            section = line[1:].strip()
            continue
        words = line.split()
        if section == "layout" and words:
            layouts.add(words[0])
        elif section == "variant" and len(words) > 1:
            variants.setdefault(words[1].rstrip(":"), set()).add(words[0])
    return layouts, variants
