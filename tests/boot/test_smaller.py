"""A captured Debian comes back on a disk that is 35 % smaller, and boots from it: its filesystem was made smaller."""

from pathlib import Path

import pytest

from core.events import ignore
from core.units import ALIGNMENT, align_down
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.plan.steps import RepairBoot, ShrinkVolume
from tests.boot.compare import check_filesystems, compare_disks
from tests.boot.disk import read_table
from tests.boot.machine import Controller, Drive, Machine
from tests.boot.restoring import TARGET_SERIAL, Lab
from tests.boot.system import Source, boot_and_check, switch_off
from tests.disk.test_loop_disks import loop

pytestmark = pytest.mark.thorough


def test_a_system_boots_from_a_disk_that_is_35_percent_smaller(lab: Lab, bios_source: Source, work: Path) -> None:
    point, target = lab.capture(bios_source), work / "smaller.raw"
    size = align_down(bios_source.disk.stat().st_size * 65 // 100, ALIGNMENT)
    with target.open("wb") as stream:
        stream.truncate(size)
    with loop(target, 512, "--partscan") as node:
        plan = plan_restore(str(lab.repository), point, [node], RestoreChoices(boot=BootChoice.BIOS), lab.runner)
        report = run_plan(plan, plan.digest, lab.runner, ignore, scratch=work)
    kinds = {type(step) for step in plan.steps}
    assert {ShrinkVolume, RepairBoot} <= kinds
    assert report.verified
    for line in (*report.boot, *report.warnings):
        lab.timeline.say(line)

    for verdict in check_filesystems(target, read_table(target, lab.runner), lab.runner):
        lab.timeline.say(f"fsck -n is clean: {verdict}")
    comparison = compare_disks(bios_source, target, lab.runner)
    assert not comparison.wrong, "files differ: " + "; ".join(map(str, comparison.wrong[:20]))

    machine = Machine("smaller", bios_source.firmware, (Drive(target, Controller.VIRTIO, TARGET_SERIAL),), None)
    with machine.run() as running:
        check = boot_and_check(running, 300)
        switch_off(running)
    was = bios_source.check
    for name in ("machine_id", "marker", "root_uuid", "root_fstype", "firmware", "failed"):
        assert getattr(check, name) == getattr(was, name), name
    assert check.root_size < was.root_size * 66 // 100
