"""A machine's document on a stick: its name, its content, and what becomes of an older one."""

import datetime
from pathlib import Path

import msgspec
import pytest

from core.errors import DeviceError
from images.model.machine import Nic
from rescue.jobs.machine_document import document_name, save_machine
from rescue.jobs.preflight import read_machines
from rescue.jobs.support_places import SupportPlace
from tests.runners import ScriptedRunner
from tests.samples import sample_machine

NOW = datetime.datetime(2026, 11, 21, 9, 30, tzinfo=datetime.UTC)
BRIDGE = Nic(name="br0", mac="ee:ee:ee:ee:ee:ee")
CARD = Nic(name="enp0s2", mac="52:54:00:12:34:56", driver="virtio_net")


@pytest.mark.parametrize(
    ("product", "nics", "name"),
    [
        ("OptiPlex 7060", (BRIDGE, CARD), "liferaft-machine-optiplex-7060-525400123456.json"),
        ("../Büro\n(2009)", (BRIDGE,), "liferaft-machine-b-ro-2009-20261121T093000Z.json"),
        ("", (CARD,), "liferaft-machine-525400123456.json"),
    ],
)
def test_a_name_that_fat_takes_and_no_other_machine_has(product: str, nics: tuple[Nic, ...], name: str) -> None:
    assert document_name(sample_machine(product=product, nics=nics), NOW) == name


def test_what_is_saved_is_what_preflight_and_recipes_read(tmp_path: Path) -> None:
    place, runner = SupportPlace(name="x", folder=str(tmp_path)), ScriptedRunner(lambda argv: "")
    before = sample_machine(product="PC", nics=(CARD,))
    after = msgspec.structs.replace(before, ram=before.ram * 2)
    names = {save_machine(place, machine, runner, NOW) for machine in (before, after)}
    assert names == {"liferaft-machine-pc-525400123456.json"}
    assert read_machines((tmp_path,)) == {"liferaft-machine-pc-525400123456": after}
    assert runner.calls == []


def test_a_stick_is_mounted_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rescue.jobs.mounting.PLACE", tmp_path)
    there: list[str] = []

    def answer(argv: tuple[str, ...]) -> str:
        if argv[0] == "umount":
            found = list(Path(argv[1]).iterdir())
            there.extend(path.name for path in found)
            for path in found:
                path.unlink()
        return ""

    runner = ScriptedRunner(answer)
    place = SupportPlace(name="x", device="/dev/sdb1", kind="vfat")
    name = save_machine(place, sample_machine(nics=(CARD,)), runner, NOW)
    assert there == [name]
    assert [call[0] for call in runner.calls] == ["mount", "umount"]


def test_a_folder_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    place = SupportPlace(name="x", folder=str(tmp_path / "gone"))
    with pytest.raises(DeviceError, match=r"gone/liferaft-machine-.*\.json cannot be written: No such file"):
        save_machine(place, sample_machine(), ScriptedRunner(lambda argv: ""), NOW)
