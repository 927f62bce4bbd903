"""A finished netboot set is looked at whole: the medium's files, and what firmware loads around them."""

import datetime
import shutil
from pathlib import Path

import pytest

from builder.archive.loaders import Loaders
from builder.boot import KERNEL, grub_menu
from builder.document import MEDIUM_DOCUMENT, MediumDocument, describe_files
from builder.finished.inspection import Inspection, inspect_medium
from builder.finished.opened import open_medium
from builder.inject.additions import Additions
from builder.inject.inject import inject
from builder.netboot import NETWORK_INITRD, write_netboot
from builder.netboot_document import NETBOOT_DOCUMENT
from core.documents import encode_readable
from core.errors import DamagedError
from core.events import Event, ignore
from core.process import SystemRunner
from tests.flow.disks import need

_BUILT = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
_SHIM, _GRUB = Path("/usr/lib/shim/shimx64.efi.signed"), Path("/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed")
#: What firmware and GRUB load before there is a kernel, and the part of the initrd that only the network has.
_AROUND = ("bootx64.efi", "grubx64.efi", "mmx64.efi", "grub.pxe", "boot.ipxe", "grub/grub.cfg", NETWORK_INITRD)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("grub-mkimage")
    folder = tmp_path_factory.mktemp("set")
    contents = {
        "boot/grub/grub.cfg": grub_menu("0123", ()).encode(),
        # A program that is really signed, in the kernel's place.
        KERNEL: _GRUB.read_bytes(),
        "live/base.squashfs": b"base" * 1000,
        "liferaft/packages.txt": b"bash\t5.2\tamd64\tbash 5.2\n",
    }
    files = {}
    for number, (name, content) in enumerate(contents.items()):
        files[name] = folder / str(number)
        files[name].write_bytes(content)
    document = MediumDocument(
        liferaft="liferaft 0.1.0",
        built=_BUILT,
        release="trixie",
        architecture="amd64",
        medium_id="0123",
        kernel="6.12.0-amd64",
        layers=("base",),
        initrds=(),
        ram=1,
        ram_copied=2,
        files=describe_files(files),
    )
    files[MEDIUM_DOCUMENT] = folder / "medium.json"
    files[MEDIUM_DOCUMENT].write_text(encode_readable(document))
    loaders = Loaders({"bootx64.efi": _SHIM, "grubx64.efi": _GRUB, "mmx64.efi": _SHIM}, {})
    write_netboot(files, document, loaders, folder / "out", SystemRunner(), ignore)
    return folder / "out"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def _inspect(path: Path) -> Inspection:
    with open_medium(path) as medium:
        return inspect_medium(medium, _BUILT, ignore)


def test_a_whole_set_shows_its_chain_and_the_sites_own_files_are_its_own(copy: Path) -> None:
    (copy / "site/site.cfg").write_text("set job=http://192.0.2.1/job\n")
    (copy / "site/own.json").write_text("{}")
    (copy / "pxelinux.0").write_bytes(b"another system's, in the same folder")
    found = _inspect(copy)
    assert found.findings == ()
    assert [program.name for program in found.secure_boot] == ["shim", "GRUB", "kernel"]
    assert any("Microsoft" in signer.authority for signer in found.secure_boot[0].signers)
    sizes = {str(path.relative_to(copy)): path.stat().st_size for path in copy.rglob("*") if path.is_file()}
    unread = {MEDIUM_DOCUMENT, NETBOOT_DOCUMENT, "site/site.cfg", "site/site.ipxe", "site/own.json", "pxelinux.0"}
    assert found.checked == sum(size for name, size in sizes.items() if name not in unread)


@pytest.mark.parametrize("name", _AROUND)
def test_what_firmware_loads_is_compared(name: str, copy: Path) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    found = [finding for finding in _inspect(copy).findings if finding.path == name]
    assert len(found) == 1 and "It differs: expected SHA-256" in found[0].problem
    (copy / name).unlink()
    assert [finding.problem for finding in _inspect(copy).findings if finding.path == name] == ["It is missing."]


def test_memtest_is_no_part_of_the_chain(copy: Path) -> None:
    shim = _inspect(copy).secure_boot[0]
    (copy / "boot/memtest.efi").write_bytes(_GRUB.read_bytes())
    (copy / "bootx64.efi").rename(copy / "aside")
    assert [program.name for program in _inspect(copy).secure_boot] == ["GRUB", "kernel"]
    (copy / "aside").rename(copy / "bootx64.efi")
    assert _inspect(copy).secure_boot[0] == shim


def _add_a_note(copy: Path, folder: Path) -> list[Event]:
    (folder / "note").write_text("x")
    told: list[Event] = []
    additions = Additions(files={"etc/note": folder / "note"})
    inject(copy, None, folder / "new", additions, folder / "cache", SystemRunner(), told.append)
    return [event for event in told if event.warning]


def test_a_new_set_has_no_altered_loader(copy: Path, tmp_path: Path) -> None:
    """They are taken over as they are; a new digest would hide it."""
    content = bytearray((copy / "mmx64.efi").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "mmx64.efi").write_bytes(content)
    with pytest.raises(DamagedError, match=r"mmx64\.efi"):
        _add_a_note(copy, tmp_path)
    assert not (tmp_path / "new").exists()


def test_what_a_new_set_has_anew_may_be_changed_or_missing(copy: Path, tmp_path: Path) -> None:
    for name in ("README.txt", "grub.pxe"):
        (copy / name).unlink()
    own = (copy / "boot.ipxe").read_bytes()
    (copy / "boot.ipxe").write_bytes(own + b"# a note\n")
    warnings = _add_a_note(copy, tmp_path)
    assert len(warnings) == 1 and "boot.ipxe" in warnings[0].message
    assert (tmp_path / "new/README.txt").is_file() and (tmp_path / "new/grub.pxe").is_file()
    assert b"# a note" not in (tmp_path / "new/boot.ipxe").read_bytes()
    assert _inspect(tmp_path / "new").findings == ()


def test_an_altered_loader_is_no_longer_as_it_was_signed(copy: Path) -> None:
    content = bytearray((copy / "bootx64.efi").read_bytes())
    content[0x1000] ^= 1
    (copy / "bootx64.efi").write_bytes(content)
    assert any("shim is not as it was signed" in finding.problem for finding in _inspect(copy).findings)


def test_a_set_from_before_that_was_written_down_opens(copy: Path) -> None:
    (copy / NETBOOT_DOCUMENT).unlink()
    found = _inspect(copy)
    assert found.findings == () and [program.name for program in found.secure_boot] == ["shim", "GRUB", "kernel"]


def test_a_damaged_list_is_named(copy: Path) -> None:
    (copy / NETBOOT_DOCUMENT).write_text('{"version": 1, "files": [{"path": 3}]}')
    with pytest.raises(DamagedError, match=r"netboot\.json is not a valid netbootdocument: .*path"):
        _inspect(copy)
