"""The base of the live system: Debian, by mmdebstrap, packed into one squashfs with its kernel and initrd.

What is in it follows from the release and the packages alone; everything that is liferaft's or the site's lies in
the layer above (``payload``) or on the medium beside it, so that changing those never comes here.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import msgspec

from builder.architecture import key_part, traits_of
from builder.archive.debs import debs_word, stage_debs
from builder.archive.mirror import without_user
from builder.archive.origin import Origin
from builder.cache import Cache, key_of
from builder.foreign import bootstrap_words, refuse_foreign
from builder.recipe.recipe import Compression, Recipe
from builder.telling import tell
from core.errors import LiferaftError, ProcessError, RefusedError
from core.events import Sink
from core.process import Runner

_DATA = "data"
#: Seconds that installing a system may take: half an hour, and more where another processor is emulated.
_LONGEST = 2 * 3600
#: Debian's word to a kernel's hooks that it starts without an initrd (/etc/kernel/postinst.d/initramfs-tools):
#: configuring the kernel makes none then, and what other packages trigger updates none where there is none.
_NO_INITRD_YET = {"INITRD": "No"}
#: The initrd, once, when every package with a part in it is configured; then the links to kernel and initrd in / that
#: the kernel's own script would have made.
_MAKE_INITRD = """chroot "$1" env --unset=INITRD sh -e -c '
update-initramfs -c -k all
for version in $(linux-version list | linux-version sort); do
  linux-update-symlinks upgrade "$version" "/boot/vmlinuz-$version"
done'"""
#: What update-initramfs says when it failed, after a line with the reason.
_NO_INITRD = "update-initramfs: failed for "
#: A line of packages.txt.
_LISTED = "${Package}\\t${Version}\\t${Architecture}\\t${source:Package} ${source:Version}\\n"
#: Blocks of 128 KiB: with 1 MiB the image is 6 % smaller, but every small file that is read unpacks a whole block.
_SQUASHFS = {
    Compression.FAST: ("-comp", "zstd", "-Xcompression-level", "3", "-b", "128K"),
    Compression.SMALL: ("-comp", "zstd", "-Xcompression-level", "19", "-b", "128K"),
}


class Base(msgspec.Struct, frozen=True):
    """A packed live system without liferaft in it.

    Attributes:
        medium_id: the mark by which its initrd knows a medium it belongs to (``.disk/live-uuid``).
        packages: name, version, architecture and source of all packages, one per line, between tabs.
        font: a console font of the system's, the start of liferaft's own.
        kernel_release: of its kernel, as ``uname -r`` gives it.
        reused: it came from the cache.
    """

    squashfs: Path
    kernel: Path
    initrd: Path
    packages: Path
    font: Path
    kernel_release: str
    medium_id: str
    reused: bool


def build_base(recipe: Recipe, origin: Origin, cache: Cache, runner: Runner, sink: Sink) -> Base:
    """The base for ``recipe``, from the cache or built (about two minutes on two cores; emulated, many times that).

    Raises:
        RefusedError: not root, or programs of the recipe's architecture do not run here.
        ProcessError: mmdebstrap or mksquashfs failed; the end of its output says why.
    """
    packages = recipe.base_packages(_listed("packages.txt"))
    triplet = traits_of(recipe.architecture).triplet
    patterns = (pattern.replace("/TRIPLET/", f"/{triplet}/") for pattern in _listed("excludes.txt"))
    excludes = tuple(pattern for pattern in patterns if not recipe.keeps(pattern))
    left_out = _listed("leftout.txt")
    hook = files("builder").joinpath(_DATA, "initramfs-hooks", "zz-liferaft").read_text()
    installed = origin.packages(packages, cache, runner, sink)
    lists = ("packages", *packages, "excludes", *excludes, "left out", *left_out)
    # What its sources.list will say: a base from another mirror, or from before the user was taken out, is another one.
    sources = map(without_user, origin.sources)
    key = key_of(
        (
            *("base 6", str(origin.epoch), recipe.compression, hook),
            *installed,
            *lists,
            *("sources", *sources),
            *key_part(recipe.architecture),
        )
    )

    def make(folder: Path) -> None:
        refuse_without_root()
        refuse_foreign(recipe.architecture, cache, runner)
        with cache.scratch("rootfs") as scratch:
            tree = scratch / "tree"
            _stage_settings(scratch / "settings", hook, key)
            debs = scratch / "debs"
            stage_debs(packages, origin, debs, cache, runner, sink)
            tell(sink, "Installing Debian for the medium (mmdebstrap)")
            _bootstrap(tree, debs, scratch / "settings", origin, packages, excludes, runner, sink)
            forget_user(tree / "etc/apt/sources.list")
            take_boot_files(tree, folder, runner)
            tell(sink, "Packing the live system (squashfs)")
            pack(tree, folder / "filesystem.squashfs", recipe.compression, runner, leave_out=left_out)

    folder, reused = cache.entry("base", key, make)
    return Base(
        squashfs=folder / "filesystem.squashfs",
        kernel=folder / "vmlinuz",
        initrd=folder / "initrd.img",
        packages=folder / "packages.txt",
        font=folder / "console.psf.gz",
        kernel_release=(folder / "kernel-release.txt").read_text().strip(),
        medium_id=key,
        reused=reused,
    )


def refuse_without_root() -> None:
    """Making a system's tree needs root (ownership, chroot).

    Raises:
        RefusedError: this is not root.
    """
    if os.geteuid() != 0:
        raise RefusedError(
            "Building the live system needs root: its files belong to root and its tools run inside it.",
            hint="Run the same command with sudo, or give this user subordinate ids (package uidmap; usermod "
            "--add-subuids 100000-165535 --add-subgids 100000-165535 USER). Once the base is in the cache, only "
            "changes of packages need it.",
        )


def pack(
    tree: Path,
    squashfs: Path,
    compression: Compression,
    runner: Runner,
    *,
    leave_out: tuple[str, ...] = (),
    all_root: bool = False,
) -> None:
    """Pack ``tree`` into a new squashfs; with ``all_root`` everything in it belongs to root, whoever packs."""
    argv = ["mksquashfs", str(tree), str(squashfs), *_SQUASHFS[compression], "-noappend", "-no-progress", "-quiet"]
    if all_root:
        argv.append("-all-root")
    if leave_out:
        argv += ["-wildcards", "-e", *leave_out]
    runner.run(argv, timeout=1800)


def _listed(name: str) -> tuple[str, ...]:
    """The lines of a data file that are neither empty nor comments."""
    text = files("builder").joinpath(_DATA, name).read_text()
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


def _stage_settings(folder: Path, hook: str, medium_id: str) -> None:
    """Files that must be there before packages are configured, because the initrd is made from them."""
    contents = {
        "etc/initramfs-tools/hooks/zz-liferaft": hook,
        "etc/initramfs-tools/conf.d/liferaft": "MODULES=most\nCOMPRESS=zstd\nCOMPRESSLEVEL=19\nRESUME=none\n",
        "etc/liferaft/medium-id": f"{medium_id}\n",
        # Nothing starts unless liferaft's layer says so (see rescue/live).
        "etc/systemd/system-preset/00-liferaft.preset": "disable *\n",
    }
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "etc/initramfs-tools/hooks/zz-liferaft").chmod(0o755)


def _bootstrap(
    tree: Path,
    debs: Path,
    settings: Path,
    origin: Origin,
    packages: tuple[str, ...],
    excludes: tuple[str, ...],
    runner: Runner,
    sink: Sink,
) -> None:
    argv = [
        "mmdebstrap",
        # As root this keeps root's ids but gives the build its own mount namespace: nothing stays mounted.
        "--mode=unshare",
        "--variant=apt",
        *bootstrap_words(origin.architecture),
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in excludes),
        debs_word(debs),
        f"--essential-hook=sync-in {settings} /",
        f"--customize-hook={_MAKE_INITRD}",
        # What packages switched on by themselves is switched off: see the preset.
        '--customize-hook=find "$1/etc/systemd/system" -name "*.wants" -prune -exec rm -r {} +',
        '--customize-hook=rm -f "$1/etc/machine-id" "$1/etc/hostname" "$1/etc/resolv.conf"',
        '--customize-hook=rm -f "$1/var/lib/dbus/machine-id"',
        origin.release,
        str(tree),
    ]
    bootstrap(argv, origin.sources, runner, sink, env=_NO_INITRD_YET)


def bootstrap(
    argv: list[str], sources: Sequence[str], runner: Runner, sink: Sink, *, env: Mapping[str, str] | None = None
) -> None:
    """Run mmdebstrap, telling its steps; its last line says nothing, so an error names the first line that does.

    Args:
        sources: lines of the system's sources.list.
        env: variables for it and for the scripts of packages.

    Raises:
        LiferaftError: a package does not exist, the mirror does not answer, a package failed to install, no initrd
            could be made.
    """
    try:
        install(argv, sources, runner, lambda line: _tell_step(line, sink), env=env)
    except ProcessError as error:
        before, failed, _ = error.output.partition(_NO_INITRD)
        if failed:
            said = before.strip().rpartition("\n")[2].removeprefix("E: ")
            raise LiferaftError(
                f"The medium's initrd could not be made: {said}",
                hint="Does a package of the recipe bring a part of it that fails? --debug says more.",
            ) from error
        lines = [line for line in error.output.splitlines() if line.startswith(("E: ", "Err:", "dpkg: error"))]
        said = lines[0].removeprefix("E: ") if lines else error.output.strip()[-300:]
        raise LiferaftError(
            f"mmdebstrap could not install the system: {without_user(said)}",
            hint="Check the names in packages, and that this machine reaches its Debian mirror; --debug says more.",
        ) from error


def install(
    argv: list[str],
    sources: Sequence[str],
    runner: Runner,
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run mmdebstrap with lines of a sources.list, which nobody sees in the list of processes: a mirror's address may
    have a password in it.

    Raises:
        ProcessError: it failed.
    """
    # As mmdebstrap writes lines that are words of its command: with an empty one between them.
    text = "\n".join(f"{line}\n" for line in sources)
    runner.run([*argv, "-"], timeout=_LONGEST, env=env, stdin=text, on_line=on_line)


def _tell_step(line: str, sink: Sink) -> None:
    """mmdebstrap says each of its steps in a line "I: ..."; what apt and dpkg say between them is for the error. Making
    the initrd takes long enough to be told, too."""
    # A hook's line is its script: nothing that a person wants to read.
    if line.startswith(("I: ", "update-initramfs: Generating")) and "-hook in shell: " not in line:
        tell(sink, f"  {line.removeprefix('I: ')}")


def forget_user(sources: Path) -> None:
    """The password or token by which this machine may use its mirror does not go on the medium."""
    if sources.is_file() and without_user(text := sources.read_text()) != text:
        sources.write_text(without_user(text))


def take_boot_files(tree: Path, folder: Path, runner: Runner) -> None:
    """Copy what the medium carries beside the squashfs from the installed system to ``folder``.

    Raises:
        LiferaftError: the kernel has no initrd.
    """
    boot = tree / "boot"
    kernel = max(boot.glob("vmlinuz-*"))
    release = kernel.name.removeprefix("vmlinuz-")
    initrd = boot / f"initrd.img-{release}"
    if not initrd.is_file():
        raise LiferaftError(f"The medium's initrd was not made: {initrd.name} is not in the installed system's /boot.")
    shutil.copyfile(kernel, folder / "vmlinuz")
    shutil.copyfile(initrd, folder / "initrd.img")
    (folder / "kernel-release.txt").write_text(f"{release}\n")
    shutil.copyfile(tree / "usr/share/consolefonts/Uni2-Terminus16.psf.gz", folder / "console.psf.gz")
    listing = runner.run(["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "-W", f"-f={_LISTED}"])
    (folder / "packages.txt").write_text(listing.stdout)
