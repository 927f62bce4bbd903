"""Write builder/data/firmware-packages.txt: which Debian package holds which firmware.

``python .ci/firmware_packages.py Contents-all.gz Contents-amd64.gz …`` with the files of a release's ``main`` and
``non-free-firmware`` (dists/trixie/COMPONENT/Contents-ARCH.gz). To be run when the release changes.
"""

import gzip
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

TARGET = Path(__file__).parents[1] / "builder/data/firmware-packages.txt"
_LINE = re.compile(r"(?:usr/)?lib/firmware/(\S+)\s+(\S+)$")
_HEAD = """\
# Which Debian package holds a firmware file: a file, or a folder that ends in / and belongs to one package as a whole.
# Made by .ci/firmware_packages.py from the Contents of Debian 13, main and non-free-firmware. Of several packages the
# one with the shortest name.
"""


def held(indexes: Iterable[Path]) -> dict[str, str]:
    """Firmware file to package."""
    found: dict[str, str] = {}
    for index in indexes:
        with gzip.open(index, "rt") as lines:
            for line in lines:
                if (match := _LINE.match(line.rstrip())) is not None:
                    names = [name.rsplit("/", 1)[-1] for name in match[2].split(",")]
                    names += [found[match[1]]] if match[1] in found else []
                    found[match[1]] = min(names, key=lambda name: (len(name), name))
    return found


def rules(files: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The shortest list that says the same: a folder where all of it is in one package."""
    folders: dict[str, set[str]] = {}
    for path, package in files.items():
        for folder in _folders(path):
            folders.setdefault(folder, set()).add(package)
    said: set[str] = set()
    for path, package in sorted(files.items()):
        place = next((folder for folder in _folders(path) if len(folders[folder]) == 1), path)
        if place not in said:
            said.add(place)
            yield place, package


def _folders(path: str) -> list[str]:
    """Those that the file is in, outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: end + 1]) + "/" for end in range(len(parts))]


if __name__ == "__main__":
    listed = rules(held(Path(word) for word in sys.argv[1:]))
    TARGET.write_text(_HEAD + "".join(f"{place} {package}\n" for place, package in listed))
