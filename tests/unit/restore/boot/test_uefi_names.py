"""What boot repair looks for on an EFI system partition, on each processor."""

from pathlib import Path

import pytest

from restore.boot.repair import has_fallback, own_loader
from restore.boot.system import read_system, uefi_names

#: What Debian installs: GRUB's platforms (grub-efi-amd64-bin, grub-efi-arm64-bin), shim's names (shim-signed), and the
#: fallback path of UEFI 2.10, 3.5.1.1.
NAMES = [
    ("x86_64", "x86_64-efi", "shimx64.efi", "BOOTX64.EFI"),
    ("aarch64", "arm64-efi", "shimaa64.efi", "BOOTAA64.EFI"),
]


def _system(root: Path, platform: str, shim: str, fallback: str) -> Path:
    for name in (f"usr/lib/grub/{platform}/modinfo.sh", f"boot/efi/EFI/debian/{shim}", f"boot/efi/EFI/boot/{fallback}"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text("ID=debian\nPRETTY_NAME='Debian'\n")
    return root


@pytest.mark.parametrize(("machine", "platform", "shim", "fallback"), NAMES)
def test_a_system_is_found_by_the_names_of_its_processor(
    machine: str, platform: str, shim: str, fallback: str, tmp_path: Path
) -> None:
    root = _system(tmp_path, platform, shim, fallback)
    system = read_system(root)
    assert system.grub_targets == (platform,) and uefi_names(machine).grub == platform
    assert own_loader(root, system, machine) == rf"\EFI\debian\{shim}"
    assert has_fallback(root, uefi_names(machine).fallback)
    assert uefi_names(machine).fallback == f"EFI/BOOT/{fallback}"


@pytest.mark.parametrize(("machine", "other"), [("x86_64", NAMES[1]), ("aarch64", NAMES[0])])
def test_another_processors_programs_are_none(machine: str, other: tuple[str, str, str, str], tmp_path: Path) -> None:
    root = _system(tmp_path, *other[1:])
    assert own_loader(root, read_system(root), machine) == ""
    assert not has_fallback(root, uefi_names(machine).fallback)
