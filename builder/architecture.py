"""The processors that media are made for, and the names by which everybody else knows them.

Facts only: what a medium for each has and has not. Whether this machine can build one is ``foreign``'s to say.
"""

import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

#: The option of a line of a sources.list that names the architecture (sources.list(5)).
_OPTION = re.compile(r"^deb \[[^]]*\barch=([a-z0-9]+)")


class Architecture(StrEnum):
    """Debian's names of the processors that a medium can start on."""

    AMD64 = "amd64"
    ARM64 = "arm64"


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What differs.

    Attributes:
        machine: the kernel's name (``uname -m``), which wheels carry too.
        triplet: the folder of its libraries below ``/usr/lib``.
        efi: the letters in the names of its programs for UEFI (UEFI 2.10, 3.5.1.1).
        grub: what GRUB calls it under UEFI.
        serial: its serial ports that people connect to; the last one is ``/dev/console``.
        second_serial: the port that an entry of the boot menu adds; empty for none.
        bios: it has BIOS machines too.
        clients: numbers by which its firmware asks DHCP for something to start over TFTP (IANA, "Processor Architecture
            Types" of RFC 5970). http_client: the same over HTTP.
        compiled: Python packages that PyPI has no wheels of for it.
        glibc: minor versions of manylinux tags that its wheels are published under, newest first.
    """

    machine: str
    triplet: str
    efi: str
    grub: str
    serial: tuple[str, ...]
    second_serial: str = ""
    bios: bool = False
    clients: tuple[int, ...]
    http_client: int
    compiled: frozenset[str] = frozenset()
    glibc: tuple[int, ...] = (28, 17)

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platform tags of wheels that run on it (PEP 600), what is compiled in the build system last."""
        newer = tuple(f"manylinux_2_{minor}_{self.machine}" for minor in self.glibc)
        return (*newer, f"manylinux2014_{self.machine}", f"linux_{self.machine}")


_TRAITS = {
    Architecture.AMD64: Traits(
        machine="x86_64",
        triplet="x86_64-linux-gnu",
        efi="x64",
        grub="x86_64-efi",
        serial=("ttyS0",),
        second_serial="ttyS1",
        bios=True,
        clients=(7, 9),
        http_client=16,
    ),
    # Servers by Arm's own rules (SBSA) and virtual machines have a PL011, ttyAMA0; others a 16550, ttyS0.
    Architecture.ARM64: Traits(
        machine="aarch64",
        triplet="aarch64-linux-gnu",
        efi="aa64",
        grub="arm64-efi",
        serial=("ttyS0", "ttyAMA0"),
        clients=(11,),
        http_client=19,
        compiled=frozenset({"zfec"}),
        glibc=(28, 24, 17),
    ),
}


def traits_of(architecture: Architecture) -> Traits:
    """What a medium for ``architecture`` has."""
    return _TRAITS[architecture]


def architecture_of(sources: Iterable[str]) -> Architecture:
    """The architecture that lines of a sources.list are read for: what their option says, amd64 without one."""
    for line in sources:
        if match := _OPTION.match(line):
            return Architecture(match[1])
    return Architecture.AMD64


def key_part(architecture: Architecture) -> tuple[str, ...]:
    """What names it in a cache key; nothing for amd64, which needs no name."""
    return () if architecture is Architecture.AMD64 else (architecture,)
