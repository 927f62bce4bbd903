"""What a system's ``/etc/crypttab`` calls its encrypted containers, and that they are called so while its tools run.

Debian's hook takes a container into the initramfs only when it is open under that very name (cryptsetup-initramfs,
hooks/cryptroot): one that is made with another name open does not ask for the passphrase, and the system does not
start. liferaft knows the name of a container that was open when it was captured, and of no other.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from core.process import Runner
from core.stopping import lasting
from images.crypttab import CrypttabLine, parse_crypttab
from images.fstab import Tag, named
from images.model.filesystem import FilesystemKind, MemberKind
from restore.boot.held import Held, HeldPartition
from restore.boot.mounts import Root, mount_held, mount_point
from restore.boot.within import folder_within
from restore.stack.mountable import OpenedLuks, StackDevice

#: Keys that are never the same twice: for swap (crypttab(5), "key file").
_RANDOM = frozenset({"/dev/urandom", "/dev/random", "/dev/hwrng"})
#: What swap with such a key looks like when it is off.
_SPARE = frozenset({(FilesystemKind.SWAP, ""), (FilesystemKind.SWAP, "swap"), (FilesystemKind.UNKNOWN, "")})
#: What device-mapper takes as a name without writing it in another way (libdm-common.c, _is_whitelisted_char).
_NAME = re.compile(r"[A-Za-z0-9#+.:=@_][A-Za-z0-9#+\-.:=@_]{0,126}")
#: In ``ls -l`` of an initramfs of initramfs-tools: mode, links, owner, group, bytes, time, path.
_COPY = re.compile(r"^-\S+ +\d+ +\S+ +\S+ +([1-9]\d*) .* cryptroot/crypttab$", re.MULTILINE)


def _lines_of(root: Path) -> tuple[CrypttabLine, ...] | None:
    """The crypttab of the system that is mounted at ``root``; None when it has none."""
    path = folder_within(root, "etc/crypttab")
    return parse_crypttab(path.read_text(errors="replace")) if path is not None and path.is_file() else None


def opens_something(listing: str) -> bool:
    """Whether an initramfs, as ``lsinitramfs -l`` lists it, has a crypttab that is not empty."""
    return bool(_COPY.search(listing))


def erased_at_start(root: Path, nodes: Mapping[str, Held]) -> tuple[str, ...]:
    """What the system would make anew with a random key at its start, and so erase, though it is not swap; lines.

    A path like /dev/sda2 is whatever has that name on this machine.

    Args:
        root: the mounted system. nodes: the partitions and devices of the restored disks.
    """
    found: list[str] = []
    for line in _lines_of(root) or ():
        if line.key not in _RANDOM or named(line.spec)[0] is not Tag.DEVICE or not Path(line.spec).exists():
            continue
        place = Path(line.spec).resolve()
        held = next((held for node, held in nodes.items() if Path(node).resolve() == place), None)
        filesystem = held.filesystem if held else None
        known = filesystem is not None and (filesystem.kind, filesystem.detail) not in _SPARE
        if held is None or known:
            what = f"holds {filesystem.detail or filesystem.kind}" if filesystem else "is not on the restored disks"
            found.append(
                f"the system's crypttab has {line.name} made anew on {line.spec} at every start, which erases it, and "
                f"here {line.spec} {what}: change that line before the system starts"
            )
    return tuple(found)


def sealed(nodes: Mapping[str, Held], opened: Sequence[OpenedLuks]) -> str:
    """For people: why a system may not have been found, in LUKS that nobody has opened; empty when there is none."""
    known = {one.luks.device for one in opened}
    closed = [
        held for held in nodes.values() if held.filesystem is not None and held.filesystem.detail == MemberKind.LUKS
    ]
    names = [name for device, name in map(_device, closed) if device not in known]
    return f" ({', '.join(names)}: encrypted, and captured without a key)" if names else ""


def _device(held: Held) -> tuple[str, str]:
    """Its id in the layout, and what people call it."""
    if isinstance(held, HeldPartition):
        return held.partition.id, f"partition {held.partition.number}"
    return held.id, held.id


@contextlib.contextmanager
def named_by_crypttab(
    found: Root,
    nodes: Mapping[str, Held],
    opened: Sequence[OpenedLuks],
    runner: Runner,
    tell: Callable[[str], None],
    mapper: Path = Path("/dev/mapper"),
) -> Iterator[tuple[Root, Mapping[str, Held]]]:
    """The root and the nodes, with the open containers called as the system calls them until the block ends.

    Args:
        found: the root; nothing of the system is mounted yet.
        tell: is told of those that keep their name though the system has another one.

    Raises:
        ProcessError: device-mapper did not take a name, or did not give it back.
    """
    with contextlib.ExitStack() as stack:
        now: dict[str, str] = {}
        for one, name in _names(found, nodes, opened, runner, tell) if opened else ():
            old = Path(one.node).name
            if name == old:
                continue
            if not _NAME.fullmatch(name) or not name.strip(".") or (mapper / name).exists():
                why = "this machine has another one" if (mapper / name).exists() else "it cannot be"
                tell(f"The system calls its LUKS container {one.luks.uuid} {name!r}, and here {why} of that name")
                continue
            stack.enter_context(_called(old, name, runner))
            now[one.node] = str(mapper / name)
        here = {now.get(node, node): _answering(held, now.get(node)) for node, held in nodes.items()}
        yield Root(now.get(found.node, found.node), found.subvolume), here


def _names(
    found: Root, nodes: Mapping[str, Held], opened: Sequence[OpenedLuks], runner: Runner, tell: Callable[[str], None]
) -> list[tuple[OpenedLuks, str]]:
    """The open containers with the names that the system's crypttab gives them."""
    with mount_point("liferaft-look-") as folder:
        options = ("--options", ",".join(("ro", *found.words[1:])))
        with mount_held(found.node, nodes[found.node], folder, runner, *options):
            lines = _lines_of(folder)
    if lines is None:
        return []
    names: list[tuple[OpenedLuks, str]] = []
    for one in opened:
        meant = [line for line in lines if _means(line, one, nodes)]
        if meant:
            names.append((one, meant[0].name))
        else:
            tell(f"No line of the system's crypttab names the LUKS container {one.luks.uuid}")
    return names


def _means(line: CrypttabLine, one: OpenedLuks, nodes: Mapping[str, Held]) -> bool:
    tag, value = named(line.spec)
    if tag is Tag.UUID:
        return one.luks.uuid.lower() == value.lower()
    if tag is Tag.LABEL:
        return bool(value) and one.luks.label == value
    if tag is Tag.DEVICE:
        return Path(value).resolve() == Path(one.device).resolve()
    partitions = (held for held in nodes.values() if isinstance(held, HeldPartition))
    below = next((held for held in partitions if held.partition.id == one.luks.device), None)
    if below is None or not value:
        return False
    if tag is Tag.PARTLABEL:
        return below.partition.name == value
    return tag is Tag.PARTUUID and below.partuuid.lower() == value.lower()


def _answering(held: Held, node: str | None) -> Held:
    """A device that answers to its other name, too."""
    if node is None or not isinstance(held, StackDevice):
        return held
    return msgspec.structs.replace(held, names=(*held.names, node))


@contextlib.contextmanager
def _called(old: str, new: str, runner: Runner) -> Iterator[None]:
    """A mapping has another name in the block."""
    with lasting(partial(_rename, old, new, runner), lambda _: _rename(new, old, runner)):
        yield


def _rename(old: str, new: str, runner: Runner) -> None:
    """A mapping gets another name, whoever uses it; udev moves its node."""
    runner.run(["dmsetup", "rename", old, new], timeout=120)
    runner.run(["udevadm", "settle", "--timeout=30"], success=frozenset({0, 1}), timeout=60)
