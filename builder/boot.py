"""How the medium starts: GRUB for BIOS, Debian's signed shim and GRUB for UEFI, one menu for both.

With Secure Boot only what is inside the signed GRUB runs, so the menu uses nothing that would have to be loaded
from the medium, and shows text: on the screen, and on the first serial port where there is one.
"""

from pathlib import Path

import msgspec

from builder.recipe import Menu
from core.errors import MissingToolError
from core.process import Runner

#: On every command line: find the medium, leave the machine's disks alone, talk to screen and serial port.
#: The last console is the one that /dev/console means; without a serial port the kernel falls back to the screen.
BASE_PARAMETERS = (
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
    "console=tty0",
    "console=ttyS0,115200n8",
)
#: Where the kernel and the base's initrd lie on the medium.
KERNEL, INITRD = "live/vmlinuz", "live/initrd.img"
_PLAIN = Menu()
_QUIET = ("quiet", "loglevel=3", "systemd.show_status=auto")

_BIOS_FOLDER = Path("/usr/lib/grub/i386-pc")
_BIOS_MODULES = (
    "biosdisk iso9660 part_gpt part_msdos search search_fs_file normal configfile linux test echo serial terminal "
    "sleep reboot halt ls cat all_video minicmd"
)
_EFI_FILES = {
    "BOOTX64.EFI": Path("/usr/lib/shim/shimx64.efi.signed"),
    "grubx64.efi": Path("/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
    "mmx64.efi": Path("/usr/lib/shim/mmx64.efi.signed"),
}
_EFI_IMAGE_KIB = 8 * 1024


class MenuEntry(msgspec.Struct, frozen=True):
    """One line of the boot menu and what it adds to the command line."""

    title: str
    parameters: tuple[str, ...]


def menu_entries(title: str = "liferaft") -> tuple[MenuEntry, ...]:
    """The menu; the first entry starts by itself."""
    return (
        MenuEntry(title, _QUIET),
        MenuEntry(f"{title}, copied to RAM (the medium can be removed)", (*_QUIET, "toram")),
        MenuEntry(f"{title}, with all messages (when it does not start)", ("loglevel=7", "systemd.show_status=yes")),
    )


def grub_menu(
    medium_id: str, kernel_parameters: tuple[str, ...], initrds: tuple[str, ...] = (INITRD,), menu: Menu = _PLAIN
) -> str:
    """The text of grub.cfg.

    Args:
        medium_id: the mark on the medium; the menu looks for it so that it never starts another medium's kernel.
        kernel_parameters: the recipe's words, last on every command line so that they win.
        initrds: what the kernel unpacks, in order, as paths on the medium.
        menu: the site's title, colours and lines.
    """
    lines = [
        f"search --no-floppy --file --set=root /.disk/{mark_name(medium_id)}",
        # UEFI's own console already goes where the firmware was told to send it.
        'if [ "$grub_platform" = pc ]; then',
        "  if serial --unit=0 --speed=115200; then",
        "    terminal_input --append serial",
        "    terminal_output --append serial",
        "  fi",
        "fi",
        "set default=0",
        f"set timeout={menu.timeout}",
        f"set menu_color_normal={menu.color}",
        f"set menu_color_highlight={menu.highlight}",
        f"set color_normal={menu.color}",
    ]
    for entry in menu_entries(menu.title):
        words = " ".join((*BASE_PARAMETERS, *entry.parameters, *kernel_parameters))
        lines += [
            f"menuentry '{entry.title}' {{",
            f"  linux /{KERNEL} {words}",
            "  initrd " + " ".join(f"/{path}" for path in initrds),
            "}",
        ]
    # GRUB's text menu shows entries and nothing else; these come back to the menu when they are chosen.
    lines += [f"menuentry '{line}' {{ true; }}" for line in menu.text]
    return "\n".join(lines) + "\n"


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


def bios_boot_code() -> Path:
    """The boot code for LBA 0 of a USB stick.

    Raises:
        MissingToolError: GRUB's BIOS files are not installed.
    """
    return _needed(_BIOS_FOLDER / "boot_hybrid.img", "grub-pc-bin")


def make_efi_image(folder: Path, runner: Runner) -> Path:
    """The FAT image for UEFI, El Torito image and ESP in one, in ``folder``.

    Raises:
        MissingToolError: shim or the signed GRUB is not installed.
    """
    image = folder / "efi.img"
    runner.run(["mkfs.fat", "-C", "--invariant", "-n", "LIFERAFT", str(image), str(_EFI_IMAGE_KIB)])
    runner.run(["mmd", "-i", str(image), "::/EFI", "::/EFI/BOOT"])
    for name, path in _EFI_FILES.items():
        package = "shim-signed" if "shim" in path.parts else "grub-efi-amd64-signed"
        runner.run(["mcopy", "-i", str(image), str(_needed(path, package)), f"::/EFI/BOOT/{name}"])
    return image


def _needed(path: Path, package: str) -> Path:
    if not path.is_file():
        raise MissingToolError(f"{path} is not there.", hint=f"apt-get install {package}, or run `make setup`.")
    return path
