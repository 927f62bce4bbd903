"""A system whose fstab names what is not restored: the plan says it before, the report after. Real disks and mounts;
programs that would be started in the system are recorded instead. Needs root.
"""

import os
from pathlib import Path

import pytest

from core.events import ignore
from core.process import SystemRunner
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.plan.plan import Plan
from restore.planning.rules import PartitionRule, Rule
from restore.report import Report
from tests.disk.test_boot_disks import Recording
from tests.flow.disks import MIB, blank, need, run

ROOT, DATA, OLD, SWAP = (f"7f9b5f1e-06a4-4ff9-8f0a-2f57a1f2c00{number}" for number in range(4))
FSTAB = (
    f"UUID={ROOT} / ext4 defaults 0 1\n"
    f"UUID={DATA} /data ext4 defaults 0 2\n"
    f"UUID={OLD} /old ext4 nofail 0 2\n"
    f"UUID={SWAP} none swap sw 0 0\n"
)
MOUNTS, SWAPS = f"ine 2 of /etc/fstab of the restored system mounts /data (UUID={DATA})", "ine 4 of /etc/fstab"


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """A root and a swap on one disk, two data partitions on another."""
    if os.geteuid() != 0:
        pytest.skip("loop devices and mounts need root")
    need("mke2fs", "mkswap", "sfdisk", "losetup", "findfs")
    tree = tmp_path / "tree"
    for name in ("etc", "usr/lib", "dev", "proc", "sys", "run"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/fstab").write_text(FSTAB)
    (tree / "usr/lib/os-release").write_text("ID=debian\n")
    disks = [blank(tmp_path / f"{name}.img", 64 * MIB) for name in ("system", "data")]
    for disk, others in zip(disks, (("-t", "swap"), ("-t", "ext4")), strict=True):
        run("sfdisk", "-q", disk, stdin="label: gpt\nstart=1MiB,size=30MiB\nsize=30MiB\n")
        for number in range(2):
            part = tmp_path / f"{disk.stem}{number}.part"
            part.touch()
            os.truncate(part, 30 * MIB)
            uuid = ((ROOT, SWAP), (DATA, OLD))[disks.index(disk)][number]
            if others[1] == "swap" and number:
                run("mkswap", "-q", "-U", uuid, part)
            else:
                files = ("-d", tree) if uuid == ROOT else ()
                run("mke2fs", "-q", "-t", "ext4", "-U", uuid, *files, part)
            seek = f"seek={1 + 30 * number}"
            run("dd", f"if={part}", f"of={disk}", "bs=1M", seek, "conv=notrunc,sparse", "status=none")
    repo = str(tmp_path / "repo")
    capture_disks(disks, repo, name="", runner=SystemRunner(), sink=ignore)
    return repo


def _restored(repo: str, folder: Path, choices: RestoreChoices, count: int) -> tuple[Plan, Report]:
    runner = Recording(folder)
    targets = [blank(folder / f"target{number}.img", 64 * MIB) for number in range(count)]
    plan = plan_restore(
        repo, "latest", [f"disk{number}={path}" for number, path in enumerate(targets)], choices, runner
    )
    return plan, run_plan(plan, plan.digest, runner, ignore)


def test_what_is_left_out_with_its_disk_or_partition_is_told_before_and_after(tmp_path: Path, repository: str) -> None:
    rules = (PartitionRule(disk="disk0", partition=2, rule=Rule.DROP),)
    choices = RestoreChoices(boot=BootChoice.BIOS, skip=("disk1",), rules=rules)
    plan, report = _restored(repository, tmp_path, choices, 1)
    for lines in (plan.notes, report.warnings):
        assert [MOUNTS in line for line in lines if "/etc/fstab" in line] == [True, False]
        assert [SWAPS in line for line in lines if "/etc/fstab" in line] == [False, True]


def test_what_all_comes_back_is_not_waited_for(tmp_path: Path, repository: str) -> None:
    plan, report = _restored(repository, tmp_path, RestoreChoices(boot=BootChoice.BIOS), 2)
    assert not [line for line in (*plan.notes, *report.warnings) if "/etc/fstab" in line]
