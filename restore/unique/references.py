"""References: the places of an installed Linux where identities of disks and filesystems are written down.

Old and new identities have the same length, so that a file keeps its size and every other byte its place; files are
taken as bytes. What is rewritten is searched again: an old identity that is still there is reported with its path.
"""

import contextlib
import re
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from restore.unique.renewal import Renewal, Sort

#: Files of an EFI system partition that name filesystems, as patterns below its top.
ESP_PLACES = ("EFI/*/*.cfg", "EFI/*/grubenv", "loader/entries/*.conf")
#: Files that name filesystems, as patterns below the root of the system with /boot and /boot/efi mounted in it.
PLACES = (
    "etc/fstab",
    "etc/crypttab",
    "etc/default/grub",
    "etc/default/grub.d/*",
    "etc/grub.d/*",
    "etc/kernel/cmdline",
    "etc/initramfs-tools/conf.d/*",
    "etc/initramfs-tools/initramfs.conf",
    "etc/dracut.conf.d/*",
    "etc/lvm/devices/system.devices",
    # What LVM keeps of them from before.
    "etc/lvm/devices/backup/*",
    "etc/lvm/backup/*",
    "etc/lvm/archive/*",
    "etc/mdadm.conf",
    "etc/mdadm/mdadm.conf",
    "etc/systemd/system/*",
    "etc/systemd/system/*/*",
    "etc/udev/rules.d/*",
    "boot/grub/*.cfg",
    "boot/grub/grubenv",
    "boot/grub2/*.cfg",
    "boot/grub2/grubenv",
    "boot/extlinux/extlinux.conf",
    "boot/syslinux/syslinux.cfg",
    # The ESP is mounted at one of three places (systemd's "Boot Loader Specification").
    *(f"{folder}/{pattern}" for folder in ("boot", "boot/efi", "efi") for pattern in ESP_PLACES),
)
#: A dash of a UUID in the name of a unit.
_DASH = r"\x2d"
#: Whose identities are written without dashes and colons, too: by device-mapper (dm-uuid-CRYPT-, dm-uuid-LVM-), by GRUB
#: (mduuid/, cryptouuid/) and in LVM's list of devices.
_BARE = (Sort.ARRAY, Sort.LUKS, Sort.LVM)
#: Nothing of this kind is larger; what is, is no such file.
_LIMIT = 4 << 20
#: Letters and digits of a UUID.
_LONG = 32


def rewrite(content: bytes, renewals: Iterable[Renewal]) -> bytes:
    """The content with each old identity replaced, in the letters' case it is written in; no other byte changes."""
    for renewal in renewals:
        content = _pattern(renewal).sub(partial(_cased, renewal.new), content)
        if "-" in renewal.old:
            content = _escaped_pattern(renewal).sub(partial(_cased_escaped, renewal.new), content)
        if renewal.sort in _BARE:
            content = _bare_pattern(renewal).sub(partial(_cased, _bare(renewal.new)), content)
        if renewal.sort is Sort.ARRAY:
            dashed = re.compile(re.escape(_dashed(renewal.old).encode()), re.IGNORECASE)
            content = dashed.sub(partial(_cased, _dashed(renewal.new)), content)
    return content


def still_old(content: bytes, renewals: Iterable[Renewal]) -> tuple[Renewal, ...]:
    """The renewals whose old identity is in the content; long ones as a part of a longer word, too."""
    return tuple(renewal for renewal in renewals if _names_old(content, renewal))


def _names_old(content: bytes, renewal: Renewal) -> bool:
    if _long(renewal):
        spellings = [renewal.old, renewal.old.replace("-", _DASH)]
        spellings += [_bare(renewal.old)] if renewal.sort in _BARE else []
        spellings += [_dashed(renewal.old)] if renewal.sort is Sort.ARRAY else []
        return any(spelling.lower().encode() in content.lower() for spelling in spellings)
    return bool(_pattern(renewal).search(content) or ("-" in renewal.old and _escaped_pattern(renewal).search(content)))


def rewrite_places(root: Path, renewals: Sequence[Renewal], places: Sequence[str] = PLACES) -> tuple[str, ...]:
    """Rewrite every file of ``places`` below ``root`` that names an old identity. Gives their paths.

    One that does not take it (its filesystem is full, or read-only) keeps the others from nothing:
    :func:`places_still_old` tells of it.
    """
    wanted = searched(renewals)
    done = []
    for path, content in _files(root, places):
        changed = rewrite(content, wanted)
        if changed != content:
            with contextlib.suppress(OSError):
                _replace(path, changed)
                done.append(f"/{path.relative_to(root)}")
    return tuple(done)


def places_still_old(root: Path, renewals: Sequence[Renewal], places: Sequence[str] = PLACES) -> tuple[str, ...]:
    """Files of ``places`` that still name an old identity, in content or in their name, a line each."""
    wanted = searched(renewals)
    found = []
    for path, content in _files(root, places):
        shown = f"/{path.relative_to(root)}"
        found += [f"{shown} still names {renewal.old}" for renewal in still_old(content, wanted)]
        name = path.name.replace(_DASH, "-").lower()
        found += [
            f"the name of {shown} still has {old}" for old in (each.old for each in wanted) if old.lower() in name
        ]
    return tuple(dict.fromkeys(found))


def searched(renewals: Iterable[Renewal]) -> tuple[Renewal, ...]:
    """Those whose old identity can be searched: the machine's is not known, eight digits alone could be anything."""
    return tuple(
        renewal
        for renewal in renewals
        if renewal.sort in (Sort.FILESYSTEM, Sort.PARTITION, *_BARE)
        or (renewal.sort is Sort.TABLE and "-" in renewal.old)
    )


def _bare(identity: str) -> str:
    return identity.replace("-", "").replace(":", "")


def _dashed(identity: str) -> str:
    """An array's UUID as the kernel writes it (md/uuid in sysfs), and LVM's list of devices after it."""
    return str(uuid.UUID(_bare(identity)))


def _bare_pattern(renewal: Renewal) -> re.Pattern[bytes]:
    # 32 of them are nothing else by chance, and stand behind one another: dm-uuid-LVM- and the group's, the volume's.
    return re.compile(re.escape(_bare(renewal.old).encode()), re.IGNORECASE)


def _pattern(renewal: Renewal) -> re.Pattern[bytes]:
    # Not as a part of something longer: 1234-ABCD may be the middle of another UUID.
    before, after = _bounds(renewal, rb"[0-9A-Za-z-]")
    return re.compile(before + re.escape(renewal.old.encode()) + after, re.IGNORECASE)


def _escaped_pattern(renewal: Renewal) -> re.Pattern[bytes]:
    # As units name devices (systemd.unit(5), "String Escaping for Inclusion in Unit Names"): a dash stands for a slash.
    before, after = _bounds(renewal, rb"[0-9A-Za-z]")
    if not _long(renewal):
        before, after = before + rb"(?<!\\x2d)", rb"(?![0-9A-Za-z]|\\x2d)"
    old = re.escape(renewal.old.replace("-", _DASH).encode())
    return re.compile(before + old + after, re.IGNORECASE)


def _bounds(renewal: Renewal, others: bytes) -> tuple[bytes, bytes]:
    """What may not stand before and behind an old identity, as patterns; ``others``: for the short ones.

    Long ones stand behind words of any kind, with a dash between: md-uuid-, lvm-pv-uuid- (udev's
    63-md-raid-arrays.rules, 69-lvm.rules), a mapping's name (crypttab(5)), an entry of GRUB's menu, which grubenv may
    name (gnulinux-simple-, grub-mkconfig's 10_linux); and before -part1.
    """
    if not _long(renewal):
        return rb"(?<!" + others + rb")", rb"(?!" + others + rb")"
    letters = rb"[0-9A-Za-z]" if renewal.sort is Sort.LVM else rb"[0-9A-Fa-f]"
    # The last letter of an escaped dash is a digit, too.
    return rb"(?:(?<!" + letters + rb")|(?<=\\x2d))", rb"(?!" + letters + rb")"


def _long(renewal: Renewal) -> bool:
    """Whether no other identity can have it as a part by chance: 32 digits and more."""
    return len(_bare(renewal.old)) >= _LONG


def _cased_escaped(new: str, match: re.Match[bytes]) -> bytes:
    return _in_case(new, match.group().replace(_DASH.encode(), b"-")).replace(b"-", _DASH.encode())


def _cased(new: str, match: re.Match[bytes]) -> bytes:
    return _in_case(new, match.group())


def _in_case(new: str, found: bytes) -> bytes:
    if found.lower() == found:
        return new.lower().encode()
    return new.upper().encode() if found.upper() == found else new.encode()


def _files(root: Path, places: Sequence[str]) -> Iterator[tuple[Path, bytes]]:
    """Ordinary files of the places, each once; symbolic links lead to what is listed itself, or out of the root."""
    seen = set()
    for pattern in places:
        for path in sorted(root.glob(pattern)):
            if path in seen or _outside(root, path):
                continue
            seen.add(path)
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode) and 0 < facts.st_size <= _LIMIT:
                yield path, path.read_bytes()


def _outside(root: Path, path: Path) -> bool:
    """Whether a folder on the way is a link that leads out of the system."""
    return not path.parent.resolve().is_relative_to(root.resolve())


def _replace(path: Path, content: bytes) -> None:
    """The new content in the old file: same owner, mode and attributes; FAT and read-only bind mounts know no rename.

    GRUB finds its environment block by the sectors it lies in, so the file must stay where it is.
    """
    with path.open("r+b") as stream:
        stream.write(content)
        stream.truncate()
