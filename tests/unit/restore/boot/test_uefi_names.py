"""What boot repair looks for on an EFI system partition, on each processor."""

from pathlib import Path

import pytest

from restore.boot.efi import has_fallback, own_loader
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
    assert own_loader(root / "boot/efi", system, machine) == rf"\EFI\debian\{shim}"
    assert has_fallback(root / "boot/efi", uefi_names(machine).fallback)
    assert uefi_names(machine).fallback == f"EFI/BOOT/{fallback}"


@pytest.mark.parametrize(("machine", "other"), [("x86_64", NAMES[1]), ("aarch64", NAMES[0])])
def test_another_processors_programs_are_none(machine: str, other: tuple[str, str, str, str], tmp_path: Path) -> None:
    root = _system(tmp_path, *other[1:])
    assert own_loader(root / "boot/efi", read_system(root), machine) == ""
    assert not has_fallback(root / "boot/efi", uefi_names(machine).fallback)


@pytest.mark.parametrize(
    ("name", "loader"),
    [
        # shim-x64 of RHEL and Oracle Linux, of Fedora and Rocky Linux; shim-install of SUSE.
        ("rhel", "redhat/shimx64.efi"),
        ("ol", "redhat/shimx64.efi"),
        ("fedora", "fedora/shimx64.efi"),
        ("rocky", "rocky/shimx64.efi"),
        ("opensuse-leap", "opensuse/shim.efi"),
        ("opensuse-tumbleweed", "opensuse/shim.efi"),
        ("sles", "sles/shim.efi"),
    ],
)
def test_a_systems_own_loader_is_found_where_its_packages_put_it(name: str, loader: str, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(f'ID="{name}"\n')
    made = tmp_path / "boot/efi/EFI" / loader
    made.parent.mkdir(parents=True)
    made.touch()
    made.with_name("grubx64.efi").touch()
    found = own_loader(tmp_path / "boot/efi", read_system(tmp_path), "x86_64")
    assert found == "\\EFI\\" + loader.replace("/", "\\")


@pytest.mark.parametrize("folder", ["usr/lib/grub", "usr/lib/grub2", "usr/share/grub2"])
def test_grubs_platforms_are_found_where_distributions_put_them(folder: str, tmp_path: Path) -> None:
    """SUSE's are in /usr/share/grub2 (openSUSE: grub2.spec, --libdir)."""
    for platform in ("i386-pc", "x86_64-efi"):
        (tmp_path / folder / platform).mkdir(parents=True)
    (tmp_path / folder / "i386-pc/modinfo.sh").touch()
    assert read_system(tmp_path).grub_targets == ("i386-pc",)
