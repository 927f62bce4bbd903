"""What this machine adds: from a recorded /sys and /usr/src."""

from pathlib import Path

import pytest

from builder.recipe.recipe import Recipe
from core.events import Event
from rescue.jobs.machine_drivers import foreign_modules, machine_drivers
from tests.runners import ScriptedRunner
from tests.samples import sample_machine

_MACHINE = sample_machine(modaliases=("pci:v1",))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, taint in {"ahci": "\n", "r8125": "OE\n", "vendor_raid": "POE\n"}.items():
        (tmp_path / "sys/module" / name).mkdir(parents=True)
        (tmp_path / "sys/module" / name / "taint").write_text(taint)
    source = tmp_path / "usr/src/r8125-9.013"
    source.mkdir(parents=True)
    # As Debian's r8125-dkms 9.013 has it.
    (source / "dkms.conf").write_text(
        'PACKAGE_NAME="r8125"\nPACKAGE_VERSION="9.013"\nBUILT_MODULE_NAME[0]="r8125"\nDEST_MODULE_LOCATION[0]="/updates/dkms"\n'
    )
    (tmp_path / "usr/src/linux-headers-6.1").mkdir()
    return tmp_path


def test_out_of_tree_is_what_the_kernel_marks(root: Path) -> None:
    assert foreign_modules(root) == {"r8125", "vendor_raid"}


def test_this_machine_brings_its_sources_and_says_what_is_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rescue.jobs.machine_drivers.probe_machine", lambda runner: _MACHINE)
    said: list[Event] = []
    found = machine_drivers(Recipe(), True, ScriptedRunner(lambda argv: ""), said.append, root)
    assert found.machines == (_MACHINE,)
    assert found.dkms == (root / "usr/src/r8125-9.013",)
    assert ["vendor_raid" in event.message for event in said if event.warning] == [True]


def test_a_build_for_no_machine_adds_nothing(root: Path) -> None:
    found = machine_drivers(Recipe(), False, ScriptedRunner(lambda argv: ""), lambda event: None, root)
    assert found.machines == () and found.dkms == ()
