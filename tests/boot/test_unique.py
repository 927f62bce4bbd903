"""A clone of a captured Debian boots beside its source: everything that named the old identities names the new ones."""

from core.events import ignore
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.plan.steps import MakeUnique
from restore.unique.renewal import Sort
from tests.boot.machine import Controller, Drive, Machine
from tests.boot.restoring import TARGET_SERIAL, Lab
from tests.boot.system import Source, boot_and_check, switch_off


def test_a_clone_boots_with_identities_of_its_own(lab: Lab, bios_source: Source) -> None:
    point, target = lab.capture(bios_source), lab.blank_disk("unique")
    choices = RestoreChoices(unique=True, boot=BootChoice.BIOS)
    plan = plan_restore(str(lab.repository), point, [target], choices, lab.runner)
    report = run_plan(plan, plan.digest, lab.runner, ignore)
    for line in (*report.boot, *report.warnings):
        lab.timeline.say(line)
    assert report.warnings == ()
    renewals = next(step.renewals for step in plan.steps if isinstance(step, MakeUnique))
    new = {renewal.old: renewal.new for renewal in renewals if renewal.sort is Sort.FILESYSTEM}
    machine = Machine("unique-restored", bios_source.firmware, (Drive(target, Controller.VIRTIO, TARGET_SERIAL),), None)
    with machine.run() as running:
        check = boot_and_check(running, 200)
        switch_off(running)
    was = bios_source.check
    assert check.machine_id == next(renewal.new for renewal in renewals if renewal.sort is Sort.MACHINE)
    assert check.machine_id != was.machine_id
    assert check.root_uuid == new[was.root_uuid]
    assert was.root_uuid not in check.cmdline
    assert (check.marker, check.root_fstype, check.failed) == (was.marker, was.root_fstype, was.failed)
