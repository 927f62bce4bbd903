"""Firmware that a person names by file or folder, and folders of Windows drivers that the medium carries for later.

Firmware goes where the kernel looks for it; Windows drivers lie on the medium beside the live system, for the restored
Windows. Neither is looked into: only whether anything of the kind is there.
"""

import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path

from core.errors import UsageError

#: Where Windows drivers lie on the medium.
WINDOWS_DRIVERS = "liferaft/drivers"
_INSIDE = ("usr/lib/firmware", "lib/firmware", "firmware")


def firmware_files(paths: Iterable[Path]) -> dict[str, Path]:
    """Path below the kernel's firmware folder to the file, for files and folders laid out as below that folder.

    A folder that holds ``lib/firmware`` (an unpacked package) means what lies in there.

    Raises:
        UsageError: a path is missing, or a folder empty.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_file():
            found[path.name] = path
            continue
        if not path.is_dir():
            raise UsageError(
                f"The firmware {path} does not exist.", hint="Name a file, or a folder laid out as /lib/firmware."
            )
        top = next((path / name for name in _INSIDE if (path / name).is_dir()), path)
        inside = {str(file.relative_to(top)): file for file in sorted(top.rglob("*")) if file.is_file()}
        if not inside:
            raise UsageError(f"The firmware folder {path} has no files.")
        found |= inside
    return found


def asked_files(names: Iterable[str], offered: Mapping[str, Path]) -> dict[str, Path]:
    """Those of ``offered`` (path below the firmware folder to the file) that modules ask for by ``names``, which may
    hold wildcards."""
    asked = set(names)
    found = {name: offered[name] for name in sorted(asked & offered.keys())}
    for pattern in sorted(name for name in asked if any(letter in name for letter in "*?[")):
        found |= {name: path for name, path in offered.items() if fnmatch.fnmatchcase(name, pattern)}
    return found


def windows_driver_files(folders: Iterable[Path]) -> dict[str, Path]:
    """Path on the medium to the file, for folders of Windows drivers: each keeps its name and what is in it.

    Raises:
        UsageError: not a folder, without an ``.inf``, or two of one name.
    """
    found: dict[str, Path] = {}
    names: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(
                f"{folder} is not a folder of Windows drivers.",
                hint="Unpack the driver: the folder with its .inf file.",
            )
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        if not any(path.suffix.lower() == ".inf" for path in files):
            raise UsageError(
                f"The folder {folder} has no .inf among its {len(files)} files: Windows would find no driver in it.",
                hint="An installer (.exe) has to be unpacked first.",
            )
        name = folder.resolve().name
        if name in names:
            raise UsageError(f"{names[name]} and {folder} would both be {WINDOWS_DRIVERS}/{name}.", hint="Rename one.")
        names[name] = folder
        found |= {f"{WINDOWS_DRIVERS}/{name}/{path.relative_to(folder).as_posix()}": path for path in files}
    return found
