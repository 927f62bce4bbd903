"""Tables on block devices with sectors of 512 and 4096 bytes: the kernel and the tools agree. Needs root."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.events import ignore
from core.process import SystemRunner
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import RestoreChoices, plan_restore, run_plan
from tests.flow.disks import MIB, blank, need, run

SCRIPTS = {
    "many": "label: gpt\ntable-length: 300\nfirst-lba: {first}\n"
    + "".join(f'{number}: size={{unit}}, name="part {number}"\n' for number in (1, 7, 140, 299)),
    "odd": 'label: gpt\nfirst-lba: {first}\n9: start={later}, size={unit}, name="größe ☃"\n'
    '2: size={unit}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, attrs="RequiredPartition,GUID:48,GUID:63"\n',
    "dos": "label: dos\nlabel-id: 0xcafe0001\n4: size={unit}, type=7, bootable\n2: start={later}, size={half}, type=f\n"
    "5: size={unit}, type=83\n6: size={unit}, type=8e\n",
}


@pytest.fixture(autouse=True)
def tools() -> None:
    need("losetup", "sfdisk", "sgdisk", "partx")
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")


@contextlib.contextmanager
def loop(file: Path, sector_size: int, *options: str) -> Iterator[str]:
    node = run("losetup", "--find", "--show", f"--sector-size={sector_size}", *options, file).strip()
    try:
        yield node
    finally:
        run("losetup", "--detach", node)


def words_of_all(node: str, numbers: list[str], *, gpt: bool) -> tuple[object, str, str]:
    """What sfdisk, sgdisk and the kernel's rules (partx) say of a disk, without its name and its size."""
    found = json.loads(run("sfdisk", "--json", node).replace(node, "disk"))["partitiontable"]
    found.pop("lastlba", None)
    lists = [word for number in numbers for word in ("-i", number)]
    said = run("sgdisk", *lists, node) if gpt else ""
    return found, said, run("partx", "--show", "--noheadings", "-o", "NR,START,SECTORS,TYPE,UUID,NAME,FLAGS", node)


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("kind", SCRIPTS)
def test_the_kernel_and_the_tools_agree_about_both(kind: str, sector_size: int, tmp_path: Path) -> None:
    source, target = tmp_path / "source", blank(tmp_path / "target", 96 * MIB)
    with source.open("wb") as file:
        file.truncate(64 * MIB)
    unit = MIB // sector_size
    script = SCRIPTS[kind].format(first=unit, unit=unit, later=8 * unit, half=20 * unit)
    runner, repo = SystemRunner(), str(tmp_path / "repo")
    with loop(source, sector_size) as node:
        run("sfdisk", "-q", node, stdin=script)
    with loop(source, sector_size, "--read-only") as node:
        gpt = kind != "dos"
        numbers = run("partx", "--show", "--noheadings", "-o", "NR", node).split()
        assert len(numbers) >= 2
        before = words_of_all(node, numbers, gpt=gpt)
        capture_disks([Path(node)], repo, name="", runner=runner, sink=ignore)
    with loop(target, sector_size) as node:
        plan = plan_restore(repo, "latest", [Path(node)], RestoreChoices(), runner)
        assert run_plan(plan, plan.digest, runner, ignore).verified
        assert words_of_all(node, numbers, gpt=gpt) == before
        if gpt:
            said = subprocess.run(["/usr/sbin/sgdisk", "-v", node], capture_output=True, text=True, check=True).stdout
            assert "No problems found" in said
            assert "Creating new GPT" not in said
