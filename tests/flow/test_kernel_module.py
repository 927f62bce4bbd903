"""Modules read from their bytes, compared with what modinfo and nm say of the same files."""

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from builder.drivers.early import is_early
from builder.drivers.kernel_module import parse_module, read_module
from core.errors import DamagedError
from core.process import Runner, SystemRunner
from tests.flow.disks import need
from tests.flow.media import make_module

_INFO = (
    "alias=pci:v00001000d0000005Bsv*sd*bc*sc*i*",
    "alias=pci:v00001000d0000005Dsv*sd*bc*sc*i*",
    "depends=scsi_mod,hw-random",
    "firmware=acme/a.bin",
    "firmware=acme/b-*.bin",
)


@pytest.fixture(scope="module")
def runner() -> Runner:
    need("gcc", "modinfo", "nm")
    return SystemRunner()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory, runner: Runner) -> Path:
    folder = tmp_path_factory.mktemp("module")
    return make_module(folder / "my-card.ko", runner, info=_INFO, imports=("scsi_host_alloc", "printk"))


def test_what_modinfo_and_nm_say(driver: Path, runner: Runner) -> None:
    def said(field: str) -> list[str]:
        return runner.run(["modinfo", "-F", field, str(driver)]).stdout.splitlines()

    module = read_module(driver)
    assert [module.name] == said("name")
    assert [module.vermagic] == [line.strip() for line in said("vermagic")]
    assert list(module.aliases) == said("alias")
    assert list(module.firmware) == said("firmware")
    assert module.depends == ("scsi_mod", "hw_random")
    assert module.kernel == "6.12.99-test" and not module.signed
    undefined = runner.run(["nm", "--undefined-only", "--just-symbols", str(driver)]).stdout.split()
    assert module.imports == frozenset(undefined)


@pytest.mark.parametrize("pack", ["xz", "zst", "gz"])
def test_compressed_modules_say_the_same(driver: Path, tmp_path: Path, pack: str) -> None:
    packers = {"xz": lzma.compress, "zst": zstandard.ZstdCompressor().compress, "gz": gzip.compress}
    path = tmp_path / f"my-card.ko.{pack}"
    path.write_bytes(packers[pack](driver.read_bytes()))
    assert read_module(path) == read_module(driver)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DamagedError, match="ends in the middle"):
        read_module(path)
    path.write_bytes(path.read_bytes()[:6] + b"\xff" * 64)
    with pytest.raises(DamagedError, match="my-card"):
        read_module(path)


def test_a_signature_is_seen(driver: Path) -> None:
    content = driver.read_bytes() + b"signature" + b"~Module signature appended~\n"
    assert parse_module(content, name="x.ko").signed


def test_what_is_no_module_is_named(driver: Path, tmp_path: Path, runner: Runner) -> None:
    content = driver.read_bytes()
    for bad, said in (
        (b"", "offset 0, ELF magic: expected 7f454c46, found no bytes"),
        (b"MZ" + content, "offset 0, ELF magic: expected 7f454c46, found 4d5a7f45"),
        (content[:4] + b"\1" + content[5:], "expected a 64-bit little-endian ELF"),
        (content[:40] + b"\xff" * 8 + content[48:], "section headers"),
        (content[: len(content) // 2], "do not fit into the file"),
        (content.replace(b".modinfo\0", b".modinfX\0"), "not a kernel module"),
    ):
        with pytest.raises(DamagedError, match=said):
            parse_module(bad, name="x.ko")
    plain = tmp_path / "plain.c"
    plain.write_text("int f(void) { return 0; }\n")
    runner.run(["gcc", "-c", "-o", str(tmp_path / "plain.ko"), str(plain)])
    with pytest.raises(DamagedError, match="not a kernel module"):
        read_module(tmp_path / "plain.ko")


def test_every_byte_changed_is_read_or_named(driver: Path) -> None:
    content = driver.read_bytes()
    for place in range(0, len(content), 7):
        for value in (0, 0xFF):
            changed = bytearray(content)
            changed[place] = value
            try:
                parse_module(bytes(changed), name="x.ko")
            except DamagedError as error:
                assert error.message.startswith("x.ko")


@pytest.mark.parametrize(
    ("imports", "alias", "early"),
    [
        ("scsi_host_alloc", "pci:v1d*", True),
        ("register_netdev", "usb:v1p*", True),
        ("usb_add_hcd", "acpi*:ABCD:*", True),
        ("pci_create_root_bus", "pci:v00008086d0000467F*", True),
        ("register_netdev", "rtnl-link-dummy", False),
        ("snd_card_new", "pci:v1d*", False),
    ],
)
def test_early_is_what_the_medium_may_hang_on(
    tmp_path: Path, runner: Runner, imports: str, alias: str, early: bool
) -> None:
    path = make_module(tmp_path / "m.ko", runner, info=(f"alias={alias}",), imports=(imports,))
    assert is_early(read_module(path)) is early
