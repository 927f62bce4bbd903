"""Finding repositories on the disks of this machine, for someone who plugged one in and knows no path.

Every filesystem that can be mounted without being changed is mounted read-only, looked at, and let go
again when it holds no repository. What stays mounted is guarded by that: a mounted disk is never a target
(DESIGN §3.3). It is not a watcher of hot-plug events: looking again is the person's choice.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from builder.site.document import SITE_DOCUMENT, SiteRepository, read_site
from core.errors import LiferaftError
from core.process import Runner
from core.stopping import undisturbed
from core.units import counted, format_size
from images.model.filesystem import MemberKind
from images.probe import MEDIUM_LABEL, BlockDevice, block_devices, is_removable
from images.store.connect import open_repository
from images.store.document import DOCUMENT
from images.store.passphrase import PassphraseNeededError

#: Where filesystems are mounted: below it one folder for each process, because two consoles run two wizards.
PLACE = Path("/run/liferaft")
#: How deep below a mount point a repository is looked for, in folders.
DEPTH = 3
#: Entries looked at on one filesystem before the search gives up there.
ENTRIES = 20_000

_COMMON = "ro,nosuid,nodev,noexec"
#: Filesystem -> mount options under which the kernel does not even replay a journal (mount(8), ntfs-3g(8)).
_OPTIONS = {
    "ext2": _COMMON,
    "ext3": f"{_COMMON},noload",
    "ext4": f"{_COMMON},noload",
    "xfs": f"{_COMMON},norecovery,nouuid",
    "btrfs": f"{_COMMON},rescue=nologreplay",
    "f2fs": f"{_COMMON},norecovery",
    "ntfs": f"{_COMMON},norecover",
    "vfat": _COMMON,
    "exfat": _COMMON,
    "iso9660": _COMMON,
    "udf": _COMMON,
}
#: What may hold a filesystem but is not opened for the person.
_CLOSED: dict[str, str] = {
    MemberKind.LUKS: "is encrypted",
    MemberKind.LVM: "belongs to LVM",
    MemberKind.MD: "belongs to a RAID",
}


class FoundRepository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository on an attached disk.

    Attributes:
        path: its folder, as it is mounted now.
        device: the node of the filesystem it lies on; partition: its name in a GPT, empty where it has none.
        node: of the whole disk; disk: that disk's model and size, for people.
        points: its recovery points; 0 when it is encrypted, and so not opened yet.
        encrypted: whether it needs a passphrase.
        problem: why it cannot be used; empty when it can.
    """

    path: str
    device: str
    disk: str
    points: int
    node: str = ""
    partition: str = ""
    encrypted: bool = False
    problem: str = ""

    @property
    def shown(self) -> str:
        """What would be lost with its disk, in a few words."""
        if self.encrypted:
            return "an encrypted repository"
        count = counted(self.points, "recovery point")
        return "a repository that cannot be read" if self.problem else f"a repository with {count}"


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found, and a sentence for each place it could not look into; what the site offers beside it."""

    repositories: tuple[FoundRepository, ...]
    notes: tuple[str, ...]
    offered: tuple[SiteRepository, ...] = ()


class AttachedRepositories:
    """Searches, and keeps mounted what was found until it is let go. Safe from several threads.

    Args:
        place: where mount points are made.
        site: the document of the site whose medium this is.

    Attributes:
        known: what the last search found, whether it is mounted still or not.
    """

    def __init__(self, runner: Runner, *, place: Path = PLACE, site: Path = SITE_DOCUMENT) -> None:
        self._runner = runner
        self._site = site
        self._place = place
        self._own = place / str(os.getpid())
        self._mounted: list[Path] = []
        self.known: tuple[FoundRepository, ...] = ()
        self._lock = threading.Lock()

    def find(self) -> Findings:
        """Look at every filesystem. Earlier finds are let go first.

        Raises:
            ProcessError, MissingToolError: lsblk does not answer.
        """
        with self._lock:
            notes = self._let_go(None)
            notes += self._clear_stale(block_devices(self._runner))
            found: dict[tuple[int, int], FoundRepository] = {}
            devices = block_devices(self._runner)
            notes += _closed_containers(devices)
            for repository in self._search_all(devices, notes):
                status = os.stat(repository.path)  # noqa: PTH116 - only the identity of the folder
                found.setdefault((status.st_dev, status.st_ino), repository)
            offered: tuple[SiteRepository, ...] = ()
            try:
                offered = read_site(self._site).repositories
            except LiferaftError as error:
                notes.append(error.message)
            self.known = tuple(found.values())
            return Findings(repositories=self.known, notes=tuple(notes), offered=offered)

    def on_removable(self, location: str) -> tuple[FoundRepository, ...]:
        """The repositories on the disks that can be taken out: what would be lost if one of them were written. Only
        what holds the chosen repository is mounted afterwards, as after :meth:`keep`.

        Raises:
            ProcessError, MissingToolError: lsblk does not answer.
        """
        chosen = _folder_of(location)
        with self._lock:
            self._let_go(chosen)
            disks = tuple(disk for disk in block_devices(self._runner) if is_removable(disk))
            # What cannot be looked into is for whoever looks for a repository to read.
            found = tuple(self._search_all(disks, []))
            self._let_go(chosen)
            return found

    def keep(self, location: str) -> None:
        """Let go of everything but the filesystem that holds the chosen repository (a path, or a URL for none)."""
        with self._lock:
            self._let_go(_folder_of(location))

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._let_go(None)
            with contextlib.suppress(OSError):
                self._own.rmdir()

    def _search_all(self, disks: tuple[BlockDevice, ...], notes: list[str]) -> Iterator[FoundRepository]:
        for disk, device in _filesystems(disks):
            yield from self._look(disk, device, notes)

    def _look(self, disk: BlockDevice, device: BlockDevice, notes: list[str]) -> list[FoundRepository]:
        """The repositories on one filesystem; it stays mounted when there are some."""
        places = [Path(place) for place in device.mountpoints if place and Path(place).is_dir()]
        mounted = None
        if not any(device.mountpoints):
            mounted = self._mount(device, notes)
            places = [mounted] if mounted else []
        found = [
            _describe(path, device, disk)
            for place in places
            for path in _search(place, f"{device.name} on {place}", notes)
        ]
        if mounted is not None and not found:
            self._unmount(mounted, notes)
        return found

    def _mount(self, device: BlockDevice, notes: list[str]) -> Path | None:
        place = self._own / device.name.removeprefix("/dev/").replace("/", "-")
        try:
            place.mkdir(parents=True, exist_ok=True)
            kind = device.fstype or ""
            # Neither this nor its end is cut in two: what is mounted is known.
            with undisturbed():
                self._runner.run(["mount", "-t", kind, "-o", _OPTIONS[kind], device.name, str(place)], timeout=60)
                self._mounted.append(place)
        except OSError as error:
            notes.append(f"{device.name} was not looked at: {place} cannot be made ({error.strerror}).")
            return None
        except LiferaftError as error:
            notes.append(f"{device.name} ({device.fstype}) could not be mounted: {error.message}")
            with contextlib.suppress(OSError):
                place.rmdir()
            return None
        return place

    def _unmount(self, place: Path, notes: list[str]) -> None:
        try:
            with undisturbed():
                self._runner.run(["umount", str(place)], timeout=60)
        except LiferaftError as error:
            notes.append(f"{place} stays mounted: {error.message}")
            return
        if place in self._mounted:
            self._mounted.remove(place)
        with contextlib.suppress(OSError):
            place.rmdir()

    def _let_go(self, chosen: Path | None) -> list[str]:
        notes: list[str] = []
        for place in list(self._mounted):
            if chosen is None or (chosen != place and place not in chosen.parents):
                self._unmount(place, notes)
        return notes

    def _clear_stale(self, devices: tuple[BlockDevice, ...]) -> list[str]:
        """Unmount what a wizard that is no longer running has left behind."""
        notes: list[str] = []
        for disk in devices:
            for _, text in disk.mounts():
                place = Path(text)
                if self._place in place.parents and not _runs(place.relative_to(self._place).parts[0]):
                    self._unmount(place, notes)
        return notes


def _filesystems(devices: tuple[BlockDevice, ...]) -> Iterator[tuple[BlockDevice, BlockDevice]]:
    """Disk and filesystem, of those that can be looked at; containers are passed with what is on them."""
    seen: set[str] = set()
    for disk in devices:
        for device in disk.descendants():
            mountable = device.fstype in _OPTIONS and not device.children
            if (mountable or any(device.mountpoints)) and not _is_medium(device) and device.name not in seen:
                seen.add(device.name)
                yield disk, device


def _is_medium(device: BlockDevice) -> bool:
    """Whether it is the rescue medium itself, or the system image that lies on it."""
    return device.fstype == "squashfs" or (device.fstype == "iso9660" and (device.label or "").startswith(MEDIUM_LABEL))


def _closed_containers(devices: tuple[BlockDevice, ...]) -> Iterator[str]:
    """A sentence for each container that holds something which was not looked at."""
    for disk in devices:
        for device in disk.descendants():
            if device.fstype in _CLOSED and not device.children:
                yield f"{device.name} {_CLOSED[device.fstype]} and was not looked into."


def _search(place: Path, name: str, notes: list[str]) -> Iterator[Path]:
    """Folders with a repository's document, at most DEPTH below ``place``, on that filesystem only."""
    waiting = [(place, 0)]
    device = place.stat().st_dev
    left = ENTRIES
    unreadable = 0
    while waiting and left > 0:
        folder, depth = waiting.pop(0)
        try:
            with os.scandir(folder) as listing:
                entries = [entry for entry, _ in zip(listing, range(left), strict=False)]
            left -= len(entries)
            if any(entry.name == DOCUMENT and entry.is_file(follow_symlinks=False) for entry in entries):
                yield folder
                continue
            if depth < DEPTH:
                waiting += [(Path(entry.path), depth + 1) for entry in entries if _is_inside(entry, device)]
        except OSError:
            unreadable += 1
    if unreadable:
        notes.append(f"{name}: {unreadable} folders could not be read.")
    if left <= 0:
        notes.append(f"{name}: not searched to the end; type the path of a repository there.")


def _is_inside(entry: "os.DirEntry[str]", device: int) -> bool:
    return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == device


def _describe(path: Path, device: BlockDevice, disk: BlockDevice) -> FoundRepository:
    points, encrypted, problem = 0, False, ""
    try:
        points = len(open_repository(str(path)).points())
    except PassphraseNeededError:
        encrypted = True
    except LiferaftError as error:
        problem = error.message
    name = " ".join(word for word in ((disk.model or "").strip(), format_size(disk.size)) if word)
    return FoundRepository(
        path=str(path),
        device=device.name,
        disk=name,
        points=points,
        node=disk.name,
        partition=device.partlabel or "",
        encrypted=encrypted,
        problem=problem,
    )


def _folder_of(location: str) -> Path:
    return Path(location.removeprefix("file://").removeprefix("file:"))


def _runs(process: str) -> bool:
    return process.isdigit() and Path("/proc", process).exists()
