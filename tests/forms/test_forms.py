"""A captured Debian boots from a disk of another form: a GPT where it had a dos table, sectors of 4096 where of 512.

A ring of its own (``make test-forms``): it takes minutes, and what it proves changes rarely.
"""

from pathlib import Path

from core.events import ignore
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.planning.rules import TableChoice
from tests.boot.disk import loop, read_table
from tests.boot.machine import Controller, Drive, Machine
from tests.boot.restoring import (
    TARGET_SERIAL,
    Lab,
    check_is_source,
    examine,
    job,
    recipe_with_job,
    restore_unattended,
)
from tests.boot.system import Source, boot_and_check, switch_off
from tests.disk.test_loop_disks import loop as loop_disk

#: UEFI Specification has no such type; GRUB's manual, "BIOS installation", names it.
_BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
_BOOT_TIMEOUT = 300


def test_a_bios_machine_boots_from_a_gpt_that_was_a_dos_table(lab: Lab, bios_source: Source, work: Path) -> None:
    point, target = lab.capture(bios_source), lab.blank_disk("gpt")
    choices = RestoreChoices(boot=BootChoice.BIOS, table=TableChoice.GPT, grow=True)
    with loop_disk(target, 512, "--partscan") as node:
        plan = plan_restore(str(lab.repository), point, [node], choices, lab.runner)
        report = run_plan(plan, plan.digest, lab.runner, ignore)
    for line in (*report.boot, *report.warnings):
        lab.timeline.say(line)
    assert report.verified
    assert report.warnings == ()

    was, table = bios_source.table, read_table(target, lab.runner)
    assert (was.label, table.label) == ("dos", "gpt")
    boot, root = sorted(table.partitions, key=lambda part: part.start)
    assert boot.type == _BIOS_BOOT
    assert boot.start + boot.size <= root.start == was.partitions[0].start
    assert (root.number, root.type) == (1, "0FC63DAF-8483-4772-8E79-3D69D8477DE4")
    lab.timeline.say(f"gpt, BIOS boot partition {boot.number} of {boot.size} bytes")
    with loop(target, lab.runner, part=root) as device:
        lab.runner.run(["e2fsck", "-fn", str(device)])
    machine = Machine("gpt", bios_source.firmware, (Drive(target, Controller.VIRTIO, TARGET_SERIAL),), None)
    with machine.run() as running:
        check = boot_and_check(running, _BOOT_TIMEOUT)
        switch_off(running)
    check_is_source(check, bios_source, Controller.VIRTIO)


def test_a_uefi_machine_boots_from_sectors_of_4096(lab: Lab, uefi_source: Source) -> None:
    """By the rescue system, which makes the ESP anew, GRUB and the initramfs; on another controller besides."""
    name = "uefi-4096"
    point, target = lab.capture(uefi_source), lab.blank_disk(name)
    disk = Drive(target, Controller.NVME, TARGET_SERIAL, sector_size=4096)
    with lab.serve(name) as server:
        medium = lab.medium(name, recipe_with_job(job(server, point, "poweroff")))
        drives = (Drive(medium, Controller.CDROM), disk)
        recovered = restore_unattended(
            Machine(f"{name}-rescue", uefi_source.firmware, drives, None), server, lab.timeline
        )
    # No more than this is to be said: too few clusters for FAT32 in such sectors.
    assert recovered.result["report"]["warnings"] == [
        "partition 1: fat32 became fat16, for it has too few clusters now"
    ]

    with loop(target, lab.runner, sector_size=4096) as node:
        assert lab.runner.run(["blockdev", "--getss", str(node)]).stdout.strip() == "4096"
        examine(uefi_source, node, lab.runner, lab.timeline)
    machine = Machine(f"{name}-restored", uefi_source.firmware, (disk,), None)
    with machine.run() as running:
        check = boot_and_check(running, _BOOT_TIMEOUT)
        switch_off(running)
    check_is_source(check, uefi_source, Controller.NVME)
