"""``plan --check`` judges damage as a restore does: what parity brings back is a warning, what is lost is a reason."""

import re
from pathlib import Path

import msgspec
import pytest

from core.documents import encode_readable
from images.model.manifest import Manifest
from images.store.repository import Repository, pack_name
from restore.plan.plan import Plan
from restore.plan.steps import CreateTable
from tests.flow.command import Command, Said
from tests.flow.disks import need
from tests.flow.faulty import old_target, plan
from tests.flow.small import make, noise_disk, opened, take


def partition_root(repository: Repository) -> bytes:
    """The id of the root page of the partition's map: what every look at the recovery point reads."""
    manifest: Manifest = repository.manifest(repository.points()[0].id)
    root = next(volume.root for volume in manifest.volumes if volume.partition)
    assert root is not None
    return bytes.fromhex(root)


class Checked:
    """A repository, a plan saved from it, and what ``plan --check`` and ``restore`` say of it."""

    def __init__(self, place: Path, parity: int, liferaft: Command) -> None:
        need("sfdisk", "lsblk")
        self.folder = make(place / "repo", parity=parity)
        self.disk = noise_disk(place / "disk.img")
        take(self.folder, self.disk)
        self.target = old_target(place / "target.img")
        self.plan = plan(self.folder, self.target)
        self.saved = place / "plan.json"
        self._liferaft = liferaft
        self.saved.write_text(encode_readable(self.plan))

    @property
    def pack(self) -> Path:
        repository = opened(self.folder)
        place = repository.locate(partition_root(repository))
        assert place is not None
        found = self.folder / pack_name(place.pack)
        found.chmod(0o600)
        return found

    def turn_a_bit(self) -> None:
        """In the root page's record, behind its header."""
        repository = opened(self.folder)
        place = repository.locate(partition_root(repository))
        assert place is not None
        pack = self.pack
        content = bytearray(pack.read_bytes())
        content[place.offset + 70] ^= 1
        pack.write_bytes(content)

    def check(self) -> Said:
        return self._liferaft("plan", "--check", self.saved)

    def restore(self, made: Plan) -> Said:
        self.saved.write_text(encode_readable(made))
        return self._liferaft("restore", "--plan", self.saved, "--confirm", made.digest, "--progress", "none")


@pytest.fixture
def liferaft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Command(monkeypatch, capsys)


def test_a_damaged_chunk_that_parity_brings_back_is_a_warning(tmp_path: Path, liferaft: Command) -> None:
    checked = Checked(tmp_path, 2, liferaft)
    assert checked.check().returncode == 0
    checked.turn_a_bit()
    said = checked.check()
    assert said.returncode == 4, said.stderr
    assert "warning: A restore reads around 1 damaged pack; this check met 1 damaged chunk and read them so." in (
        said.stderr
    )
    assert re.search(r"warning: .*\.pack is damaged and is read through its parity", said.stderr)
    assert "It can be carried out, with warnings." in said.stderr
    done = checked.restore(checked.plan)
    assert done.returncode == 4, done.stderr
    size = checked.disk.stat().st_size
    assert checked.target.read_bytes()[1 << 20 : size] == checked.disk.read_bytes()[1 << 20 :]


def test_a_pack_whose_end_is_gone_is_a_warning_too(tmp_path: Path, liferaft: Command) -> None:
    checked = Checked(tmp_path, 2, liferaft)
    pack = checked.pack
    pack.write_bytes(pack.read_bytes()[:-20_000])
    said = checked.check()
    assert said.returncode == 4, said.stderr
    assert "1 damaged pack" in said.stderr
    assert "truncated" in said.stderr


def test_what_nothing_brings_back_is_a_reason(tmp_path: Path, liferaft: Command) -> None:
    checked = Checked(tmp_path, 0, liferaft)
    checked.turn_a_bit()
    said = checked.check()
    assert said.returncode == 3, said.stderr
    assert "is damaged" in said.stderr
    assert checked.restore(checked.plan).returncode == 5
    assert not any(byte != 0xA5 for byte in checked.target.read_bytes()[: 1 << 20])


def test_damage_of_what_the_plan_leaves_out_is_no_reason(tmp_path: Path, liferaft: Command) -> None:
    """A partition that is made and left empty, as docs/plan.md says how."""
    checked = Checked(tmp_path, 0, liferaft)
    checked.turn_a_bit()
    steps = [step for step in checked.plan.steps if not getattr(step, "volume", "").endswith("-part1")]
    assert len(steps) < len(checked.plan.steps) and any(isinstance(step, CreateTable) for step in steps)
    made = msgspec.structs.replace(checked.plan, steps=tuple(steps))
    checked.saved.write_text(encode_readable(made))
    said = checked.check()
    assert said.returncode == 0, said.stderr
    assert checked.restore(made).returncode == 0
