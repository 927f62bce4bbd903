"""The netboot set: a folder that a TFTP and a web server give to machines without a medium in them.

It has the same kernel, initrds and layers as the ISO and the same menu; beside them what firmware asks for first (shim
and GRUB for UEFI, GRUB for BIOS, a script for iPXE), and a part for the initrd that fetches the layers over HTTP.
Made from a medium's files, whoever brings them: a build or a finished ISO. It serves nothing itself.
"""

import errno
import filecmp
import re
import shutil
import stat
from collections.abc import Mapping
from importlib.resources import files as package_files
from pathlib import Path

from builder.architecture import Traits, traits_of
from builder.archive.loaders import Loaders
from builder.boot import KERNEL, QUIET, base_parameters, make_network_image
from builder.document import MEDIUM_DOCUMENT, MediumDocument, architecture_of_medium, describe_files
from builder.initrd import InitrdFile, write_initrd
from builder.netboot_document import NETBOOT_DOCUMENT, NetbootDocument
from core.documents import encode_readable
from core.errors import DeviceError, UsageError
from core.events import Event, Sink, Stage
from core.files import sync_folder
from core.process import Runner
from core.stopping import undisturbed
from core.units import format_size

#: The part of the initrd that only machines on the network get.
NETWORK_INITRD = "live/netboot.img"
_FETCH = "usr/lib/live/boot/9999-liferaft-fetch"
_FETCH_LIST = "conf/liferaft-fetch"
#: What the site writes itself, kept when a set is written again.
_SITE = ("site/site.cfg", "site/site.ipxe")
#: GRUB asks for these before its menu and shows an error for each that is missing; empty ones say what is true: the
#: signed image has all its modules in it.
_LISTS = ("command", "crypto", "fs", "terminal")
#: What the live system is made of, and what lies beside it for jobs. Folders below liferaft/ are only carried.
_FETCHED = re.compile(r"live/[^/]+\.(squashfs|module)|liferaft/[^/]+|\.disk/[^/]+")


def write_netboot(
    files: Mapping[str, Path], document: MediumDocument, loaders: Loaders, out: Path, runner: Runner, sink: Sink
) -> int:
    """Write the set of a medium as the folder ``out``; an older set there is replaced when the new one is whole.

    Args:
        files: all files of the medium, by path on it.
        document: the medium's own.

    Returns:
        Bytes of all files of the set.

    Raises:
        UsageError: ``out`` is something else than a netboot set or an empty folder, or settings would be lost.
        DeviceError: it cannot be written.
    """
    refuse_bad_folder(out)
    partial = out.with_name(f".{out.name}.partial")
    sink(Event(stage=Stage.BUILD, message=f"Writing the netboot set {out}"))
    try:
        _put_back(out)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for path, source in files.items():
            _copy(source, partial / path)
        for name, source in loaders.network.items():
            _copy(source, partial / name)
        for path, content in _written(files, document).items():
            _write(content, partial / path)
        if traits_of(architecture_of_medium(document, "The medium")).bios:
            _copy(make_network_image(partial, runner), partial / "grub.pxe")
        _write(encode_readable(_around(files, partial)).encode(), partial / NETBOOT_DOCUMENT)
        _keep_site(out, partial)
        size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        _swap(partial, out)
    except OSError as error:
        hint = "Make room, or name a folder on another disk." if error.errno == errno.ENOSPC else ""
        raise DeviceError(f"{out} cannot be written: {error.strerror}.", hint=hint) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sink(Event(stage=Stage.DONE, message=f"{out} is ready ({format_size(size)}); its README.txt says how it is served"))
    return size


def refuse_bad_folder(out: Path) -> None:
    """Refuse a folder whose content nobody asked to replace.

    Raises:
        UsageError: it is a file, its parent does not exist, other things than a netboot set are in it, or an older set
            beside it has settings of the site that it lacks.
    """
    if not out.absolute().parent.is_dir():
        raise UsageError(f"The folder {out.parent} does not exist.", hint=f"mkdir -p {out.parent}")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out} is not a folder.", hint="A netboot set is a folder: name one that does not exist yet.")
    if out.is_dir() and any(out.iterdir()) and not (out / MEDIUM_DOCUMENT).is_file():
        raise UsageError(
            f"{out} has other things in it than a netboot set.",
            hint="Name an empty folder, or one that does not exist.",
        )
    _refuse_to_lose_settings(out)


def _refuse_to_lose_settings(out: Path) -> None:
    """A killed build has set an older set aside, and since then somebody has put another one in its place: what of the
    older one is worth keeping only the site knows."""
    old = _set_aside(out)
    if _is_free(out) or not old.is_dir():
        return
    names = [path.relative_to(old).as_posix() for path in _site_files(old)]
    lost = [name for name in names if not _same(old / name, out / name)]
    if lost:
        raise UsageError(
            f"{old}, which a build that was killed has set aside, has settings of your own that {out} lacks or has "
            f"otherwise: {', '.join(lost)}.",
            hint=f"Copy what you need to {out / 'site'}, then remove {old}.",
        )


def _written(files: Mapping[str, Path], document: MediumDocument) -> dict[str, bytes]:
    """The files that are only in a netboot set, by path."""
    data = package_files("builder").joinpath("data", "netboot")
    traits = traits_of(architecture_of_medium(document, "The medium"))
    found = {
        "README.txt": readme(data.joinpath("README.txt").read_text(), traits).encode(),
        "grub/grub.cfg": data.joinpath("grub.cfg").read_bytes(),
        "boot.ipxe": ipxe_script(document).encode(),
        NETWORK_INITRD: network_initrd(files),
    }
    found |= {path: data.joinpath(Path(path).name).read_bytes() for path in _SITE}
    return found | {f"grub/{traits.grub}/{name}.lst": b"" for name in _LISTS}


def readme(template: str, traits: Traits) -> str:
    """How a set is served: of ``template`` the lines that hold for the architecture.

    Lines that begin with ``BIOS|`` are for sets that BIOS machines start from. ``@efi@`` is the letters in the names of
    programs for UEFI, ``@http@`` and ``@http_hex@`` the number by which firmware asks DHCP for UEFI HTTP Boot, and a
    line with ``@client@`` stands once for each number of plain UEFI.
    """
    lines: list[str] = []
    for line in template.splitlines():
        if line.startswith("BIOS|") and not traits.bios:
            continue
        clients = traits.clients if "@client@" in line else ("",)
        lines += [line.removeprefix("BIOS|").replace("@client@", str(client)) for client in clients]
    text = "\n".join(lines) + "\n"
    text = text.replace("@http@", str(traits.http_client)).replace("@http_hex@", f"{traits.http_client:02x}")
    return text.replace("@efi@", traits.efi)


def _around(files: Mapping[str, Path], folder: Path) -> NetbootDocument:
    """What the set in ``folder`` has beside the medium's files and the site's."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    own = {name: path for name, path in paths.items() if name not in files and name not in _SITE}
    return NetbootDocument(files=describe_files(own))


def network_initrd(files: Mapping[str, Path]) -> bytes:
    """The part of the initrd that fetches the live system, with the list of what that is."""
    script = package_files("builder").joinpath("data", "live-boot", "9999-liferaft-fetch").read_bytes()
    fetched = sorted(path for path in files if _FETCHED.fullmatch(path))
    lines = "".join(f"{files[path].stat().st_size} {path}\n" for path in fetched)
    return write_initrd(
        (
            InitrdFile(_FETCH, stat.S_IFREG | 0o755, script),
            InitrdFile(_FETCH_LIST, stat.S_IFREG | 0o644, lines.encode()),
        )
    )


def ipxe_script(document: MediumDocument) -> str:
    """The script for iPXE: the first entry of the menu, with names relative to the script's own address."""
    architecture = architecture_of_medium(document, "The medium")
    words = " ".join(
        (
            *base_parameters(architecture),
            *QUIET,
            "fetch=${base}",
            "BOOTIF=01-${net0/mac}",
            "${job_word}",
            "${parameters}",
        )
    )
    initrds = (*document.initrds, NETWORK_INITRD)
    # With UEFI the kernel looks for its initrds by the names on its command line, elsewhere that does nothing.
    names = " ".join(f"initrd={Path(path).name}" for path in initrds)
    lines = [
        "#!ipxe",
        "# Written by liferaft and replaced with every new set: your own settings belong into site/site.ipxe.",
        "set base ${cwduri}",
        "imgfetch --name site.ipxe site/site.ipxe && imgexec site.ipxe ||",
        "imgfree site.ipxe ||",
        "isset ${job} && set job_word liferaft.job=${job} ||",
        f"kernel {KERNEL} {names} {' '.join((words, *document.kernel_parameters))} || goto failed",
        *(f"initrd --name {Path(path).name} {path} || goto failed" for path in initrds),
        "boot",
        ":failed",
        "echo The rescue system cannot be fetched from ${cwduri}; README.txt there says what is needed.",
        "shell",
    ]
    return "\n".join(lines) + "\n"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source != target:
        shutil.copyfile(source, target)
    target.chmod(0o644)


def _write(content: bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(0o644)


def _keep_site(old: Path, new: Path) -> None:
    """The site's settings stay, and so does whatever else it has laid beside them."""
    for path in _site_files(old):
        _copy(path, new / path.relative_to(old))


def _site_files(folder: Path) -> list[Path]:
    """What a set has that is the site's own."""
    return sorted(path for path in (folder / "site").rglob("*") if path.is_file())


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


def _swap(new: Path, out: Path) -> None:
    """Put the new folder in the old one's place. Servers read it: mode and moment count."""
    for folder in (new, *(path for path in new.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    old = _set_aside(out)
    # What it has of the site's is in the set that is there now, and so in the new one: refuse_bad_folder has looked.
    shutil.rmtree(old, ignore_errors=True)
    with undisturbed():
        if out.exists():
            out.rename(old)
        new.rename(out)
        # Now it is nothing but in the way: under this name nobody takes it for one that has to come back.
        if old.exists():
            old.rename(new)
    sync_folder(out.absolute().parent)
    shutil.rmtree(new, ignore_errors=True)


def _put_back(out: Path) -> None:
    """An older set that a killed build had set aside: the site's settings are in it. An empty folder that somebody has
    made in its place meanwhile gives way."""
    old = _set_aside(out)
    if old.is_dir() and _is_free(out):
        old.rename(out)


def _is_free(out: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not out.exists() or not any(out.iterdir())


def _set_aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")
