"""What changes on a medium with one more layer: the order of layers, the menu, the digests and its document."""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from builder.document import MediumDocument, describe_files
from builder.layer import Layer
from builder.sums import SUMS, ranges_of_files, read_sums, sums_image
from core.errors import DamagedError
from core.units import MIB, align_up

_MENU, _ORDER = "boot/grub/grub.cfg", "live/filesystem.module"
_INITRD_LINE = re.compile(r"^(\s*initrd\s.*)$", re.MULTILINE)


def changed_menu(document: MediumDocument, files: Mapping[str, Path], layer: Layer, folder: Path) -> dict[str, Path]:
    """The order of the layers, and the menu where the initrd has one more part, with the layer in them."""
    folder.mkdir()
    order = folder / "filesystem.module"
    order.write_text(" ".join(f"{name}.squashfs" for name in (*document.layers, layer.name)) + "\n")
    changed = {_ORDER: order}
    if layer.initrd is not None:
        if _MENU not in files:
            raise DamagedError(f"The medium lacks {_MENU}, where its initrds are loaded.")
        part = f"live/{layer.name}.img"
        menu, count = _INITRD_LINE.subn(lambda line: _with_part(line[0], part), files[_MENU].read_text())
        if not count:
            raise DamagedError(f"{_MENU} of the medium has no line that loads an initrd.")
        changed[_MENU] = folder / "grub.cfg"
        changed[_MENU].write_text(menu)
    return changed


def _with_part(line: str, part: str) -> str:
    """The menu's line that loads the initrds, with one more: the digests stay last, and behind them what GRUB adds."""
    words = line.rstrip().split(" ")
    place = next((place for place, word in enumerate(words) if word == f"/{SUMS}" or word.startswith("$")), len(words))
    return " ".join((*words[:place], f"/{part}", *words[place:]))


def left_after(document: MediumDocument, without: frozenset[str]) -> MediumDocument:
    """The medium without the files that the new one does not have."""
    return msgspec.structs.replace(document, files=tuple(file for file in document.files if file.path not in without))


def sums_after(old: Path, changed: Mapping[str, Path], without: frozenset[str], target: Path) -> Path:
    """The digests that are compared at boot: those of files that stay, and of those that are new or changed."""
    gone = changed.keys() | without
    kept = [part for part in read_sums(old.read_bytes(), name=SUMS) if part.path not in gone]
    new = ranges_of_files(changed)
    target.write_bytes(sums_image(sorted((*kept, *new), key=lambda part: (part.path, part.offset))))
    return target


def describe(document: MediumDocument, changed: Mapping[str, Path], layer: Layer | None) -> MediumDocument:
    described = {file.path: file for file in document.files}
    described |= {file.path: file for file in describe_files(changed)}
    initrds, layers = document.initrds, document.layers
    if layer is not None:
        layers = (*layers, layer.name)
        kept = tuple(path for path in initrds if path != SUMS)
        initrds = (*kept, *(path for path in layer.files if path.endswith(".img")), *initrds[len(kept) :])
    return msgspec.structs.replace(
        document,
        layers=layers,
        initrds=initrds,
        ram_copied=align_up(document.ram + sum(file.size for file in described.values()), 64 * MIB),
        files=tuple(described[path] for path in sorted(described)),
    )
