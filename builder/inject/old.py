"""The old medium taken apart: its document and its files, each checked on the way, and what makes it start."""

from collections.abc import Mapping
from pathlib import Path

from builder.architecture import traits_of
from builder.archive.loaders import Loaders, fetch_loaders
from builder.archive.origin import find_origin
from builder.cache import Cache
from builder.document import MEDIUM_DOCUMENT, MediumDocument, architecture_of_medium
from builder.finished.iso9660 import Platform
from builder.finished.opened import OpenedMedium
from builder.iso import BootImages
from builder.recipe.recipe import Recipe, Release
from core.errors import DamagedError, RefusedError
from core.events import Event, Sink, Stage
from core.process import Runner
from core.units import MIB

_BOOT_CATALOG, _BIOS_IMAGE = "boot/boot.cat", "boot/grub/eltorito.img"
#: The boot code in LBA 0, up to where the MBR's own fields begin (UEFI 2.10, 5.2.1).
_BOOT_CODE, _SECTOR = 440, 512


def document_of(medium: OpenedMedium) -> MediumDocument:
    if medium.cut:
        raise DamagedError(
            f"{medium.name} is cut short: {medium.cut} bytes are missing behind byte {medium.size}.",
            hint="Copy or download it again.",
        )
    if medium.document is None:
        raise RefusedError(
            f"{medium.name} has no {MEDIUM_DOCUMENT}: it was built before media could be added to.",
            hint="Build it again with this liferaft.",
        )
    return medium.document


def take_files(medium: OpenedMedium, document: MediumDocument, folder: Path, sink: Sink) -> dict[str, Path]:
    """Every file of the medium, copied out; those that the document knows, and a netboot set's loaders, with their
    digest checked. What else a set has around them is written anew: changed or missing, it is no damage."""
    around = medium.around.files if medium.around is not None else ()
    known = {file.path: file for file in (*document.files, *(file for file in around if is_loader(file.path)))}
    anew = {file.path: file.sha256 for file in around if file.path not in known}
    layers = {f"live/{name}.squashfs" for name in document.layers}
    if missing := sorted({*known, *layers, *document.initrds} - set(medium.paths)):
        raise DamagedError(f"{medium.name} lacks {missing[0]}, which it should have.")
    taken = {}
    changed = []
    for path in medium.paths:
        if path == _BOOT_CATALOG:
            continue
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        found = medium.extract(path, target)
        if path in known and found != known[path].sha256:
            raise DamagedError(
                f"{medium.name}: {path}, at offset {medium.place(path)}, has the digest {found}, "
                f"expected {known[path].sha256}.",
                hint="The medium is damaged: take another copy of it, or build it again.",
            )
        if path in anew and found != anew[path]:
            changed.append(path)
        taken[path] = target
    if changed:
        message = f"Not as it was written in {medium.name}, and new in the new set: {', '.join(changed)}."
        sink(Event(stage=Stage.BUILD, message=message, warning=True))
    return taken


def is_loader(path: str) -> bool:
    """Whether UEFI asks the network for this file of a netboot set: it is taken over as it is."""
    return path.endswith(".efi") and "/" not in path


def boot_images(
    iso: Path, medium: OpenedMedium, document: MediumDocument, files: Mapping[str, Path], scratch: Path
) -> BootImages:
    """What makes the old ISO start, taken out of it: the same programs start the new one."""
    assert medium.volume is not None
    code = scratch / "boot-code.img"
    with iso.open("rb") as stream:
        code.write_bytes(stream.read(_BOOT_CODE).ljust(_SECTOR, b"\0"))
    image = next((image for image in medium.volume.boot_images if image.platform == Platform.UEFI), None)
    bios = traits_of(architecture_of_medium(document, medium.name)).bios
    if image is None or (bios and _BIOS_IMAGE not in files):
        raise DamagedError(f"{medium.name} lacks a boot image for {'BIOS or UEFI' if bios else 'UEFI'}.")
    efi = scratch / "efi.img"
    source = medium.efi_image()
    with efi.open("wb") as stream:
        for offset in range(0, source.size, MIB):
            stream.write(source.read_at(offset, min(MIB, source.size - offset)))
    return BootImages(code, files[_BIOS_IMAGE], efi) if bios else BootImages(None, None, efi)


def loaders_of(
    medium: OpenedMedium, files: Mapping[str, Path], document: MediumDocument, cache: Cache, runner: Runner, sink: Sink
) -> Loaders:
    """What UEFI asks the network for first: a netboot set has it, for an ISO it comes from the archive."""
    if medium.volume is None:
        return Loaders({name: path for name, path in files.items() if is_loader(name)}, {})
    try:
        release = Release(document.release)
    except ValueError:
        raise RefusedError(
            f"{medium.name} is made of {document.release}, of which liferaft has no boot loaders."
        ) from None
    architecture = architecture_of_medium(document, medium.name)
    origin = find_origin(Recipe(release=release, architecture=architecture), cache, runner, sink)
    return fetch_loaders(release, origin.sources, cache, runner, sink, state=origin.digests)
