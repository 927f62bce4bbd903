"""Debian's packages as files: what installing a system takes is fetched once and kept between builds.

Each lies in the cache's folder ``debs`` under the SHA-256 that the archive's signed lists name, and is compared with it
whenever it is taken: apt itself takes any file of the right size that it finds. Nothing is installed here.
"""

import contextlib
import os
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from builder.archive.debian import PackageFile, open_archive
from builder.archive.origin import Origin
from builder.cache import Cache
from builder.digest import sha256_of
from builder.telling import tell
from core.errors import DamagedError
from core.events import Sink
from core.process import Runner
from core.units import format_size

#: Days that a file stays which no build took. A point release replaces most of them, and some builds are rare.
_DAYS = 30
_DAY = 24 * 3600


def stage_debs(wanted: Sequence[str], origin: Origin, folder: Path, cache: Cache, runner: Runner, sink: Sink) -> None:
    """Make ``folder`` with everything that apt would install for ``wanted``, under the names by which apt looks for it:
    kept files, and the others fetched. One build, or one part of a build, fetches at a time: what two need comes once.

    What a mirror in a folder (``file:``) has is not copied: apt installs it from there.

    Raises:
        UnreachableError: the mirror does not answer.
        DamagedError: what was fetched is not what the archive's lists name.
        StoppedError: the program was told to stop while another build fetched.
    """
    archive = open_archive(origin.sources, cache, runner, sink, state=origin.digests)
    files = archive.files(wanted)
    store = cache.folder("debs")
    folder.mkdir()
    missing = [file for file in files if not _take(store, file, folder, sink)]
    if missing:
        with cache.alone("debs"):
            # Who held it before may have fetched some of them.
            missing = [file for file in missing if not _take(store, file, folder, sink)]
            if missing:
                size = format_size(sum(file.size for file in missing))
                tell(sink, f"Fetching {len(missing)} of {len(files)} Debian packages ({size})")
                archive.download(missing, folder)
            for file in missing:
                _keep(store, file, folder)
    _forget(store)


def debs_word(folder: Path) -> str:
    """mmdebstrap's word for installing from the files in ``folder``; they are moved from there.

    It removes them with apt's own cache at its end, and fetches what is not among them.
    """
    place = '"$1/var/cache/apt/archives"'
    move = f"find {shlex.quote(str(folder))} -name '*.deb' -exec mv -t {place} {{}} +"
    return f"--setup-hook=mkdir -p {place}; {move}"


def _take(store: Path, file: PackageFile, folder: Path, sink: Sink) -> bool:
    """Copy a kept file to ``folder``; False when there is none, or another content in it."""
    kept, copy = store / file.sha256, folder / file.name
    try:
        # A copy: what is done to it does not reach the kept one, which another build may drop meanwhile.
        shutil.copyfile(kept, copy)
    except FileNotFoundError:
        return False
    if sha256_of(copy) == file.sha256:
        os.utime(kept)
        return True
    copy.unlink()
    kept.unlink(missing_ok=True)
    tell(sink, f"{kept} ({file.name}) has another SHA-256 than it had when it was kept: fetching it again")
    return False


def _keep(store: Path, file: PackageFile, folder: Path) -> None:
    """Keep a file that was fetched, whole or not at all.

    Raises:
        DamagedError: it is another one than the lists name.
    """
    path = folder / file.name
    if not path.is_file():
        raise DamagedError(f"{file.name}: expected apt to fetch {file.size} bytes, found no file.")
    if (found := sha256_of(path)) != file.sha256:
        raise DamagedError(
            f"{file.name}, which apt has fetched: expected the SHA-256 {file.sha256} of the archive's lists, "
            f"found {found}.",
            hint="Is the disk with the build cache sound?",
        )
    partial = path.with_name(f"{file.name}.partial")
    shutil.copyfile(path, partial)
    partial.replace(store / file.sha256)


def _forget(store: Path) -> None:
    oldest = time.time() - _DAYS * _DAY
    for path in store.iterdir():
        # Another build, or the other part of this one, may have dropped it by now.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()
