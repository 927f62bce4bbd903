"""What a medium is built from: an archive in a certain state, which packages that means, and the time it belongs to."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from builder.architecture import Architecture
from builder.archive.debian import open_archive
from builder.archive.mirror import Mirror, PackageSource, find_mirror, published, read_state
from builder.cache import Cache, key_of
from builder.recipe.recipe import KernelFlavour, Recipe
from core.events import Sink
from core.process import Result, Runner


class Origin(msgspec.Struct, frozen=True):
    """An archive in a state. ``state`` begins with the release itself."""

    mirror: Mirror
    release: str
    state: tuple[PackageSource, ...]

    @property
    def epoch(self) -> int:
        """Seconds since 1970 to which younger files are set back: when the release was published, because that stays
        when only a security update arrives that the medium does not have."""
        return int(self.state[0].published.timestamp())

    @property
    def published(self) -> datetime.datetime:
        """When the newest of its lists was published."""
        return published(self.state)

    @property
    def architecture(self) -> Architecture:
        """Whose packages are taken."""
        return self.mirror.architecture

    @property
    def sources(self) -> tuple[str, ...]:
        """Lines of a sources.list."""
        return self.mirror.sources(self.release)

    @property
    def digests(self) -> tuple[str, ...]:
        """What names the state: of each list, its digest."""
        return tuple(source.sha256 for source in self.state)

    def packages(self, wanted: Sequence[str], cache: Cache, runner: Runner, sink: Sink) -> tuple[str, ...]:
        """What apt would install for ``wanted`` and everything essential, as ``NAME VERSION``, sorted.

        A build is made again when this changes, not whenever the archive does.
        """
        digests = [source.sha256 for source in self.state]
        key = key_of(("resolved 1", *self.sources, *digests, *wanted))

        def make(folder: Path) -> None:
            archive = open_archive(self.sources, cache, runner, sink, state=tuple(digests))
            (folder / "packages.txt").write_text("\n".join(archive.resolve(wanted)))

        folder, _ = cache.entry("resolved", key, make)
        return tuple((folder / "packages.txt").read_text().splitlines())


def find_origin(recipe: Recipe, cache: Cache, runner: Runner, sink: Sink, *, offline: bool = False) -> Origin:
    """What ``recipe`` is built from, now.

    Raises:
        UnreachableError: the archive does not answer and never did.
    """
    mirror = find_mirror(runner, recipe.mirror, recipe.snapshot)
    mirror = msgspec.structs.replace(mirror, architecture=recipe.architecture)
    if recipe.kernel.flavour is KernelFlavour.BACKPORTS:
        mirror = msgspec.structs.replace(mirror, backports=True)
    state = read_state(mirror, recipe.release, cache, runner, sink, offline=offline)
    return Origin(mirror, recipe.release, state)


class DatedRunner:
    """A runner whose programs take ``epoch`` for the time of what they make (reproducible-builds.org,
    SOURCE_DATE_EPOCH)."""

    def __init__(self, inner: Runner, epoch: int) -> None:
        self._inner = inner
        self._epoch = {"SOURCE_DATE_EPOCH": str(epoch)}

    def run(
        self,
        argv: Sequence[str],
        *,
        success: frozenset[int] = frozenset({0}),
        timeout: float = 600.0,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        secrets: Sequence[str] = (),
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        return self._inner.run(
            argv,
            success=success,
            timeout=timeout,
            stdin=stdin,
            env={**self._epoch, **(env or {})},
            cwd=cwd,
            secrets=secrets,
            on_line=on_line,
        )
