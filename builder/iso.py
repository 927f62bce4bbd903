"""The ISO: one file that starts as CD and as USB stick, on BIOS (where the architecture has it) and on UEFI.

As a disk it has a GPT: the ISO's own data as one partition, the EFI image behind it as the ESP, and GRUB's boot
code with a bootable entry in LBA 0. El Torito points at the same EFI image, so nothing is stored twice.
"""

import contextlib
import datetime
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.errors import DeviceError
from core.events import Event, Sink, Stage
from core.files import sync_folder
from core.process import Runner
from core.units import format_size

VOLUME_LABEL = "LIFERAFT"
_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
_BIOS_IMAGE = "boot/grub/eltorito.img"


class BootImages(msgspec.Struct, frozen=True):
    """What makes the ISO start: code for LBA 0 and the El Torito image for BIOS (or neither), a FAT image for UEFI."""

    boot_code: Path | None
    bios: Path | None
    efi: Path


def replace_iso(
    files: dict[str, Path],
    boot: BootImages,
    out: Path,
    built: datetime.datetime,
    runner: Runner,
    sink: Sink,
    *,
    private: bool = False,
) -> None:
    """Write the ISO beside ``out`` and put it in its place when it is whole: until then an old one stays.

    Args:
        built: the time that everything on it carries.
        private: there is a secret on it: nobody but its owner may read the file.

    Raises:
        DeviceError: it cannot be written there.
    """
    total = sum(path.stat().st_size for path in files.values()) + boot.efi.stat().st_size
    sink(Event(stage=Stage.BUILD, message=f"Writing the ISO ({format_size(total)})"))
    partial = out.with_name(f"{out.name}.partial")
    try:
        with _kept_alone(partial, private):
            write_iso(files, boot, partial, runner, dated=built)
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            partial.replace(out)
    except BlockingIOError:
        raise DeviceError(f"Another build is writing {out}.", hint="Wait for it, or name another file.") from None
    except OSError as error:
        raise DeviceError(f"{out} cannot be written: {error.strerror}.") from None
    sync_folder(out.absolute().parent)
    sink(Event(stage=Stage.DONE, message=f"{out} is ready"))


@contextlib.contextmanager
def _kept_alone(partial: Path, private: bool) -> Iterator[None]:
    """An empty file that no other build writes meanwhile; gone when what is done with it fails.

    xorriso takes an empty file for a blank medium, and would add a session to what a killed build left.

    Raises:
        BlockingIOError: another build is at work on it.
    """
    partial.touch(0o600 if private else 0o666)
    with partial.open("rb+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not partial.exists() or not os.path.samestat(partial.stat(), os.fstat(stream.fileno())):
            # The other build came to its end between the two lines above, and took the file along.
            raise BlockingIOError
        try:
            stream.truncate(0)
            if private:
                os.fchmod(stream.fileno(), 0o600)
            yield
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_iso(
    files: dict[str, Path], boot: BootImages, out: Path, runner: Runner, *, dated: datetime.datetime | None = None
) -> None:
    """Write the ISO.

    Args:
        files: path on the medium to the file that goes there.
        out: written anew; the caller renames it when all is well.
        dated: the time that everything on it carries; files keep their own when None.

    Raises:
        DeviceError: the folder of ``out`` has less room than the files take.
    """
    _refuse_full_folder([*files.values(), *([boot.bios] if boot.bios else []), boot.efi], out.parent)
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-o", str(out), "-r", "-iso-level", "3", "-V", VOLUME_LABEL]
    argv += ["--grub2-mbr", str(boot.boot_code)] if boot.boot_code else []
    argv += ["--protective-msdos-label", "-partition_cyl_align", "off", "-partition_offset", "16"]
    argv += ["--mbr-force-bootable"] if boot.boot_code else []
    argv += ["-append_partition", "2", _ESP, str(boot.efi), "-appended_part_as_gpt", "-iso_mbr_part_type", _BASIC_DATA]
    argv += ["-c", "boot/boot.cat"]
    if boot.bios:
        argv += ["-b", _BIOS_IMAGE, "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info"]
        argv += ["-eltorito-alt-boot"]
    argv += ["-e", "--interval:appended_partition_2:all::", "-no-emul-boot", "-graft-points"]
    argv += [f"{_BIOS_IMAGE}={boot.bios}"] if boot.bios else []
    argv += [f"{_graft(name)}={_graft(str(path))}" for name, path in sorted(files.items())]
    env = {}
    if dated is not None:
        seconds = int(dated.timestamp())
        # The one is for volume, GPT and everything that is made from them, the other for files and folders.
        env["SOURCE_DATE_EPOCH"] = str(seconds)
        argv[3:3] = ["--set_all_file_dates", f"={seconds}"]
    runner.run(argv, timeout=900, env=env)


def _refuse_full_folder(files: list[Path], folder: Path) -> None:
    """xorriso on a full disk says only that it stopped writing."""
    needed = sum(path.stat().st_size for path in files)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DeviceError(
            f"No space is left for the ISO: {folder.absolute()} has {format_size(free)} free, "
            f"and it takes {format_size(needed)}.",
            hint="Make room, or name a place on another disk.",
        )


def _graft(name: str) -> str:
    """A name as it is written on one side of a graft point (mkisofs(8), -graft-points)."""
    return name.replace("\\", "\\\\").replace("=", "\\=")
