"""What a finished medium is and whether it is whole: every digest checked, sizes, age, who signed what starts.

Reads through :mod:`builder.finished.opened` only: no root, no program, nothing written. A finding is something wrong
with the medium; whether a certain machine can start it is preflight's question.
"""

import datetime
import hashlib
from collections.abc import Iterator

import msgspec

from builder.boot import INITRD, KERNEL
from builder.document import MEDIUM_DOCUMENT, MediumDocument, MediumFile, boot_image_digest
from builder.finished.iso9660 import Platform
from builder.finished.opened import OpenedMedium
from builder.finished.signatures import Program, read_program
from builder.sums import RANGE_SIZE, SUMS, Range, ranges_of, read_sums
from core.errors import DamagedError
from core.events import Meter, Sink, Stage

#: Days after which a medium is called old: Debian makes a point release about every two months, with the security
#: updates and drivers since the last one.
OLD_DAYS = 180
#: What xorriso writes by itself: the boot catalog was read to get here.
_MADE_BY_XORRISO = frozenset({"boot/boot.cat", "boot/grub/eltorito.img"})
#: How the programs that UEFI starts are called, by the beginning of their file name: in the folder EFI/BOOT of the EFI
#: image, and in the root of a netboot set.
_EFI_NAMES = (("boot", "shim"), ("grub", "GRUB"))
#: The initrd part that a netboot set has beside the medium's (builder/netboot.py).
_NETWORK_PART = "live/netboot.img"
_KINDS = (("kernel", (KERNEL,)), ("initrd", (INITRD,)))


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong.

    Attributes:
        path: the file on the medium; empty for the medium as a whole.
        start, end: the range of the file in bytes, half-open; both 0 when it is about the whole file.
        place: offset in the ISO of that range's first byte; 0 in a folder or when it cannot be said.
        problem: one sentence.
    """

    path: str
    start: int = 0
    end: int = 0
    place: int = 0
    problem: str


class Part(msgspec.Struct, frozen=True):
    """A component of the medium and its bytes."""

    name: str
    size: int


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """One signature on a program that UEFI starts.

    Attributes:
        name: the signer's common name. authority: of who vouches for it: what firmware or shim has to trust.
        valid_from, valid_until: of the signer's certificate. Firmware does not look at the clock; people do.
        intact: the program is as it was when it was signed.
    """

    name: str
    authority: str
    valid_from: datetime.datetime
    valid_until: datetime.datetime
    intact: bool


class BootProgram(msgspec.Struct, frozen=True, kw_only=True):
    """A program in the chain of Secure Boot: its Authenticode SHA-256, who signed it, SBAT generations by component."""

    name: str
    sha256: str
    signers: tuple[Signer, ...]
    sbat: dict[str, int]


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a medium.

    Attributes:
        version: of this document.
        name: the file or folder. size: bytes.
        medium: its own document; None on a medium from before there was one.
        age_days: since it was built; None when it does not say. old: it should be built again.
        parts: size by component, largest first.
        packages: Debian packages. python: Python packages, ``name version``.
        secure_boot: what UEFI starts, in that order.
        has_job: a restore job starts by itself.
        checked: bytes that were compared with their digests; 0 when there was nothing to compare with.
        findings: all that is wrong; empty when the medium is whole.
    """

    version: int = 1
    name: str
    size: int
    medium: MediumDocument | None
    age_days: int | None
    old: bool
    parts: tuple[Part, ...]
    packages: int
    python: tuple[str, ...]
    secure_boot: tuple[BootProgram, ...]
    has_job: bool
    checked: int
    findings: tuple[Finding, ...]


def inspect_medium(medium: OpenedMedium, now: datetime.datetime, sink: Sink) -> Inspection:
    """Look at everything; every file is read once.

    Args:
        now: what the age is counted to.
    """
    findings = list(_structure(medium))
    checked = 0
    if medium.document is not None:
        files = _known_files(medium, medium.document)
        meter = Meter(sink, Stage.CHECK, sum(file.size for file in files), message="Checking digests")
        for finding in _digests(medium, files, meter):
            findings.append(finding)
        checked = meter.done
        meter.tell()
        findings += _boot_images(medium, medium.document)
    programs, problems = _programs(medium)
    age = (now - medium.document.built).days if medium.document is not None else None
    return Inspection(
        name=medium.name,
        size=medium.size,
        medium=medium.document,
        age_days=age,
        old=age is not None and age >= OLD_DAYS,
        parts=tuple(sorted(_parts(medium), key=lambda part: -part.size)),
        packages=len(_lines(medium, "liferaft/packages.txt")),
        python=tuple(line.replace("\t", " ") for line in _lines(medium, "liferaft/python.txt")),
        secure_boot=programs,
        has_job=medium.has("liferaft/job.json"),
        checked=checked,
        # A boot image that cannot be read is met twice: by its digest, and by the programs in it.
        findings=tuple(dict.fromkeys((*findings, *problems))),
    )


def describe_program(program: Program) -> BootProgram:
    """The facts of a program that people ask for."""
    return BootProgram(
        name=program.name,
        sha256=program.digest,
        signers=tuple(
            Signer(
                name=signature.signer,
                authority=signature.authority,
                valid_from=signature.chain[0].not_valid_before_utc,
                valid_until=signature.chain[0].not_valid_after_utc,
                intact=signature.intact,
            )
            for signature in program.signatures
        ),
        sbat={entry.component: entry.generation for entry in program.sbat},
    )


def _structure(medium: OpenedMedium) -> Iterator[Finding]:
    """Is everything there, and nothing else?"""
    if medium.cut:
        end = medium.size
        yield Finding(
            path="",
            start=end,
            end=end + medium.cut,
            place=end,
            problem=f"The ISO is cut short: it has {end} of {end + medium.cut} bytes.",
        )
    if medium.document is None:
        yield Finding(
            path="", problem=f"It has no {MEDIUM_DOCUMENT}, so nothing says what it should be: build it again."
        )
        return
    known = {file.path for file in _known_files(medium, medium.document)}
    if medium.volume is None:
        # A netboot set has what a site puts in; one from before they were written down has loaders, too.
        part = _NETWORK_PART if medium.around is None else ""
        known |= {path for path in medium.paths if path == part or not path.startswith(("live/", "liferaft/"))}
    for path in sorted(known - set(medium.paths)):
        yield Finding(path=path, problem="It is missing.")
    for path in sorted(set(medium.paths) - known - _MADE_BY_XORRISO - {MEDIUM_DOCUMENT}):
        yield Finding(path=path, problem=f"It is no part of the medium: {MEDIUM_DOCUMENT} does not know it.")


def _known_files(medium: OpenedMedium, document: MediumDocument) -> tuple[MediumFile, ...]:
    """Every file whose digest is known: the medium's, and what a netboot set has around them."""
    return (*document.files, *(medium.around.files if medium.around is not None else ()))


def _digests(medium: OpenedMedium, files: tuple[MediumFile, ...], meter: Meter) -> Iterator[Finding]:
    ranges = _known_ranges(medium)
    for file in files:
        if not medium.has(file.path):
            continue
        size, place = medium.file_size(file.path), medium.place(file.path)
        if size != file.size:
            yield Finding(path=file.path, place=place, problem=f"It has {size} bytes, expected {file.size}.")
            continue
        if medium.ends_inside(file.path):
            yield Finding(path=file.path, end=size, place=place, problem="The end of the ISO cuts it off.")
            continue
        yield from _compare(medium, file, ranges.get(file.path, []), meter)


def _compare(medium: OpenedMedium, file: MediumFile, expected: list[Range], meter: Meter) -> Iterator[Finding]:
    """The whole file by its digest, and when that is wrong the ranges of it, where their digests are known."""
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for piece in medium.pieces(file.path):
            digest.update(piece)
            meter.advance(len(piece))
            yield piece

    place = medium.place(file.path)
    found = list(ranges_of(file.path, pieces()))
    if digest.hexdigest() == file.sha256:
        return
    wrong = [part for part, known in zip(found, expected, strict=False) if part != known]
    for part in wrong:
        end = part.offset + part.size
        yield Finding(
            path=file.path,
            start=part.offset,
            end=end,
            place=place + part.offset,
            problem=f"Bytes {part.offset} to {end} differ: expected SHA-512 "
            f"{expected[part.offset // RANGE_SIZE].digest[:16]}…, found {part.digest[:16]}….",
        )
    if not wrong:
        yield Finding(
            path=file.path,
            end=file.size,
            place=place,
            problem=f"It differs: expected SHA-256 {file.sha256[:16]}…, found {digest.hexdigest()[:16]}….",
        )


def _known_ranges(medium: OpenedMedium) -> dict[str, list[Range]]:
    """Digests of ranges, from the part that checks at boot; none when that is damaged (its own digest says so)."""
    ranges: dict[str, list[Range]] = {}
    if medium.has(SUMS):
        try:
            for part in read_sums(medium.read(SUMS), name=SUMS):
                ranges.setdefault(part.path, []).append(part)
        except DamagedError:
            return {}
    return ranges


def _boot_images(medium: OpenedMedium, document: MediumDocument) -> Iterator[Finding]:
    if medium.volume is None:  # A folder has none.
        return
    platforms = {"bios": Platform.BIOS, "efi": Platform.UEFI}
    for image in document.boot_images:
        try:
            found = boot_image_digest(medium.boot_image(platforms[image.path], image.size))
        except DamagedError as error:
            yield Finding(path="", problem=error.message)
            continue
        if found != image.sha256:
            yield Finding(
                path="", problem=f"The boot image for {image.path.upper()} differs from what the medium was built with."
            )


def _programs(medium: OpenedMedium) -> tuple[tuple[BootProgram, ...], tuple[Finding, ...]]:
    """shim, GRUB and the kernel: their signatures, and what is wrong with them."""
    programs: list[BootProgram] = []
    findings: list[Finding] = []
    try:
        contents = _chain(medium)
    except DamagedError as error:
        return (), (Finding(path="", problem=error.message),)
    for name, content in contents.items():
        try:
            program = describe_program(read_program(content, name=name))
        except DamagedError as error:
            findings.append(Finding(path="", problem=error.message))
            continue
        programs.append(program)
        if not program.signers:
            findings.append(Finding(path="", problem=f"{name} is not signed: Secure Boot refuses it."))
        elif not any(signer.intact for signer in program.signers):
            findings.append(Finding(path="", problem=f"{name} is not as it was signed: Secure Boot refuses it."))
    return tuple(programs), tuple(findings)


def _chain(medium: OpenedMedium) -> dict[str, bytes]:
    chain: dict[str, bytes] = {}
    if medium.volume is not None:
        for path, content in sorted(medium.efi_files().items()):
            folder, _, file = path.lower().rpartition("/")
            if folder == "efi/boot" and (name := _efi_name(file)):
                chain[name] = content
    for path in medium.paths if medium.volume is None else ():
        if path.endswith(".efi") and "/" not in path and (name := _efi_name(path)):
            chain[name] = medium.read(path)
    if medium.has(KERNEL) and not medium.ends_inside(KERNEL):
        chain["kernel"] = medium.read(KERNEL, 512 << 20)
    return chain


def _efi_name(file: str) -> str:
    """What a program of this name is in the chain; empty for others."""
    return next((name for word, name in _EFI_NAMES if file.startswith(word)), "")


def _parts(medium: OpenedMedium) -> Iterator[Part]:
    """Layers by name, kernel, initrds; everything else together."""
    left = medium.size
    for path in medium.paths:
        size = medium.file_size(path)
        name = next((kind for kind, paths in _KINDS if path in paths), "")
        if path.startswith("live/") and path.endswith((".squashfs", ".img")) and not name:
            stem, _, ending = path.removeprefix("live/").rpartition(".")
            name = f"{stem} (layer)" if ending == "squashfs" else f"{stem} (initrd)"
        if name:
            left -= size
            yield Part(name, size)
    yield Part("boot loaders and the rest", max(left, 0))


def _lines(medium: OpenedMedium, path: str) -> list[str]:
    if not medium.has(path) or medium.ends_inside(path):
        return []
    return [line for line in medium.read(path).decode(errors="replace").splitlines() if line]
