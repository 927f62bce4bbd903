"""Which Debian package holds a firmware file, as of the release the medium is made of.

From a list that comes with liferaft (builder/data/firmware-packages.txt), so that the answer needs no network. A file
that is newer than the list has none.
"""

import fnmatch
import functools
import re
from importlib.resources import files
from pathlib import PurePosixPath

_WILD = re.compile(r"[*?\[]")


def package_of(name: str) -> str:
    """The package with the firmware file ``name``, as a driver asks for it; empty when Debian has none.

    For a name with wildcards, the package of the first file that it means.
    """
    listed = _listed()
    if name in listed:
        return listed[name]
    folders = (f"{folder}/" for folder in PurePosixPath(name).parents)
    found = next((listed[folder] for folder in folders if folder in listed), "")
    if not found and _WILD.search(name):
        found = next((package for place, package in listed.items() if fnmatch.fnmatchcase(place, name)), "")
    return found


@functools.cache
def _listed() -> dict[str, str]:
    text = files("builder").joinpath("data/firmware-packages.txt").read_text()
    pairs = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
