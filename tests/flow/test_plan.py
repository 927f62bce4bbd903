"""Plans as a person handles them: for a recorded machine, for several disks, edited, checked, made again."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import LiferaftError
from core.events import ignore
from core.process import SystemRunner
from images.model.layout import DiskIdentity
from images.model.machine import MachineDisk
from rescue.jobs.capture import capture_disks
from rescue.jobs.placing import TargetRule
from rescue.jobs.records import keep_record
from rescue.jobs.restore import RestoreChoices, plan_restore, plan_restore_by_rules
from restore.plan.plan import Plan
from tests.flow.command import Command
from tests.flow.disks import MIB, blank, dos_disk, gpt_disk
from tests.runners import ScriptedRunner
from tests.samples import sample_machine


@pytest.fixture(scope="module")
def folder(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a point of one disk (``one``, GPT) and one of two (``two``, GPT and dos), and two targets."""
    made = tmp_path_factory.mktemp("plans")
    first, second = gpt_disk(made / "a.img", tree), dos_disk(made / "b.img", tree)
    for disks, name in (([first], "one"), ([first, second], "two")):
        capture_disks(disks, str(made / "repo"), name=name, runner=SystemRunner(), sink=ignore)
    blank(made / "large.img", 400 * MIB)
    blank(made / "small.img", 300 * MIB)
    return made


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """liferaft in that folder, with a state folder of its own."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Command(monkeypatch, capsys)


def disk(node: str, size: int, serial: str, *obstacles: str) -> MachineDisk:
    return MachineDisk(
        node=node,
        identity=DiskIdentity(serial=serial, wwn=f"wwn-{serial}", model="SSD", transport="sata"),
        size=size,
        sector_size=512,
        physical_sector_size=512,
        obstacles=obstacles,
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """What ``liferaft probe --json`` said of a machine whose disk was in use."""
    machine = sample_machine(
        product="Rack",
        disks=(
            disk("/dev/sda", 400 * MIB, "A", "/dev/sda1 is mounted on /"),
            disk("/dev/sdb", 300 * MIB, "B"),
            disk("/dev/sdc", 8 * MIB, "C"),
        ),
    )
    path = tmp_path / "machine.json"
    path.write_bytes(msgspec.json.encode(machine))
    return path


def edited(path: Path, to: Path, edit: Callable[[Any], None]) -> Path:
    plan = json.loads(path.read_text())
    edit(plan)
    to.write_text(json.dumps(plan))
    return to


@pytest.mark.parametrize("name", ["/dev/sda", "A", "wwn-A"])
def test_a_plan_for_a_recorded_machine(name: str, run: Command, recorded: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    done = run("plan", "one", "--repo", "repo", "--machine", recorded, "--target", name, "-o", file)
    assert done.returncode == 0, done.stderr
    assert "Target for disk0: SSD serial A, 400.00 MiB" in done.stdout
    assert "/dev/sda1 is mounted on /" in done.stdout
    assert "reinstall the boot loader for UEFI" in done.stdout
    plan = msgspec.json.decode(file.read_bytes(), type=Plan)
    assert plan.targets[0].identity.serial == "A"
    assert plan.targets[0].file == ""
    # It is for that machine and no other: this one has no such disk, and nothing is written.
    refused = run("restore", "--plan", file, "--confirm", plan.digest)
    assert refused.returncode == 3
    assert "is not in this machine" in refused.stderr
    # What was so when the machine was recorded is asked again of the machine: both commands say it, neither refuses.
    checked = run("plan", "--check", file, "--machine", recorded)
    assert checked.returncode == 0, checked.stderr
    assert "/dev/sda1 is mounted on /" in checked.stdout


def test_a_recorded_machine_without_that_disk(run: Command, recorded: Path) -> None:
    done = run("plan", "one", "--repo", "repo", "--machine", recorded, "--target", "Z")
    assert done.returncode == 2
    assert "no disk Z" in done.stderr
    assert "serial B" in done.stderr
    small = run("plan", "one", "--repo", "repo", "--machine", recorded, "--target", "C")
    assert small.returncode == 3
    assert run("plan", "one", "--repo", "repo", "--machine", "a.img", "--target", "C").returncode == 5


def test_two_disks_go_where_it_was_said(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    words = ("plan", "two", "--repo", "repo", "-o", file)
    done = run(*words, "--target", "disk1=large.img", "--target", "disk0=small.img")
    assert done.returncode == 0, done.stderr
    plan = msgspec.json.decode(file.read_bytes(), type=Plan)
    assert {target.source: Path(target.file).name for target in plan.targets} == {
        "disk0": "small.img",
        "disk1": "large.img",
    }
    dropped = run(*words, "--target", "disk1=large.img", "--target", "disk0=small.img", "--rule", "disk1:1=drop")
    assert "disk1: Partition 1 is left out" in dropped.stdout, "a note says which disk's partition it means"
    one = run(*words, "--target", "large.img", "--skip", "disk1")
    assert "disk1 of the recovery point is not restored" in one.stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("--target large.img --target small.img", 3, "equally good"),
        ("--target large.img", 3, "2 disks (disk0, disk1); named: 1 target"),
        ("--target disk0=large.img --target disk0=small.img", 3, "named"),
        ("--target disk7=large.img --target small.img", 2, "disk7, which is not restored"),
        ("--target disk1=large.img --skip disk1", 2, "disk1, which is not restored"),
        ("--target large.img --skip disk9", 2, "no disk disk9"),
        ("--target large.img --target ./large.img", 3, "named twice"),
        ("--target large.img --target link.img", 3, "named twice"),
        ("--target large.img --target hard.img", 3, "they are the same file"),
    ],
)
def test_what_is_not_clear_is_refused(words: str, code: int, sentence: str, run: Command, folder: Path) -> None:
    if not (folder / "hard.img").exists():
        (folder / "hard.img").hardlink_to(folder / "large.img")
        (folder / "link.img").symlink_to("large.img")
    before = (folder / "large.img").stat().st_mtime_ns
    done = run("plan", "two", "--repo", "repo", *words.split())
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert (folder / "large.img").stat().st_mtime_ns == before


def test_a_plan_made_again_is_confirmed_by_its_digest(run: Command, folder: Path, tmp_path: Path) -> None:
    target = blank(tmp_path / "t.img", 200 * MIB)
    words = ("one", "--repo", "repo", "--target", target)
    first, second = (json.loads(run("plan", *words, "--json").stdout) for _ in range(2))
    estimates = first.pop("estimate"), second.pop("estimate")
    assert first == second
    assert all(estimates)
    digest = run("plan", *words).stdout.split()[1]
    done = run("restore", *words, "--confirm", digest)
    assert done.returncode == 0, done.stderr
    other = run("restore", *words, "--no-verify", "--confirm", digest)
    assert other.returncode == 3, "another plan has another digest"


def test_an_edited_plan_is_checked_and_every_reason_is_said(run: Command, tmp_path: Path) -> None:
    target = blank(tmp_path / "t.img", 200 * MIB)
    file = tmp_path / "plan.json"
    made = run("plan", "one", "--repo", "repo", "--target", target, "-o", file)
    assert made.returncode == 0, made.stderr
    digest = made.stdout.split()[1]
    assert run("plan", "--check", file).stdout.split()[1] == digest

    def rename(plan: Any) -> None:
        plan["steps"][1]["table"]["partitions"][1]["name"] = "system"

    fine = run("plan", "--check", edited(file, tmp_path / "fine.json", rename))
    assert fine.returncode == 0, fine.stderr
    assert fine.stdout.split()[1] != digest
    assert run("restore", "--plan", tmp_path / "fine.json", "--confirm", digest).returncode == 3

    def spoil(plan: Any) -> None:
        table = plan["steps"][1]["table"]["partitions"]
        table[1]["start_lba"] = table[0]["start_lba"]
        plan["targets"][0]["size"] = 10**9
        next(step for step in plan["steps"] if step["do"] == "restore-volume")["volume"] = "disk0-part77"

    spoiled = run("plan", "--check", edited(file, tmp_path / "spoiled.json", spoil))
    assert spoiled.returncode == 3
    for reason in ("disk0-part77", "overlap", "the plan is for 1000000000"):
        assert reason in spoiled.stderr

    for field, value, reason in (
        ("name", "x" * 37, "36 UTF-16 units"),
        ("type", "linux", "no GUID"),
        ("number", 200, "128 entries"),
    ):

        def impossible(plan: Any, field: str = field, value: object = value) -> None:
            plan["steps"][1]["table"]["partitions"][1][field] = value

        said = run("plan", "--check", edited(file, tmp_path / "impossible.json", impossible))
        assert said.returncode == 3
        assert reason in said.stderr

    def empty(plan: Any) -> None:
        plan["steps"] = []

    nothing = run("plan", "--check", edited(file, tmp_path / "empty.json", empty))
    assert nothing.returncode == 3
    assert "the plan has no steps: nothing would be restored" in nothing.stderr

    def misspell(plan: Any) -> None:
        plan["steps"][1]["table"]["partitions"][0]["filesystem"]["labell"] = "x"

    bad = run("plan", "--check", edited(file, tmp_path / "bad.json", misspell))
    assert bad.returncode == 2
    assert "unknown field `labell` - at `$.steps[1].table.partitions[0].filesystem`" in bad.stderr
    assert "Is label meant?" in bad.stderr


@pytest.mark.parametrize("words", ["--grow", "--target x", "-o other.json", "--rule 1=drop", "--boot no"])
def test_what_makes_a_plan_says_nothing_to_a_check(words: str, run: Command, tmp_path: Path) -> None:
    said = run("plan", "--check", tmp_path / "plan.json", *words.split())
    assert (said.returncode, said.stdout) == (2, "")
    assert "--check stands alone" in said.stderr


@pytest.mark.parametrize("changes", [{"sector_size": 0}, {"sector_size": 520}, {"size": -1}])
def test_a_recorded_disk_that_cannot_be_is_refused(changes: dict[str, int], run: Command, recorded: Path) -> None:
    def spoil(machine: Any) -> None:
        machine["disks"][1] |= changes

    edited(recorded, recorded, spoil)
    said = run("plan", "one", "--repo", "repo", "--machine", recorded, "--target", "A")
    assert said.returncode == 5
    assert "$.disks[1]" in said.stderr


def test_a_restore_leaves_its_plan_and_report_or_failure_for_the_support_bundle(
    run: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "log"
    place.mkdir()
    monkeypatch.setattr("rescue.jobs.restore.keep_record", partial(keep_record, place=place))
    target = blank(tmp_path / "t.img", 200 * MIB)
    done = run("restore", "one", "--repo", "repo", "--target", target, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    plan, report = sorted(place.iterdir())
    assert [path.name.rpartition("-")[2] for path in (plan, report)] == ["plan.json", "report.json"]
    assert json.loads(report.read_text()) == json.loads(done.stdout)
    digest = msgspec.json.decode(plan.read_bytes(), type=Plan).digest
    refused = run("restore", "--plan", plan, "--confirm", "0123456789abcdef")
    assert refused.returncode == 3
    failed = json.loads(max(place.iterdir()).read_text())
    assert (failed["exit_code"], failed["plan"]) == (3, digest)
    assert failed["error"] in refused.stderr
    assert failed["hint"] in refused.stderr


def test_nothing_names_no_disk(run: Command, recorded: Path) -> None:
    """As an unset variable of a script does: a recorded disk without a serial number is not meant."""

    def forget(machine: Any) -> None:
        machine["disks"][0]["identity"].pop("serial")

    edited(recorded, recorded, forget)
    for machine in ((), ("--machine", recorded)):
        said = run("plan", "one", "--repo", "repo", *machine, "--target", "")
        assert said.returncode == 2, said.stdout
        assert "has no name" in said.stderr


def test_matching_knows_how_small_the_contents_can_be(run: Command, folder: Path) -> None:
    """Two targets of exactly the sizes that ``show`` promises are enough, whichever way they are named."""
    smallest = [
        int(found)
        for found in re.findall(r"smallest target: .* \((\d+) bytes\)", run("show", "two", "--repo", "repo").stdout)
    ]
    assert len(smallest) == 2
    names = [f"disk{index}={blank(folder / f'least{index}.img', size).name}" for index, size in enumerate(smallest)]
    said = run("plan", "two", "--repo", "repo", *(word for name in names for word in ("--target", name)))
    assert said.returncode == 0, said.stderr
    bare = [word for name in reversed(names) for word in ("--target", name.partition("=")[2])]
    matched = run("plan", "two", "--repo", "repo", *bare)
    assert matched.returncode == 0, matched.stderr
    assert matched.stdout.split()[1] == said.stdout.split()[1]


class Machinery:
    """A machine of made-up disks, as lsblk tells it."""

    def __init__(self, *disks: dict[str, Any]) -> None:
        self._tree = json.dumps({"blockdevices": [{**_LSBLK, **disk} for disk in disks]})
        self.runner = ScriptedRunner(lambda argv: self._tree)


_LSBLK = {"type": "disk", "log-sec": 512, "phy-sec": 512, "model": "SSD", "tran": "sata", "mountpoints": [None]}


def found(node: str, size: int, serial: str) -> dict[str, Any]:
    return {"name": node, "kname": node, "size": size, "serial": serial, "wwn": f"wwn-{serial}"}


def ruled(folder: Path, rules: list[TargetRule], runner: ScriptedRunner, **choices: Any) -> Plan:
    return plan_restore_by_rules(str(folder / "repo"), "two", rules, RestoreChoices(**choices), runner)


def test_the_rules_of_a_job_decide(folder: Path) -> None:
    machine = Machinery(found("/dev/qa", 400 * MIB, "A"), found("/dev/qb", 300 * MIB, "B"))
    rules = [TargetRule(disk="disk1", serial="A"), TargetRule(disk="disk0", wwn="wwn-B")]
    plan = ruled(folder, rules, machine.runner)
    assert {target.source: target.identity.serial for target in plan.targets} == {"disk0": "B", "disk1": "A"}
    alone = ruled(folder, [TargetRule(serial="A")], machine.runner, skip=("disk1",))
    assert [target.source for target in alone.targets] == ["disk0"]


@pytest.mark.parametrize(
    ("rules", "choices", "sentence"),
    [
        ([TargetRule(serial="A")], {}, "does not say for which it is"),
        ([TargetRule(disk="disk0", serial="A")], {}, "does not say where disk1"),
        ([TargetRule(disk="disk9", serial="A")], {}, "disk9, which is not restored"),
        ([TargetRule(disk="disk0", serial="A"), TargetRule(disk="disk1", serial="A")], {}, "named twice"),
        ([TargetRule(disk="disk0", serial="Z"), TargetRule(disk="disk1", serial="A")], {}, "no disk matches"),
        # Nobody is there to be asked, and new disks look like none of the old ones.
        ([], {"match": True}, "It is not clear which disk goes where"),
    ],
)
def test_unattended_what_is_not_clear_is_refused(
    rules: list[TargetRule], choices: dict[str, Any], sentence: str, folder: Path
) -> None:
    machine = Machinery(found("/dev/qa", 400 * MIB, "A"), found("/dev/qb", 300 * MIB, "B"))
    with pytest.raises(LiferaftError) as caught:
        ruled(folder, rules, machine.runner, **choices)
    reasons = getattr(caught.value, "reasons", ())
    assert sentence in caught.value.message or any(sentence in reason for reason in reasons)


def test_planning_for_paths_still_takes_paths(folder: Path) -> None:
    plan = plan_restore(str(folder / "repo"), "one", [folder / "large.img"], RestoreChoices(), SystemRunner())
    assert plan.targets[0].file == str(folder / "large.img")
    assert plan.estimate is not None
    assert len(plan.estimate.steps) == len(plan.steps)
