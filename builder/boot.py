"""How the medium starts: GRUB for BIOS (amd64), Debian's signed shim and GRUB for UEFI, one menu for both.

With Secure Boot only what is inside the signed GRUB runs, so the menu uses nothing that would have to be loaded
from the medium, and shows text: on the screen, and on the first serial port where there is one.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from builder.architecture import Architecture, traits_of
from builder.recipe.recipe import Menu
from core.errors import MissingToolError
from core.process import Runner

#: On every command line: find the medium, leave the machine's disks alone.
_PARAMETERS = (
    "boot=live",
    "noswap",
    # live-boot's own guess at network settings costs a second look at every device; networkd does it.
    "nonetworking",
    "nopersistence",
    "raid=noautodetect",
    # Machines and emulators without a floppy drive announce one; asking it costs seconds and shows a disk of 4 KiB.
    "modprobe.blacklist=floppy",
    "systemd.gpt_auto=no",
    "systemd.swap=no",
    # The live system is new at every boot: none of what systemd does after an update or at a first boot.
    "systemd.condition_needs_update=no",
    "systemd.condition_first_boot=no",
)
#: Where the kernel and the base's initrd lie on the medium.
KERNEL, INITRD = "live/vmlinuz", "live/initrd.img"
#: The memory test on the medium: ``.bin`` for BIOS, ``.efi`` for UEFI.
MEMTEST = "boot/memtest"
_PLAIN = Menu()
#: What the first entry adds: a screen without the kernel's own words.
QUIET = ("quiet", "loglevel=3", "systemd.show_status=auto")

_BIOS_FOLDER = Path("/usr/lib/grub/i386-pc")
_BIOS_MODULES = (
    "biosdisk iso9660 part_gpt part_msdos search search_fs_file normal configfile linux test echo serial terminal "
    "sleep reboot halt ls cat all_video minicmd chain drivemap regexp true"
)
_NETWORK_MODULES = f"{_BIOS_MODULES} pxe net tftp http"
#: amd64's programs for UEFI, as the machine that builds has them installed.
_EFI_FILES = {
    "BOOTX64.EFI": Path("/usr/lib/shim/shimx64.efi.signed"),
    "grubx64.efi": Path("/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
    "mmx64.efi": Path("/usr/lib/shim/mmx64.efi.signed"),
}
_EFI_IMAGE_KIB = 8 * 1024

_SHIM_SYSTEMS = ("debian", "ubuntu", "redhat", "rocky", "almalinux", "centos", "fedora")
_GRUB_SYSTEMS = ("debian", "ubuntu", "arch", "proxmox")
#: amd64's only: Debian has no memory test for another architecture. Under Secure Boot GRUB is locked down and starts
#: only what is signed, and Debian does not sign it.
_MEMORY_ENTRIES = f"""
if [ "$grub_platform" = pc ]; then
  menuentry 'Memory test (memtest86+)' {{
    linux /{MEMTEST}.bin
  }}
elif [ "$lockdown" = y ]; then
  menuentry 'Memory test: switch Secure Boot off first' {{
    true
  }}
else
  menuentry 'Memory test (memtest86+)' {{
    chainloader /{MEMTEST}.efi
  }}
fi
"""
#: UEFI does not go on to the disk when GRUB ends, it opens its own menu: hence the search. BIOS numbers the disk first
#: that it started from.
_OTHER_ENTRIES = """
if [ "$grub_platform" = efi ]; then
  menuentry 'Firmware setup' {
    fwsetup
  }
fi
menuentry 'Start from the local disk' {
  if [ "$grub_platform" = efi ]; then
    for loader in LOCAL_LOADERS; do
      if search --no-floppy --set=root --file $loader; then
        chainloader $loader
        boot
      fi
    done
    exit
  fi
  if [ -n "$iso_path" ]; then
    set root=hd0
  fi
  if regexp '^hd0' "$root"; then
    drivemap -s hd0 hd1
    set root=hd1
  else
    set root=hd0
  fi
  chainloader +1
}
"""


class MenuEntry(msgspec.Struct, frozen=True):
    """One line of the boot menu that starts the rescue system.

    Attributes:
        parameters: what it adds to the command line.
        medium: it makes sense only where there is a medium, not over the network.
    """

    title: str
    parameters: tuple[str, ...]
    medium: bool = False


def base_parameters(architecture: Architecture = Architecture.AMD64) -> tuple[str, ...]:
    """What is on every command line of the architecture's media.

    The last console is the one that /dev/console means; without such a port the kernel falls back to the screen.
    """
    ports = (f"console={port},115200n8" for port in traits_of(architecture).serial)
    return (*_PARAMETERS, "console=tty0", *ports)


def menu_entries(title: str = "liferaft", architecture: Architecture = Architecture.AMD64) -> tuple[MenuEntry, ...]:
    """The menu; the first entry starts by itself."""
    # The last console= is the one that /dev/console means; systemd.wants= is systemd-debug-generator(8)'s.
    port = traits_of(architecture).second_serial
    words = (*QUIET, f"console={port},115200n8", f"systemd.wants=liferaft-tui@{port}.service")
    second_port = (MenuEntry(f"{title}, also on the second serial port (COM2)", words),) if port else ()
    # Graphics drivers are what turns screens black; without them the firmware's own picture stays.
    loud = ("loglevel=7", "systemd.show_status=yes", "nomodeset")
    return (
        MenuEntry(title, QUIET),
        MenuEntry(f"{title}, copied to RAM (the medium can be removed)", (*QUIET, "toram"), medium=True),
        *second_port,
        MenuEntry(f"{title}, all messages, plain graphics (when the screen stays black)", loud),
        MenuEntry(
            f"{title}: self-test (is the medium whole, what does it see?)", (*QUIET, "liferaft.selftest"), medium=True
        ),
    )


def grub_menu(
    medium_id: str,
    kernel_parameters: tuple[str, ...],
    initrds: tuple[str, ...] = (INITRD,),
    menu: Menu = _PLAIN,
    architecture: Architecture = Architecture.AMD64,
) -> str:
    """The text of grub.cfg, the same for a medium, an ISO inside a multi-boot stick (``loopback.cfg``) and the network.

    Who starts from elsewhere than the medium sets ``liferaft_words`` (added to the command line) and ``root`` before.

    Args:
        medium_id: the mark on the medium; the menu looks for it so that it never starts another medium's kernel.
        kernel_parameters: the recipe's words, last on every command line so that they win.
        initrds: what the kernel unpacks, in order, as paths on the medium.
        menu: the site's title, colours and lines.
        architecture: whose media it is the menu of.
    """
    lines = [
        'if [ -z "$liferaft_words" ]; then',
        f"  search --no-floppy --file --set=root /.disk/{mark_name(medium_id)}",
        "fi",
        # UEFI's own console already goes where the firmware was told to send it.
        'if [ "$grub_platform" = pc ]; then',
        "  if serial --unit=0 --speed=115200; then",
        "    terminal_input --append serial",
        "    terminal_output --append serial",
        "  fi",
        "fi",
        "set default=0",
        f"set timeout={menu.timeout}",
        'if [ -n "$liferaft_timeout" ]; then',
        '  set timeout="$liferaft_timeout"',
        "fi",
        f"set menu_color_normal={menu.color}",
        f"set menu_color_highlight={menu.highlight}",
        f"set color_normal={menu.color}",
    ]
    for entry in menu_entries(menu.title, architecture):
        words = (*base_parameters(architecture), *entry.parameters, "$liferaft_words", *kernel_parameters)
        lines += _system_entry(entry, words, initrds)
    lines += _other_entries(architecture)
    # GRUB's text menu shows entries and nothing else; these come back to the menu when they are chosen.
    lines += [f"menuentry '{line}' {{ true; }}" for line in menu.text]
    return "\n".join(lines) + "\n"


def _other_entries(architecture: Architecture) -> list[str]:
    """The entries that start something else than the rescue system."""
    text = _OTHER_ENTRIES.replace("LOCAL_LOADERS", " ".join(_local_loaders(architecture)))
    if traits_of(architecture).bios:
        text = _MEMORY_ENTRIES + text.removeprefix("\n")
    return text.splitlines()


def _local_loaders(architecture: Architecture) -> tuple[str, ...]:
    """Where systems put what UEFI starts. Not the fallback path: the medium has that one itself."""
    letters = traits_of(architecture).efi
    return (
        "/EFI/Microsoft/Boot/bootmgfw.efi",
        *(f"/EFI/{system}/shim{letters}.efi" for system in _SHIM_SYSTEMS),
        *(f"/EFI/{system}/shim.efi" for system in ("sles", "opensuse")),
        *(f"/EFI/{system}/grub{letters}.efi" for system in _GRUB_SYSTEMS),
        f"/EFI/systemd/systemd-boot{letters}.efi",
    )


def _system_entry(entry: MenuEntry, words: tuple[str, ...], initrds: tuple[str, ...]) -> list[str]:
    lines = [
        f"menuentry '{entry.title}' {{",
        f"  linux /{KERNEL} {' '.join(words)}",
        "  initrd " + " ".join(f"/{path}" for path in initrds) + " $liferaft_initrd",
        "}",
    ]
    return ['if [ -z "$liferaft_initrd" ]; then', *lines, "fi"] if entry.medium else lines


def loopback_menu() -> str:
    """The text of loopback.cfg: what multi-boot sticks read from an ISO that is a file on them.

    By that file's custom, the stick's GRUB has mounted the ISO as ``root`` and says in ``iso_path`` where it lies.
    """
    return 'set liferaft_words="findiso=$iso_path"\nsource /boot/grub/grub.cfg\n'


def mark_name(medium_id: str) -> str:
    """The file in ``.disk`` by which live-boot and GRUB know this medium."""
    return f"live-uuid-{medium_id}"


def make_bios_image(folder: Path, medium_id: str, runner: Runner) -> Path:
    """The El Torito image for BIOS (GRUB with all it needs, and its CD loader in front), in ``folder``.

    Raises:
        MissingToolError: GRUB's BIOS files are not installed.
    """
    loader = _needed(_BIOS_FOLDER / "cdboot.img", "grub-pc-bin")
    early = folder / "early.cfg"
    early.write_text(
        f"search --no-floppy --file --set=root /.disk/{mark_name(medium_id)}\n"
        "set prefix=($root)/boot/grub\nnormal ($root)/boot/grub/grub.cfg\n"
    )
    core = folder / "core.img"
    argv = ["grub-mkimage", "-O", "i386-pc", "-d", str(_BIOS_FOLDER), "-p", "/boot/grub", "-c", str(early)]
    runner.run([*argv, "-o", str(core), *_BIOS_MODULES.split()])
    image = folder / "eltorito.img"
    image.write_bytes(loader.read_bytes() + core.read_bytes())
    return image


def make_network_image(folder: Path, runner: Runner) -> Path:
    """GRUB as BIOS fetches it over the network (PXE), with all it needs; its menu is ``grub/grub.cfg`` on the server.

    Raises:
        MissingToolError: GRUB's BIOS files are not installed.
    """
    _needed(_BIOS_FOLDER / "pxeboot.img", "grub-pc-bin")
    image = folder / "grub.pxe"
    argv = ["grub-mkimage", "-O", "i386-pc-pxe", "-d", str(_BIOS_FOLDER), "-p", "/grub", "-o", str(image)]
    runner.run([*argv, *_NETWORK_MODULES.split()])
    return image


def bios_boot_code() -> Path:
    """The boot code for LBA 0 of a USB stick.

    Raises:
        MissingToolError: GRUB's BIOS files are not installed.
    """
    return _needed(_BIOS_FOLDER / "boot_hybrid.img", "grub-pc-bin")


def make_efi_image(folder: Path, runner: Runner, programs: Mapping[str, Path] = MappingProxyType({})) -> Path:
    """The FAT image for UEFI, El Torito image and ESP in one, in ``folder``.

    Args:
        programs: what lies in it, by name in ``EFI/BOOT``; amd64's that are installed here when empty.

    Raises:
        MissingToolError: shim or the signed GRUB is not installed.
    """
    image = folder / "efi.img"
    runner.run(["mkfs.fat", "-C", "--invariant", "-n", "LIFERAFT", str(image), str(_EFI_IMAGE_KIB)])
    runner.run(["mmd", "-i", str(image), "::/EFI", "::/EFI/BOOT"])
    for name, path in (programs or _EFI_FILES).items():
        package = "shim-signed" if "shim" in path.parts else "grub-efi-amd64-signed"
        runner.run(["mcopy", "-i", str(image), str(_needed(path, package)), f"::/EFI/BOOT/{name}"])
    return image


def _needed(path: Path, package: str) -> Path:
    if not path.is_file():
        raise MissingToolError(f"{path} is not there.", hint=f"apt-get install {package}, or run `make setup`.")
    return path
