"""The support bundle: what this machine and this run of liferaft look like, in one file, without its secrets.

A ZIP, because it opens on any computer with nothing installed. It holds text: the journal, the kernel's messages, the
machine document, disks and their SMART data, network, the medium's own document, and the plans and reports of this run.
A part that cannot be had is a line in ``contents.json`` with the reason, never an end of the whole.
"""

import datetime
import io
import platform
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.documents import encode_readable
from core.errors import DeviceError, LiferaftError, ProcessError, UsageError
from core.events import Event, Sink, Stage
from core.files import write_atomically
from core.process import Runner
from core.units import MIB
from core.version import tool_name
from images.probe import block_devices, probe_machine
from rescue.jobs.records import RECORDS
from rescue.jobs.redaction import redact

SUPPORT_VERSION = 1
#: Bytes of one part; of a longer one the end is kept, which is where things went wrong.
PART_LIMIT = 8 * MIB
#: Lines of the journal that are asked for.
_JOURNAL_LINES = 40_000
_COMMAND_SECONDS = 60.0
_DISK_SECONDS = 30.0
#: Bytes of a file that may hold a secret.
_SECRET_LIMIT = 4096

#: Part -> the command whose output it is.
_COMMANDS: dict[str, tuple[str, ...]] = {
    "journal.txt": ("journalctl", "--boot", "--no-pager", "--output=short-precise", f"--lines={_JOURNAL_LINES}"),
    "dmesg.txt": ("dmesg",),
    "disks/lsblk.json": ("lsblk", "--json", "--bytes", "--output-all"),
    "disks/findmnt.json": ("findmnt", "--json", "--bytes"),
    "disks/lvm.txt": ("lvs", "--all", "--options", "+devices,lv_health_status"),
    "hardware/pci.txt": ("lspci", "-nnk"),
    "hardware/usb.txt": ("lsusb",),
    "hardware/sensors.txt": ("sensors",),
    "hardware/boot-entries.txt": ("efibootmgr", "-v"),
    "hardware/secure-boot.txt": ("mokutil", "--sb-state"),
    "network/addresses.json": ("ip", "-json", "address"),
    "network/routes.json": ("ip", "-json", "route", "show", "table", "all"),
    "network/names.txt": ("resolvectl", "--no-pager", "status"),
    "system/units.txt": ("systemctl", "--no-pager", "--all", "--full", "list-units"),
    "system/boot-time.txt": ("systemd-analyze", "--no-pager", "critical-chain"),
    "system/modules.txt": ("lsmod",),
    "system/processes.txt": ("ps", "-eo", "pid,ppid,stat,etime,rss,comm"),
}
#: Part -> the file it is, from the root of the system.
_FILES = {
    "liferaft/medium.json": "run/live/medium/liferaft/medium.json",
    "liferaft/packages.txt": "run/live/medium/liferaft/packages.txt",
    "liferaft/job.json": "run/live/medium/liferaft/job.json",
    "system/command-line.txt": "proc/cmdline",
    "system/memory.txt": "proc/meminfo",
    "system/mounts.txt": "proc/self/mounts",
    "system/os-release.txt": "etc/os-release",
    "disks/mdstat.txt": "proc/mdstat",
}
#: Where a medium has its job, and the files with passphrases that the job names.
_MEDIUM_FOLDER = "run/live/medium/liferaft"
_PASSPHRASES = "*.passphrase"
#: The site's Wi-Fi (builder/site/network.py), and the keys in it; some are a passphrase's bytes as digits.
_WIFI = "etc/wpa_supplicant/liferaft.conf"
_WIFI_KEY = re.compile(r'^\s*(?:psk|sae_password)="?(?P<key>.*?)"?$', re.MULTILINE)
_DIGITS = re.compile(r"(?:[0-9a-f]{2}){8,63}")


class _Named(msgspec.Struct, frozen=True):
    """Of a job only the names of its passphrases' files."""

    passphrase_file: str = ""
    luks_passphrase_file: str = ""


class SupportPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file of the bundle, or one that it lacks.

    Attributes:
        path: in the bundle.
        source: the command, the file, or what of liferaft made it.
        size: bytes in the bundle.
        note: why it is missing or not whole.
    """

    path: str
    source: str
    size: int = 0
    note: str = ""


class SupportContents(msgspec.Struct, frozen=True, kw_only=True):
    """``contents.json``: what is in the bundle and what could not be had."""

    version: int = SUPPORT_VERSION
    liferaft: str
    made: datetime.datetime
    kernel: str
    parts: tuple[SupportPart, ...]

    @property
    def missing(self) -> tuple[SupportPart, ...]:
        """The parts that could not be had."""
        return tuple(part for part in self.parts if part.note and not part.size)


def bundle_path(out: Path, now: datetime.datetime) -> Path:
    """``out`` itself, or a name with the time in it when ``out`` is a folder.

    Raises:
        UsageError: the folder for it does not exist, or it is a device.
    """
    if out.is_dir():
        return out / f"liferaft-support-{now:%Y%m%dT%H%M%SZ}.zip"
    if out.exists() and not out.is_file():
        raise UsageError(f"{out} is not a plain file.", hint="Name a file, or the folder where a stick is mounted.")
    if not out.parent.is_dir():
        raise UsageError(f"The folder {out.parent} does not exist.", hint="Mount the stick first: mount /dev/sdX1 /mnt")
    return out


def save_support_bundle(out: Path, runner: Runner, sink: Sink, *, root: Path = Path("/")) -> SupportContents:
    """Write the bundle to ``out``, a file that is made or replaced whole.

    Args:
        root: the system's root, whose ``/proc``, ``/etc`` and ``/run`` are read.

    Raises:
        DeviceError: ``out`` cannot be written.
    """
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    known = known_secrets(root)
    parts: list[SupportPart] = []
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
        for part, text in _collect(runner, sink, root):
            content, cut = _bounded(redact(text, known))
            note = redact(part.note or cut, known)
            parts.append(msgspec.structs.replace(part, size=len(content), note=note))
            if content:
                bundle.writestr(_entry(part.path, now), content)
        contents = SupportContents(liferaft=tool_name(), made=now, kernel=platform.release(), parts=tuple(parts))
        bundle.writestr(_entry("contents.json", now), encode_readable(contents))
    try:
        write_atomically(out, packed.getvalue())
    except OSError as error:
        raise DeviceError(
            f"{out} cannot be written: {error.strerror}.", hint=f"It needs {len(packed.getvalue())} bytes of space."
        ) from None
    sink(Event(stage=Stage.DONE, message=f"{out} is ready"))
    return contents


def known_secrets(root: Path) -> tuple[str, ...]:
    """Values that are secret whatever they look like: the passphrases on the medium, and the keys of its Wi-Fi."""
    folder = root / _MEDIUM_FOLDER
    found = []
    for path in sorted({*folder.glob(_PASSPHRASES), *_named_by_job(folder, root)}):
        text = _beginning(path, _SECRET_LIMIT)
        found += [line for line in text.splitlines() if line.strip()]
    for match in _WIFI_KEY.finditer(_beginning(root / _WIFI, MIB)):
        found.append(match["key"])
        if _DIGITS.fullmatch(match["key"]):
            # As builder/site/network.py writes a passphrase with quotes; other digits stand for no text.
            found.append(bytes.fromhex(match["key"]).decode(errors="replace"))
    return tuple(found)


def _named_by_job(folder: Path, root: Path) -> Iterator[Path]:
    """The files with passphrases of the medium's job, however they are called."""
    try:
        job = msgspec.json.decode(_beginning(folder / "job.json", MIB), type=_Named)
    except (msgspec.DecodeError, RecursionError):
        return
    for name in (job.passphrase_file, job.luks_passphrase_file):
        if name and "://" not in name and "\0" not in name:
            yield root / name.lstrip("/") if name.startswith("/") else folder / name


def _collect(runner: Runner, sink: Sink, root: Path) -> Iterator[tuple[SupportPart, str]]:
    """Every part with its text, still with its secrets."""
    _tell(sink, "Looking at this machine")
    yield _machine(runner, root)
    for path, argv in _COMMANDS.items():
        _tell(sink, f"Asking {argv[0]}")
        yield _command(path, argv, runner, _COMMAND_SECONDS)
    for node in _disk_nodes(runner):
        _tell(sink, f"Asking {node} for its SMART data")
        # The exit code is a set of bits about the disk's health, and the document says the same (smartctl(8)).
        argv = ("smartctl", "--json", "--xall", node)
        yield _command(f"disks/smart-{Path(node).name}.json", argv, runner, _DISK_SECONDS, frozenset(range(256)))
    for path, name in _FILES.items():
        yield _file(path, root / name)
    for record in sorted((root / RECORDS.relative_to("/")).glob("*.json")):
        yield _file(f"liferaft/records/{record.name}", record)


def _machine(runner: Runner, root: Path) -> tuple[SupportPart, str]:
    part = SupportPart(path="machine.json", source="liferaft probe --json")
    try:
        return part, encode_readable(probe_machine(runner, root=root))
    except LiferaftError as error:
        return msgspec.structs.replace(part, note=error.message), ""


def _disk_nodes(runner: Runner) -> list[str]:
    try:
        return [device.name for device in block_devices(runner) if device.type == "disk" and device.size > 0]
    except LiferaftError:
        # lsblk's own part of the bundle says why.
        return []


def _command(
    path: str, argv: tuple[str, ...], runner: Runner, seconds: float, success: frozenset[int] = frozenset({0})
) -> tuple[SupportPart, str]:
    part = SupportPart(path=path, source=" ".join(argv))
    try:
        return part, runner.run(argv, timeout=seconds, success=success).stdout
    except ProcessError as error:
        return msgspec.structs.replace(part, note=error.message), error.output
    except LiferaftError as error:
        return msgspec.structs.replace(part, note=error.message), ""


def _file(path: str, source: Path) -> tuple[SupportPart, str]:
    part = SupportPart(path=path, source=str(source))
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            return msgspec.structs.replace(part, note="It is not a plain file."), ""
        with source.open("rb") as stream:
            return part, stream.read(PART_LIMIT + 1).decode(errors="replace")
    except OSError as error:
        return msgspec.structs.replace(part, note=f"It cannot be read: {error.strerror}."), ""


def _beginning(path: Path, size: int) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(size).decode(errors="replace")
    except OSError:
        return ""


def _bounded(text: str) -> tuple[bytes, str]:
    """At most the limit of bytes, the last ones; and a note when there were more."""
    content = text.encode(errors="replace")
    if len(content) <= PART_LIMIT:
        return content, ""
    return content[-PART_LIMIT:], f"Of {len(content)} bytes the last {PART_LIMIT} were kept."


def _entry(path: str, now: datetime.datetime) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, now.timetuple()[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


def _tell(sink: Sink, message: str) -> None:
    sink(Event(stage=Stage.PROBE, message=message))
