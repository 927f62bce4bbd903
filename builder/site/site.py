"""The site layer: what one site's media have and others have not, as a small squashfs above all others.

Made of the files that follow from the recipe (``site_files``), of a keymap and a locale, and of the certificates that
the base trusts already. It takes a second or two, whatever else is on the medium.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from builder.archive.debian import Archive, open_archive
from builder.cache import Cache, key_of
from builder.layer import Layer
from builder.recipe.recipe import Compression, Recipe
from builder.rootfs import pack
from builder.site.files import Site, SiteFile, SiteLink
from builder.site.keymap import build_keymap
from builder.site.locales import DEFAULT, build_locale
from core.errors import LiferaftError, UsageError
from core.events import Event, Sink, Stage
from core.process import Runner

LAYER = "site"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_LOCALES = "usr/lib/locale"
_KEYMAP = "usr/share/liferaft/keymap.kmap.gz"


def complete_site(recipe: Recipe, site: Site, sources: Iterable[str], cache: Cache, runner: Runner, sink: Sink) -> Site:
    """``site`` with what must be asked of Debian's archive: before the long parts, because it may not be there.

    Names of packages are looked at too, though mmdebstrap would find out: it does so a minute later.

    Args:
        sources: lines of the medium's sources.list.

    Raises:
        UsageError: a package, keymap or locale does not exist; the nearest is named.
        UnreachableError: the mirror does not answer.
    """
    for warning in site.warnings:
        sink(Event(stage=Stage.BUILD, message=warning, warning=True))
    lines = tuple(sources)
    opened: list[Archive] = []

    def archive() -> Archive:
        if not opened:
            opened.append(open_archive(lines, cache, runner, sink))
        return opened[0]

    _check_packages(recipe, lines, archive, cache)
    found = list(site.files)
    if recipe.keymap:
        found.append(SiteFile(path=_KEYMAP, content=build_keymap(recipe.keymap, lines, archive, cache, runner, sink)))
    if recipe.locale != DEFAULT:
        folder = build_locale(recipe.locale, lines, archive, cache, sink)
        parts = sorted(path for path in folder.rglob("*") if path.is_file())
        found += [
            SiteFile(path=f"{_LOCALES}/{path.relative_to(folder.parent)}", content=path.read_bytes()) for path in parts
        ]
    return msgspec.structs.replace(site, files=tuple(sorted(found, key=lambda file: file.path)))


def build_site(
    site: Site, base: Path, compression: Compression, cache: Cache, runner: Runner, sink: Sink
) -> tuple[Layer, ...]:
    """The layer, from the cache or built; none for a medium that no site has a part in.

    Args:
        base: the squashfs of the base.

    Raises:
        UsageError: the base does not know the time zone.
        ProcessError: a tool failed.
    """
    whole = _with_base(site, base, runner)
    if not whole.files and not whole.links:
        return ()
    # The base's entry is named by what it was built from, times included; the layer carries the same time.
    parts: list[str | bytes] = ["site 1", compression, base.parent.name]
    for file in whole.files:
        parts += [file.path, oct(file.mode), file.content]
    for link in whole.links:
        parts += [link.path, link.target]

    def make(folder: Path) -> None:
        sink(Event(stage=Stage.BUILD, message="Packing the site's settings"))
        with cache.scratch("site") as scratch:
            tree = scratch / "tree"
            _write(whole.files, whole.links, tree)
            pack(tree, folder / f"{LAYER}.squashfs", compression, runner, all_root=True)

    folder, reused = cache.entry("site", key_of(parts), make)
    return (Layer(LAYER, folder / f"{LAYER}.squashfs", reused=reused),)


def _check_packages(recipe: Recipe, sources: tuple[str, ...], archive: Callable[[], Archive], cache: Cache) -> None:
    """Once for the same names: the answer is in the cache like everything else."""
    if not (recipe.packages or recipe.firmware_packages or recipe.kernel.dkms):
        return

    def ask(folder: Path) -> None:
        archive().refuse_unknown(recipe.packages, "packages", main_only=True)
        archive().refuse_unknown(recipe.firmware_packages, "firmware.packages")
        archive().refuse_unknown(recipe.kernel.dkms, "kernel.dkms")
        (folder / "known").touch()

    names = (*recipe.packages, "firmware", *recipe.firmware_packages, "dkms", *recipe.kernel.dkms)
    cache.entry("names", key_of(("names 1", *sources, *names)), ask)


def _with_base(site: Site, base: Path, runner: Runner) -> Site:
    if site.time_zone:
        zone = f"usr/share/zoneinfo/{site.time_zone}"
        listed = runner.run(["unsquashfs", "-lc", str(base), zone], timeout=120).stdout
        if not listed.strip().endswith(zone):
            raise UsageError(
                f"time_zone: the medium's time zone database has no {site.time_zone}.",
                hint="Old names are in the package tzdata-legacy: add it to packages, or take the new name.",
            )
    if not site.certificates:
        return site
    trusted = runner.run(["unsquashfs", "-cat", str(base), _BUNDLE], timeout=120).stdout
    if "-----BEGIN CERTIFICATE-----" not in trusted:
        raise LiferaftError(f"The base has no certificates in {_BUNDLE}, to which the site's could be added.")
    bundle = SiteFile(path=_BUNDLE, content=trusted.encode() + site.certificates)
    return msgspec.structs.replace(site, files=(*site.files, bundle))


def _write(files: Iterable[SiteFile], links: Iterable[SiteLink], tree: Path) -> None:
    """The tree, with modes that do not follow the builder's umask; root's own folders are root's alone."""
    tree.mkdir()
    for file in files:
        path = tree / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    for link in links:
        path = tree / link.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(link.target)
    for folder in (tree, *(path for path in tree.rglob("*") if path.is_dir() and not path.is_symlink())):
        folder.chmod(0o700 if folder.relative_to(tree).parts[:1] == ("root",) else 0o755)
