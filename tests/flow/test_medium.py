"""A finished medium, small and made with the real tools: opened without root, inspected, damaged in every way."""

import datetime
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder.boot import bios_boot_code, grub_menu, make_bios_image, make_efi_image
from builder.document import MEDIUM_DOCUMENT, describe_boot_images, describe_files
from builder.finished.inspection import Inspection, inspect_medium
from builder.finished.opened import open_medium
from builder.finished.sbom import bill_of_materials
from builder.iso import BootImages, write_iso
from builder.sums import RANGE_SIZE, SUMS, ranges_of_files, read_sums, sums_image
from core.documents import encode_readable
from core.errors import DamagedError, DeviceError, LiferaftError, RefusedError, UsageError
from core.events import ignore
from core.process import SystemRunner
from rescue.jobs.inspect import inspect_finished
from tests.flow.disks import need
from tests.samples import sample_medium

_BUILT = datetime.datetime(2026, 9, 12, 7, 55, 41, tzinfo=datetime.UTC)
_MIB = 1 << 20
#: Two whole ranges and a part of a third.
_LAYER_SIZE = 2 * RANGE_SIZE + 3 * _MIB + 17


def _content(seed: str, size: int) -> bytes:
    """Bytes that do not repeat."""
    return hashlib.shake_128(seed.encode()).digest(size)


def _kernel() -> bytes:
    """A program that is really signed: Debian's GRUB, standing in for the kernel."""
    return Path("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed").read_bytes()


def _make(folder: Path, files: dict[str, bytes]) -> Path:
    """An ISO as the build lays it out."""
    runner = SystemRunner()
    paths: dict[str, Path] = {}
    for number, (name, content) in enumerate(files.items()):
        paths[name] = folder / f"{number}"
        paths[name].write_bytes(content)
    boot = BootImages(bios_boot_code(), make_bios_image(folder, "0123", runner), make_efi_image(folder, runner))
    paths[SUMS] = folder / "sums.img"
    paths[SUMS].write_bytes(sums_image(ranges_of_files(paths)))
    document = sample_medium(
        liferaft="liferaft 0.1.0",
        built=_BUILT,
        medium_id="0123",
        kernel="6.12.0-amd64",
        initrds=("live/initrd.img", SUMS),
        ram=640 * _MIB,
        ram_copied=832 * _MIB,
        files=describe_files(paths),
        boot_images=describe_boot_images(boot.bios, boot.efi),
    )
    paths[MEDIUM_DOCUMENT] = folder / "medium.json"
    paths[MEDIUM_DOCUMENT].write_text(encode_readable(document))
    write_iso(paths, boot, folder / "medium.iso", runner)
    return folder / "medium.iso"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {
        "boot/grub/grub.cfg": grub_menu("0123", ()).encode(),
        "live/vmlinuz": _kernel(),
        "live/initrd.img": _content("initrd", 100_000),
        "live/base.squashfs": _content("base", _LAYER_SIZE),
        "live/filesystem.module": b"base.squashfs\n",
        "liferaft/packages.txt": b"bash\t5.2.37-2+b10\tamd64\tbash 5.2.37-2\nlibc6\t1:2.41-12\tamd64\tglibc 2.41-12\n",
        "liferaft/python.txt": b"msgspec\t0.22.0\nruamel.yaml\t0.18\n",
        f"liferaft/a long name with spaces, {'x' * 180}": b"names beyond ISO 9660's own",
        ".disk/live-uuid-0123": b"0123\n",
        "liferaft/empty": b"",
    }


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> Path:
    need("xorriso", "grub-mkimage", "mkfs.fat", "mcopy", "mmd")
    return _make(tmp_path_factory.mktemp("medium"), files)


@pytest.fixture
def copy(iso: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(iso, tmp_path / "copy.iso"))


def _inspect(path: Path) -> Inspection:
    with open_medium(path) as medium:
        return inspect_medium(medium, _BUILT + datetime.timedelta(days=3), ignore)


def _alter(path: Path, offset: int, by: int = 1) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        old = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([old[0] ^ by]))


def test_files_are_where_xorriso_finds_them(iso: Path) -> None:
    said = subprocess.run(
        ["xorriso", "-indev", str(iso), "-find", "/", "-type", "f", "-exec", "report_lba"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    theirs = {}
    for line in said.splitlines():
        if match := re.match(r"File data lba:\s*\d+\s*,\s*(\d+)\s*,\s*\d+\s*,\s*(\d+)\s*,\s*'/(.*)'$", line):
            theirs[match[3]] = (int(match[1]) * 2048, int(match[2]))
    with open_medium(iso) as medium:
        ours = {path: (medium.place(path), medium.file_size(path)) for path in medium.paths}
    # The boot catalog is no file to xorriso, but lies where it reports it; an empty file lies nowhere.
    assert ours.pop("boot/boot.cat")[1] == 2048
    assert {path: found for path, found in ours.items() if found[1]} == {
        path: found for path, found in theirs.items() if found[1]
    }
    assert set(ours) == set(theirs) and len(ours) > 10


def test_every_file_reads_as_it_was_put_in(iso: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    with open_medium(iso) as medium:
        for number, (path, content) in enumerate(files.items()):
            assert medium.read(path, 64 * _MIB) == content
            assert medium.extract(path, tmp_path / str(number)) == hashlib.sha256(content).hexdigest()
            assert (tmp_path / str(number)).read_bytes() == content
        piece = b"".join(medium.pieces("live/base.squashfs", 5_000_001, 7_000_003))
        assert piece == files["live/base.squashfs"][5_000_001:7_000_003]
        shim = Path("/usr/lib/shim/shimx64.efi.signed").read_bytes()
        assert medium.efi_files()["EFI/BOOT/BOOTX64.EFI"] == shim
        with pytest.raises(DamagedError, match="has no file live/other"):
            medium.read("live/other")
        with pytest.raises(DeviceError):
            medium.extract("live/vmlinuz", tmp_path / "no" / "folder")


def test_a_whole_medium_has_nothing_wrong(iso: Path, files: dict[str, bytes]) -> None:
    found = _inspect(iso)
    assert found.findings == () and found.age_days == 3 and not found.old
    assert found.packages == 2 and found.python == ("msgspec 0.22.0", "ruamel.yaml 0.18")
    assert found.checked >= sum(map(len, files.values()))
    assert {part.name: part.size for part in found.parts}["base (layer)"] == _LAYER_SIZE
    assert sum(part.size for part in found.parts) == iso.stat().st_size
    shim = next(program for program in found.secure_boot if program.name == "shim")
    assert any("Microsoft" in signer.authority for signer in shim.signers) and shim.sbat["shim"] >= 4


def test_signers_are_those_that_osslsigncode_names(iso: Path) -> None:
    need("osslsigncode")
    grub = next(program for program in _inspect(iso).secure_boot if program.name == "GRUB")
    said = subprocess.run(
        ["osslsigncode", "verify", "-in", "/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"],
        capture_output=True,
        text=True,
    ).stdout
    for signer in grub.signers:
        assert signer.name in said and signer.authority in said and signer.intact


def test_an_altered_byte_is_named_with_its_range(copy: Path) -> None:
    with open_medium(copy) as medium:
        place = medium.place("live/base.squashfs")
    _alter(copy, place + RANGE_SIZE + 5)
    (finding,) = _inspect(copy).findings
    assert (finding.path, finding.start, finding.end) == ("live/base.squashfs", RANGE_SIZE, 2 * RANGE_SIZE)
    assert finding.place == place + RANGE_SIZE


@pytest.mark.parametrize("path", ["live/vmlinuz", "live/initrd.img", "boot/grub/grub.cfg", SUMS])
def test_files_without_ranges_are_named_as_a_whole(copy: Path, path: str) -> None:
    with open_medium(copy) as medium:
        _alter(copy, medium.place(path) + 200)
    findings = _inspect(copy).findings
    assert path in {finding.path for finding in findings}
    if path == "live/vmlinuz":
        assert any("not as it was signed" in finding.problem for finding in findings)


def test_an_altered_boot_image_is_found(copy: Path) -> None:
    with open_medium(copy) as medium:
        assert medium.volume is not None
        places = [image.extent.start for image in medium.volume.boot_images]
    for place, word in zip(places, ("BIOS", "EFI"), strict=True):
        _alter(copy, place + 3000)
        problems = " ".join(finding.problem for finding in _inspect(copy).findings)
        assert f"boot image for {word}" in problems
        _alter(copy, place + 3000)


def test_a_cut_iso_says_what_is_missing(copy: Path) -> None:
    whole = copy.stat().st_size
    with open_medium(copy) as medium:
        last = max(medium.paths, key=medium.place)
        end = medium.place(last) + 100
    with copy.open("r+b") as stream:
        stream.truncate(end)
    found = _inspect(copy)
    cut = next(finding for finding in found.findings if finding.path == "")
    assert f"{end} of {whole} bytes" in cut.problem
    assert any(finding.path == last and "cuts it off" in finding.problem for finding in found.findings)
    assert len(set(found.findings)) == len(found.findings)
    with open_medium(copy) as medium, pytest.raises(DamagedError, match="is cut short"):
        medium.read(last, 64 * _MIB)


def test_every_cut_is_an_error_or_a_finding_that_names_the_file(copy: Path) -> None:
    size = copy.stat().st_size
    for length in (1, 2048, 32768, 32775, 34816, 36864, 40960, 110_000, size // 2, size - 2048, size - 1):
        with copy.open("r+b") as stream:
            stream.truncate(length)
        try:
            assert _inspect(copy).findings
        except LiferaftError as error:
            assert str(copy) in error.message
        with copy.open("r+b") as stream:
            stream.truncate(size)


def test_a_system_use_field_at_the_very_end_is_no_crash(copy: Path) -> None:
    root = int.from_bytes(copy.read_bytes()[0x8000 + 158 : 0x8000 + 162], "little") * 2048
    with copy.open("r+b") as stream:
        stream.seek(root + 32)
        # The name's length, so that SUSP's SP would begin 2 bytes before the end of what is read for it.
        stream.write(bytes([220]))
        stream.seek(root + 254)
        stream.write(b"SP")
    with pytest.raises(DamagedError, match="directory record"), open_medium(copy):
        pass


def test_altered_structures_never_crash(copy: Path) -> None:
    """Every byte of the descriptor's numbers and of the folders: an error that names the file, a finding, or no
    difference (dates, padding)."""
    with open_medium(copy) as medium:
        assert medium.volume is not None
        first = min(medium.place(path) for path in medium.paths if medium.file_size(path))
    descriptor = 16 * 2048
    whole = copy.read_bytes()
    folders = range(descriptor + 2048, min(first, 256 * 1024), 37)
    for offset in (*range(descriptor, descriptor + 190), *folders):
        _alter(copy, offset, by=0xA5)
        try:
            with open_medium(copy) as medium:
                assert medium.paths
        except LiferaftError as error:
            assert str(copy) in error.message
        _alter(copy, offset, by=0xA5)
    assert copy.read_bytes() == whole


def test_a_missing_and_a_foreign_file_are_findings(tmp_path: Path, iso: Path) -> None:
    # As the folder of a netboot set, which can lose single files.
    folder = tmp_path / "set"
    with open_medium(iso) as medium:
        for path in medium.paths:
            if path != "live/filesystem.module" and medium.file_size(path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                medium.extract(path, folder / path)
    (folder / "liferaft/empty").touch()
    (folder / "live/extra.squashfs").write_bytes(b"x")
    (folder / "liferaft/python.txt").write_text("msgspec\t9\n")
    problems = {finding.path: finding.problem for finding in _inspect(folder).findings if finding.path}
    assert "missing" in problems["live/filesystem.module"] and "no part" in problems["live/extra.squashfs"]
    assert "bytes, expected" in problems["liferaft/python.txt"]


def test_what_is_no_medium_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        _inspect(tmp_path / "none.iso")
    (tmp_path / "empty.iso").touch()
    with pytest.raises(DamagedError, match="is empty: it is no ISO"):
        _inspect(tmp_path / "empty.iso")
    text = tmp_path / "text.iso"
    text.write_bytes(b"<html>not found</html>" * 4000)
    with pytest.raises(DamagedError, match="is not an ISO: offset 32768"):
        _inspect(text)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "README").write_text("debian")
    other = tmp_path / "other.iso"
    subprocess.run(
        ["xorriso", "-as", "mkisofs", "-quiet", "-r", "-V", "OTHER", "-o", other, tmp_path / "tree"], check=True
    )
    with pytest.raises(DamagedError, match=r"no liferaft medium.*'OTHER'"):
        _inspect(other)


def test_the_digests_for_the_boot_are_those_of_sha512sum(iso: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    with open_medium(iso) as medium:
        ranges = read_sums(medium.read(SUMS), name=SUMS)
    layer = [part for part in ranges if part.path == "live/base.squashfs"]
    assert [(part.offset, part.size) for part in layer] == [
        (0, RANGE_SIZE),
        (RANGE_SIZE, RANGE_SIZE),
        (2 * RANGE_SIZE, _LAYER_SIZE - 2 * RANGE_SIZE),
    ]
    (tmp_path / "part").write_bytes(files["live/base.squashfs"][RANGE_SIZE : 2 * RANGE_SIZE])
    said = subprocess.run(["sha512sum", tmp_path / "part"], check=True, capture_output=True, text=True).stdout
    assert said.split()[0] == layer[1].digest
    # Kernel and initrds are in use by then, and its own document names the sums.
    assert {part.path for part in ranges} & {"live/vmlinuz", "live/initrd.img", SUMS, MEDIUM_DOCUMENT} == set()


def test_the_bill_of_materials_is_valid_and_complete(iso: Path, tmp_path: Path) -> None:
    with open_medium(iso) as medium:
        content = bill_of_materials(medium)
        assert bill_of_materials(medium) == content
    found = json.loads(content)
    purls = {component.get("purl") for component in found["components"]}
    assert "pkg:deb/debian/libc6@1%3A2.41-12?arch=amd64&distro=trixie" in purls
    assert "pkg:pypi/ruamel-yaml@0.18" in purls and "pkg:pypi/msgspec@0.22.0" in purls
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib is not installed")
    schema = pytest.importorskip("cyclonedx.schema")
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_5).validate_str(content.decode()) is None


def test_a_medium_from_before_the_document_opens(tmp_path: Path) -> None:
    (tmp_path / "liferaft").mkdir()
    (tmp_path / "liferaft/packages.txt").write_text("bash\t5\n")
    found = _inspect(tmp_path)
    assert found.medium is None and found.packages == 1 and found.age_days is None
    assert "build it again" in found.findings[0].problem
    with open_medium(tmp_path) as medium, pytest.raises(RefusedError, match="does not say"):
        bill_of_materials(medium)


def test_the_command_says_it_and_ends_with_5_when_something_is_wrong(copy: Path, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "rescue.cli.main", "inspect", *words]
        code = "from rescue.cli.main import main; main()"
        return subprocess.run([sys.executable, "-c", code, *argv[3:]], capture_output=True, text=True)

    whole = run(str(copy), "--sbom", str(tmp_path / "bom.json"))
    assert whole.returncode == 0 and "whole: " in whole.stdout and "signed by" in whole.stdout
    assert json.loads((tmp_path / "bom.json").read_text())["bomFormat"] == "CycloneDX"
    with open_medium(copy) as medium:
        _alter(copy, medium.place("live/base.squashfs") + 1)
    broken = run(str(copy))
    assert broken.returncode == 5 and "WRONG:" in broken.stdout
    assert f"live/base.squashfs: Bytes 0 to {RANGE_SIZE} differ" in broken.stdout
    answer = run(str(copy), "--json")
    assert answer.returncode == 5 and json.loads(answer.stdout)["findings"][0]["path"] == "live/base.squashfs"


def test_a_bill_that_cannot_be_written_is_refused_before_anything_is_read(iso: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        inspect_finished(iso, tmp_path / "no" / "bom.json", ignore)
