"""The proof, step by step: capture, medium, restore by the rescue system, comparison, boot from the disk alone.

Used by the boot ring (``test_restore.py``) and by the demonstration (``demo.py``).
"""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import ExitCode, LiferaftError
from core.process import Runner
from core.units import GIB, format_size
from tests.boot.compare import Comparison, check_filesystems, check_identities, compare_disks
from tests.boot.console import Console
from tests.boot.disk import read_table
from tests.boot.machine import Controller, Drive, Machine, RunningMachine
from tests.boot.place import TREE
from tests.boot.server import RepositoryServer
from tests.boot.system import BootCheck, Source, boot_and_check, switch_off
from tests.boot.timeline import Timeline
from tests.boot.wizard import WizardDriver

#: Larger than the sources, so that the last partition has somewhere to grow.
TARGET_SIZE = 5 * GIB
TARGET_SERIAL = "LRTARGET"

#: Seconds from power-on to the result line; emulation on a busy machine is slow.
RESTORE_TIMEOUT = 1500
BOOT_TIMEOUT = 600

#: Exit codes of work that was done.
FINISHED = frozenset({ExitCode.DONE, ExitCode.WARNINGS})
#: The drivers under which the kernel shows each controller.
DRIVERS = {Controller.AHCI: "ahci", Controller.NVME: "nvme", Controller.VIRTIO: "virtio-pci"}


@dataclass(frozen=True)
class Recovered:
    """What a restore by the rescue system said.

    Attributes:
        result: the document of the ``LIFERAFT-RESULT`` line; the same was posted to the report URL.
        seconds: from power-on until the machine was off again.
    """

    result: dict[str, Any]
    seconds: float


@dataclass
class Lab:
    """A repository, a server over it, and the captures in it."""

    folder: Path
    runner: Runner
    timeline: Timeline = field(default_factory=Timeline)
    points: dict[str, str] = field(default_factory=dict)
    media: dict[str, Path] = field(default_factory=dict)

    @property
    def repository(self) -> Path:
        """The repository folder."""
        return self.folder / "repo"

    def serve(self, name: str, documents: Path | None = None) -> RepositoryServer:
        """A server over the repository, for one restore; ``documents`` is what lies below ``/``."""
        folder = self.folder / f"server-{name}"
        folder.mkdir(exist_ok=True)
        return RepositoryServer(self.repository, folder, documents)

    def capture(self, source: Source) -> str:
        """Capture a source's disk (once); returns the recovery point's id."""
        if source.firmware not in self.points:
            argv = ["capture", str(source.disk), "--repo", str(self.repository), "--name", source.firmware, "--json"]
            result = json.loads(liferaft(argv, self.runner))
            self.points[source.firmware] = result["id"]
            self.timeline.say(f"captured {source.disk.name} ({source.firmware}) as {result['id']}")
        return self.points[source.firmware]

    def medium(self, name: str, recipe: str) -> Path:
        """The medium of a recipe's text, built when no test asked for the same one before."""
        if recipe in self.media:
            return self.media[recipe]
        path = self.folder / f"{name}.toml"
        path.write_text(recipe)
        iso = self.folder / f"{name}.iso"
        # A recipe with a passphrase on the medium is warned of.
        liferaft(["build", str(path), "-o", str(iso)], self.runner, success=FINISHED)
        self.timeline.say(f"built the medium {iso.name}, {format_size(iso.stat().st_size)}")
        self.media[recipe] = iso
        return iso

    def netboot_set(self, name: str) -> Path:
        """Build the netboot set of the embedded recipe."""
        folder = self.folder / f"{name}-set"
        liferaft(["build", "--netboot", str(folder)], self.runner, success=FINISHED)
        self.timeline.say(f"built the netboot set {folder.name}")
        return folder

    def blank_disk(self, name: str) -> Path:
        """A target: all zeroes, larger than any source."""
        disk = self.folder / f"{name}.raw"
        with disk.open("wb") as stream:
            stream.truncate(TARGET_SIZE)
        return disk


def liferaft(argv: list[str], runner: Runner, *, success: frozenset[int] = frozenset({ExitCode.DONE})) -> str:
    """Run this tree's ``liferaft``; returns its standard output."""
    program = Path(sys.executable).with_name("liferaft")
    if not program.exists():
        raise LiferaftError(f"{program} does not exist.", hint="make setup")
    settings = {name: os.environ[name] for name in ("XDG_CACHE_HOME",) if name in os.environ}
    return runner.run([str(program), *argv], success=success, timeout=580, cwd=str(TREE), env=settings).stdout


def job(server: RepositoryServer, point: str, after: str) -> dict[str, Any]:
    """A job document for the disk with the target's serial number."""
    return {
        "version": 1,
        "repository": server.url("repo"),
        "recovery_point": point,
        "target": {"serial": TARGET_SERIAL},
        "grow": True,
        "report_url": server.url("report"),
        "after": after,
    }


def recipe_with_url(url: str) -> str:
    """A recipe whose medium fetches its job."""
    return f'kernel_parameters = ["liferaft.job={url}"]\n'


def recipe_with_job(document: dict[str, Any]) -> str:
    """A recipe whose medium carries its job."""
    lines = ["[job]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in document.items() if not isinstance(value, dict)]
    lines += ["[job.target]", *(f"{name} = {json.dumps(value)}" for name, value in document["target"].items())]
    return "\n".join(lines) + "\n"


def rescue_machine(
    name: str, source: Source, medium: Drive, target: Path, controller: Controller, variables: Path | None
) -> Machine:
    """The machine to restore: the medium before the blank disk."""
    drives = (medium, Drive(target, controller, TARGET_SERIAL))
    return Machine(f"{name}-rescue", source.firmware, drives, variables)


def restore_unattended(machine: Machine, server: RepositoryServer, timeline: Timeline) -> Recovered:
    """Switch the machine on with a medium that carries a job; returns when it is off again.

    Raises:
        AssertionError: the restore failed, or no report was posted.
    """
    with machine.run() as running:
        timeline.say(f"{machine.name}: power on ({machine.firmware}, {machine.drives[-1].controller})")
        result = wait_result(running)
        timeline.say(f"{machine.name}: {_short(result)}")
        report = server.wait_report(1, 60)
        seconds = running.wait_off(180)
    assert report == result, f"the posted report is not the printed one: {report}"
    assert result["report"]["verified"], f"what was written was not read back: {result}"
    assert any('" 206 ' in line for line in server.requests()), "nothing was read with range requests"
    timeline.say(f"{machine.name}: off after {seconds:.0f} s")
    return Recovered(result, seconds)


def restore_by_hand(machine: Machine, server: RepositoryServer, point: str, timeline: Timeline) -> float:
    """Restore through the wizard, by keys over the serial line; returns seconds until the machine was off.

    Raises:
        AssertionError: a screen did not come, or showed an error.
    """
    with machine.run() as running:
        timeline.say(f"{machine.name}: power on ({machine.firmware}, {machine.drives[-1].controller})")
        wizard = WizardDriver(running.console)
        rows = wizard.restore(server.url("repo"), point, TARGET_SERIAL, RESTORE_TIMEOUT)
        timeline.say(f"{machine.name}: the wizard shows: {rows[0].strip()}")
        print("\n".join(rows))
        wizard.power_off()
        seconds = running.wait_off(180)
    timeline.say(f"{machine.name}: off after {seconds:.0f} s")
    return seconds


def _short(result: dict[str, Any]) -> str:
    report = result.get("report") or {}
    said = [*report.get("boot", []), *(f"warning: {text}" for text in report.get("warnings", []))]
    return f"exit code {result['exit_code']}, restored in {result['seconds']} s; " + "; ".join(said)


def wait_result(running: RunningMachine) -> dict[str, Any]:
    """The document of the result line; raises AssertionError when the restore did not succeed."""
    result = read_result(running.console, RESTORE_TIMEOUT)
    assert result["exit_code"] in (0, 4), f"the restore failed: {result}"
    return result


def read_result(console: Console, timeout: float) -> dict[str, Any]:
    """The document of the result line, once all of it was heard: its end is the line's, not any closing brace."""
    match = console.expect(r"LIFERAFT-RESULT (\{.*\})\s*\n", timeout, against="Kernel panic|ALERT!")
    result: dict[str, Any] = json.loads(match.group(1))
    return result


def examine(source: Source, target: Path, runner: Runner, timeline: Timeline) -> Comparison:
    """Compare the restored disk with its source, at rest; every file, every identity, every filesystem."""
    check_identities(source, target, runner, grown=True)
    timeline.say("the partition table has the source's identities (sfdisk), the filesystems theirs (blkid)")
    for verdict in check_filesystems(target, read_table(target, runner), runner):
        timeline.say(f"fsck -n is clean: {verdict}")
    comparison = compare_disks(source, target, runner)
    for line in comparison.told():
        print(f"            {line}")
    assert not comparison.wrong, "files differ: " + "; ".join(map(str, comparison.wrong[:20]))
    timeline.say(
        f"{comparison.files} files, {format_size(comparison.content_bytes)}: every digest equals the source's, "
        f"{len(comparison.differences)} rewritten by boot repair"
    )
    return comparison


def boot_restored(
    name: str, source: Source, target: Path, controller: Controller, variables: Path | None, timeline: Timeline
) -> BootCheck:
    """Boot from the disk alone, medium detached, to a login prompt; check that it is the source's system."""
    machine = Machine(f"{name}-restored", source.firmware, (Drive(target, controller, TARGET_SERIAL),), variables)
    with machine.run() as running:
        timeline.say(f"{machine.name}: power on, from the disk alone ({controller})")
        check = boot_and_check(running, BOOT_TIMEOUT)
        timeline.say(f"{machine.name}: login prompt, machine-id {check.machine_id}, marker {check.marker}")
        check_is_source(check, source, controller)
        switch_off(running)
    return check


def check_is_source(check: BootCheck, source: Source, controller: Controller) -> None:
    """The booted system is the source's, on the other controller, on a grown filesystem."""
    was = source.check
    for name in ("machine_id", "marker", "root_uuid", "root_fstype", "esp_uuid", "swaps", "firmware", "failed"):
        assert getattr(check, name) == getattr(was, name), f"{name}: {getattr(was, name)!r}, now {check}"
    assert check.driver == DRIVERS[controller], check
    assert check.root_size > was.root_size, f"the root filesystem was not grown: {check.root_size} bytes"
