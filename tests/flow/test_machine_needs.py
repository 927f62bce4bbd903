"""From modaliases to firmware: modules made for the test; which package holds a file is Debian 13's own answer."""

from pathlib import Path

import pytest

from builder.drivers.firmware_files import asked_files
from builder.drivers.machine_needs import firmware_needs
from builder.drivers.module_tree import ModuleTree
from core.process import Runner, SystemRunner
from images.model.machine import Machine
from tests.flow.disks import need
from tests.flow.media import KERNEL_RELEASE, make_module, make_tree
from tests.samples import sample_machine


def _machine(*modaliases: str) -> Machine:
    return sample_machine(modaliases=modaliases)


@pytest.fixture(scope="module")
def runner() -> Runner:
    need("gcc", "depmod")
    return SystemRunner()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, runner: Runner) -> ModuleTree:
    folder = tmp_path_factory.mktemp("needs")
    library = make_module(
        folder / "library.ko", runner, info=("firmware=bnx2/bnx2-mips-09-6.2.1b.fw",), exports=("library",)
    )
    card = make_module(
        folder / "card.ko",
        runner,
        info=("alias=pci:v000010ECd00008168sv*sd*bc*sc*i*", "firmware=rtl_nic/rtl8168h-2.fw", "depends=library"),
        imports=("library",),
    )
    other = make_module(folder / "other.ko", runner, info=("alias=pci:v1234*", "firmware=nobody/asks.bin"))
    modules = {"net/card.ko": card, "net/library.ko": library, "net/other.ko": other}
    return ModuleTree(make_tree(folder / "tree", modules, runner), KERNEL_RELEASE)


_DEVICE = "pci:v000010ECd00008168sv00001458sd0000E000bc02sc00i00"


def test_what_a_device_and_all_its_driver_loads_may_ask_for(tree: ModuleTree) -> None:
    needs = firmware_needs((_machine(_DEVICE, "pci:v9999d0"),), (), tree, frozenset())
    assert needs.names == {"rtl_nic/rtl8168h-2.fw", "bnx2/bnx2-mips-09-6.2.1b.fw"}
    # packages.debian.org, contents of trixie.
    assert needs.packages == ("firmware-bnx2", "firmware-realtek")
    assert needs.unknown == ()


def test_what_is_there_is_not_needed_and_what_nobody_has_is_said(
    tree: ModuleTree, tmp_path: Path, runner: Runner
) -> None:
    added = make_module(tmp_path / "added.ko", runner, info=("firmware=vendor/own.bin",))
    needs = firmware_needs((_machine(_DEVICE),), (added,), tree, frozenset({"rtl_nic/rtl8168h-2.fw"}))
    assert needs.packages == ("firmware-bnx2",)
    assert needs.unknown == ("vendor/own.bin",)


def test_wildcards_take_every_file_that_fits(tree: ModuleTree, tmp_path: Path, runner: Runner) -> None:
    added = make_module(tmp_path / "added.ko", runner, info=("firmware=brcm/fw-*.bin", "firmware=plain.bin"))
    needs = firmware_needs((), (added,), tree, frozenset())
    offered = dict.fromkeys(("brcm/fw-1.bin", "brcm/fw-2.bin", "brcm/other.bin", "plain.bin", "more"), tmp_path)
    assert set(asked_files(needs.names, offered)) == {"brcm/fw-1.bin", "brcm/fw-2.bin", "plain.bin"}
