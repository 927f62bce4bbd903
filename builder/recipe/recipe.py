"""The recipe: what a person says about the medium they want (docs/recipe.md).

Facts only; ``recipe_file`` reads them from TOML, ``recipe_check`` refuses values that cannot be, ``site`` opens the
files that they name.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

from builder.architecture import Architecture
from builder.recipe.network import Network

#: What the base of a medium with Wi-Fi has beside that of others: the tool and the rules of each country.
_WIFI_PACKAGES = ("iw", "wireless-regdb")
#: Firmware of the wireless cards that laptops and servers have.
_WIFI_FIRMWARE = (
    "firmware-atheros",
    "firmware-brcm80211",
    "firmware-iwlwifi",
    "firmware-mediatek",
    "firmware-realtek",
)


class Release(StrEnum):
    """Debian releases that a medium can be made of."""

    TRIXIE = "trixie"


class Compression(StrEnum):
    """How hard the squashfs is packed: ``fast`` for trying out, ``small`` for the medium."""

    FAST = "fast"
    SMALL = "small"


class KernelFlavour(StrEnum):
    """Which of Debian's kernels: all drivers, those of virtual machines, or the newest of backports."""

    STOCK = "stock"
    CLOUD = "cloud"
    BACKPORTS = "backports"


class Kernel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The kernel and modules that it does not bring along.

    Attributes:
        flavour: which of Debian's kernels.
        modules: ``.ko`` files, folders of them, and ``.deb`` packages with them, for exactly this kernel.
        dkms: Debian packages (``…-dkms``) whose modules are compiled for it while building.
    """

    flavour: KernelFlavour = KernelFlavour.STOCK
    modules: tuple[str, ...] = ()
    dkms: tuple[str, ...] = ()

    def package(self, stock: str, release: Release) -> str:
        """The package that brings the kernel, as apt takes it, in the place of the stock one."""
        match self.flavour:
            case KernelFlavour.CLOUD:
                return stock.replace("linux-image-", "linux-image-cloud-")
            case KernelFlavour.BACKPORTS:
                return f"{stock}/{release}-backports"
            case KernelFlavour.STOCK:
                return stock


class Firmware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Firmware that drivers load into devices.

    Attributes:
        packages: Debian packages, of non-free-firmware too.
        files: files and folders, laid out as below ``/usr/lib/firmware``.
        machines: machine documents (``liferaft probe --json``): what these machines' devices need is added.
        common: what the medium's own drivers of wired network cards, disk and USB controllers ask for is added.
    """

    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    common: bool = True


class Windows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Folders with Windows drivers (``.inf``) that lie on the medium, to be put into a restored Windows."""

    drivers: tuple[str, ...] = ()


class Ssh(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may log in as root over SSH: public keys, or files of them. Without a key no server runs."""

    keys: tuple[str, ...] = ()


class OfferedRepository(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A repository that the wizard offers.

    Attributes:
        address: as ``--repo`` takes it. name: what the wizard calls it; the address when empty.
    """

    address: str
    name: str = ""


class Menu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the boot menu looks.

    Attributes:
        title: what its entries are called.
        text: lines below the entries, such as whom to call.
        color: ``letters/background``, GRUB's names. highlight: the same for the chosen entry.
        timeout: seconds until the first entry starts.
    """

    title: str = "liferaft"
    text: tuple[str, ...] = ()
    color: str = "light-gray/black"
    highlight: str = "black/light-gray"
    timeout: int = 3


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes on the medium. Paths in it are absolute once it is read.

    Attributes:
        release: the Debian release it is made of.
        architecture: the processor it starts on, by Debian's name.
        snapshot: the state of Debian's archive (``20261101T000000Z``, snapshot.debian.org); empty for today's.
        mirror: Debian archive to take packages from; empty for the one that this machine's apt uses.
        hostname: the live system's name.
        packages: Debian packages added to those that every medium has.
        kernel_parameters: words added to the kernel command line of every menu entry.
        compression: how hard the squashfs is packed.
        time_zone: a name of the IANA database, such as ``Europe/Berlin``.
        keymap: ``layout`` or ``layout(variant)`` by XKB's names, such as ``de(nodeadkeys)``; empty for US.
        locale: of the live system, such as ``de_DE.UTF-8``.
        ca_certificates: files with certificates that the live system trusts.
        hooks: a folder of the site's own programs (docs/hooks.md); empty for none.
        carry_secrets: passwords in addresses and Wi-Fi passphrases may lie on the medium.
        job: the restore job that starts by itself when the medium boots; written to the
            medium as ``/liferaft/job.json``. Its fields are the job document's, checked by whoever runs it.
    """

    release: Release = Release.TRIXIE
    architecture: Architecture = Architecture.AMD64
    snapshot: str = ""
    mirror: str = ""
    hostname: str = "liferaft"
    packages: tuple[str, ...] = ()
    kernel_parameters: tuple[str, ...] = ()
    compression: Compression = Compression.SMALL
    time_zone: str = "UTC"
    keymap: str = ""
    locale: str = "C.UTF-8"
    ca_certificates: tuple[str, ...] = ()
    hooks: str = ""
    carry_secrets: bool = False
    kernel: Kernel = Kernel()
    firmware: Firmware = Firmware()
    windows: Windows = Windows()
    network: Network = Network()
    ssh: Ssh = Ssh()
    repositories: tuple[OfferedRepository, ...] = msgspec.field(default=(), name="repository")
    menu: Menu = Menu()
    job: dict[str, Any] | None = None

    def base_packages(self, common: Iterable[str]) -> tuple[str, ...]:
        """Debian packages of the base: those that every medium has, with this recipe's kernel, and what it adds."""
        kernel = self.kernel.package(f"linux-image-{self.architecture}", self.release)
        kept = (kernel if name.startswith("linux-image-") else name for name in common)
        return (*kept, *self.packages, *(_WIFI_PACKAGES if self.network.wifi else ()))

    @property
    def firmware_packages(self) -> tuple[str, ...]:
        """Debian packages of firmware: those named, and those that what else it says needs."""
        needed = _WIFI_FIRMWARE if self.network.wifi else ()
        return tuple(dict.fromkeys((*self.firmware.packages, *needed)))

    def keeps(self, pattern: str) -> bool:
        """Whether a path of ``excludes.txt`` stays on this medium after all: wireless drivers, where there is Wi-Fi."""
        return bool(self.network.wifi) and pattern.endswith(("/net/wireless/*", "/net/mac80211/*"))
