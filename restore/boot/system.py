"""What a mounted system is: read from its files, nothing of it is run."""

import os
from pathlib import Path

import msgspec


class UefiNames(msgspec.Struct, frozen=True):
    """How the programs that UEFI starts are called on a processor.

    Attributes:
        grub: GRUB's platform. letters: the end of their names (UEFI 2.10, 3.5.1.1).
    """

    grub: str
    letters: str

    @property
    def fallback(self) -> str:
        """What firmware starts from a disk that it has no entry for."""
        return f"EFI/BOOT/BOOT{self.letters.upper()}.EFI"

    @property
    def loaders(self) -> tuple[str, ...]:
        """What systems bring in their own folder, the one to start first, GRUB last. SUSE's shim has no letters."""
        return f"shim{self.letters}.efi", "shim.efi", f"grub{self.letters}.efi"


#: Systems whose folder on an EFI system partition is not called after their ID.
_FOLDERS = {"rhel": "redhat", "ol": "redhat", "opensuse-leap": "opensuse", "opensuse-tumbleweed": "opensuse"}
#: Where the files of GRUB's platforms are: Debian, Fedora; SUSE before 15, and since (openSUSE: grub2.spec, --libdir).
_PLATFORMS = ("usr/lib/grub", "usr/lib/grub2", "usr/share/grub2")
_UEFI = {"x86_64": UefiNames("x86_64-efi", "x64"), "aarch64": UefiNames("arm64-efi", "aa64")}


def uefi_names(machine: str) -> UefiNames:
    """The names on ``machine`` (``uname -m``): what is repaired runs on the processor of the rescue system."""
    return _UEFI.get(machine, _UEFI["x86_64"])


class InstalledSystem(msgspec.Struct, frozen=True, kw_only=True):
    """An installed Linux.

    Attributes:
        name: for people (``Debian GNU/Linux 13 (trixie)``); id: os-release's ID.
        kernels: versions that have a kernel image in /boot, newest first.
        initramfs: the command that makes its initramfs: ``update-initramfs``, ``dracut`` or empty.
        grub: its program that installs GRUB: ``grub-install``, or ``grub2-install`` alone (Fedora, RHEL, SUSE).
        grub_targets: GRUB platforms whose files are installed (``i386-pc``, ``x86_64-efi``, ``arm64-efi``).
        esp: whether /boot/efi is mounted and holds an EFI folder.
    """

    name: str
    id: str
    kernels: tuple[str, ...]
    initramfs: str
    grub: str
    grub_targets: tuple[str, ...]
    esp: bool

    @property
    def folder(self) -> str:
        """What its folder on an EFI system partition is called."""
        return _FOLDERS.get(self.id, self.id)


def read_system(root: Path) -> InstalledSystem:
    """Look at the system mounted at ``root``."""
    release = _os_release(root)
    platforms = ("i386-pc", *(names.grub for names in _UEFI.values()))
    tools = ("usr/sbin/update-initramfs", "usr/bin/dracut")
    return InstalledSystem(
        name=release.get("PRETTY_NAME", "an unknown Linux"),
        id=release.get("ID", ""),
        kernels=tuple(sorted(_kernels(root), reverse=True)),
        initramfs=next((Path(tool).name for tool in tools if (root / tool).exists()), ""),
        grub=next((path.name for path in _programs(root, "grub-install", "grub2-install")), "grub-install"),
        grub_targets=tuple(target for target in platforms if _has_platform(root, target)),
        esp=(root / "boot/efi/EFI").is_dir(),
    )


def _has_platform(root: Path, target: str) -> bool:
    return any((root / folder / target / "modinfo.sh").exists() for folder in _PLATFORMS)


def _programs(root: Path, *names: str) -> list[Path]:
    """Those that are installed, the first name first; sbin may be a folder of its own or a link."""
    places = [root / folder / name for name in names for folder in ("usr/sbin", "usr/bin", "sbin", "bin")]
    return [place for place in places if os.path.lexists(place)]


def _os_release(root: Path) -> dict[str, str]:
    """etc/os-release is often an absolute link, which must be followed inside the root."""
    for name in ("usr/lib/os-release", "etc/os-release"):
        path = root / name
        if path.is_file() and not (path.is_symlink() and str(path.readlink()).startswith("/")):
            pairs = (line.partition("=") for line in path.read_text(errors="replace").splitlines())
            return {key: value.strip("\"'") for key, _, value in pairs if key}
    return {}


def _kernels(root: Path) -> list[str]:
    modules = {path.name for path in (root / "lib/modules").glob("*") if path.is_dir()}
    return [
        path.name.removeprefix("vmlinuz-")
        for path in (root / "boot").glob("vmlinuz-*")
        if path.name.removeprefix("vmlinuz-") in modules
    ]
