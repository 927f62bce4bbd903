"""Making a FAT volume anew when something fails: said clearly, nothing else touched, and run again it succeeds."""

from pathlib import Path

import pytest

from core.errors import DamagedError, DeviceError, LiferaftError
from core.events import ignore
from core.process import SystemRunner
from rescue.jobs.capture import capture_disks
from rescue.jobs.restore import BootChoice, RestoreChoices, plan_restore, run_plan
from restore.plan.plan import Plan
from restore.plan.steps import RemakeFat
from restore.planning.rules import parse_rule
from restore.target.target import Target
from tests.flow.disks import MIB, blank, make_tree, need, run

START, OLD, NEW = MIB, 20 * MIB, 40 * MIB
#: Behind the partition and the wiped ends of it and of the disk: nobody may touch that.
AFTER = START + NEW


class Road:
    """A captured disk, and a plan that makes its FAT larger than it was."""

    def __init__(self, folder: Path) -> None:
        need("sfdisk", "mkfs.fat", "mcopy", "fsck.fat")
        self.repo = folder / "repo"
        self.target = blank(folder / "target.img", 60 * MIB)
        source = folder / "source.img"
        self.tree = make_tree(folder / "tree")
        with source.open("wb") as stream:
            stream.truncate(30 * MIB)
        run("sfdisk", "-q", source, stdin=f"label: dos\nstart={START // 512},size={OLD // 512},type=6\n")
        run("mkfs.fat", "-F", "16", f"--offset={START // 512}", source, str(OLD // 1024))
        run("mcopy", "-s", "-m", "-i", f"{source}@@{START}", self.tree / "etc", "::")
        self.runner = SystemRunner()
        capture_disks([source], str(self.repo), name="", runner=self.runner, sink=ignore)
        self.plan: Plan = plan_restore(
            str(self.repo), "latest", [self.target],
            RestoreChoices(boot=BootChoice.NO, rules=(parse_rule(f"1=grow:{NEW}"),)), self.runner,
        )  # fmt: skip
        assert [step.size for step in self.plan.steps if isinstance(step, RemakeFat)] == [NEW]
        self.before = self.target.read_bytes()

    def run(self) -> None:
        assert not run_plan(self.plan, self.plan.digest, self.runner, ignore).warnings

    def untouched(self) -> bool:
        """Whether what lies behind the partition is as before, but for the last MiB, where signatures are wiped."""
        after = self.target.read_bytes()
        return after[AFTER:-MIB] == self.before[AFTER:-MIB]

    def is_right(self, folder: Path) -> bool:
        part = folder / "part.img"
        part.write_bytes(self.target.read_bytes()[START : START + NEW])
        run("fsck.fat", "-n", part)
        folder = folder / "out"
        folder.mkdir()
        run("mcopy", "-s", "-n", "-i", part, "::", folder)
        wanted = {path.name: path.read_bytes() for path in (self.tree / "etc").iterdir()}
        return {path.name: path.read_bytes() for path in (folder / "etc").iterdir()} == wanted


@pytest.fixture
def road(tmp_path: Path) -> Road:
    return Road(tmp_path)


def _far_in(offset: int) -> bool:
    """Where the files lie: behind the tables."""
    return START + MIB <= offset < AFTER


def test_a_write_that_is_lost_is_found_and_running_again_succeeds(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_at = Target.write_at

    def lossy(target: Target, offset: int, data: bytes) -> None:
        if not _far_in(offset):
            write_at(target, offset, data)

    with monkeypatch.context() as patched:
        patched.setattr(Target, "write_at", lossy)
        with pytest.raises(DeviceError, match="read back"):
            road.run()
    assert road.untouched()
    road.run()
    assert road.untouched()
    assert road.is_right(tmp_path)


def test_a_write_error_ends_in_its_own_words(road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_at = Target.write_at

    def failing(target: Target, offset: int, data: bytes) -> None:
        if _far_in(offset):
            raise DeviceError(f"{target.node}: writing {len(data)} bytes at {offset} failed: Input/output error.")
        write_at(target, offset, data)

    with monkeypatch.context() as patched:
        patched.setattr(Target, "write_at", failing)
        with pytest.raises(DeviceError, match=f"writing .* at {START + MIB} failed"):
            road.run()
    assert road.untouched()
    road.run()
    assert road.is_right(tmp_path)


def test_a_damaged_chunk_is_named(road: Road) -> None:
    (pack,) = sorted((road.repo / "packs").rglob("*.pack")) or sorted(
        path for path in road.repo.rglob("*") if path.is_file() and path.stat().st_size > MIB
    )
    content = bytearray(pack.read_bytes())
    for place in range(len(content) // 3, len(content) * 2 // 3, 4096):
        content[place] ^= 0xFF
    pack.chmod(0o644)
    pack.write_bytes(content)
    with pytest.raises(LiferaftError) as caught:
        road.run()
    assert isinstance(caught.value, DamagedError)
    assert "disk0-part1" in caught.value.message
    assert road.untouched()
