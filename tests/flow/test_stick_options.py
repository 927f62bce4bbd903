"""What is said of a stick: in words that hold in the wizard, which has no options, and with them in a shell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import ExitCode, LiferaftError, RefusedError
from core.events import ignore
from core.process import SystemRunner
from core.units import GIB, MIB
from rescue.cli.main import main
from rescue.jobs.stick_repository import PlannedRepository
from rescue.jobs.write_usb import StickChoices, describe, plan_stick, write_planned
from restore.target.candidates import Candidate, name_target
from tests.flow.disks import need, run
from tests.flow.sticks import small_iso
from tests.flow.test_stick import garbage

_KEEP = StickChoices(keep_data=True)
_DATA = StickChoices(data=True)


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("xorriso", "mkfs.fat", "mkfs.exfat", "sfdisk")
    return small_iso(tmp_path_factory.mktemp("small") / "iso")


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    return garbage(tmp_path / "stick.img", GIB + 80 * MIB, ends=True)


def said_by_job(iso: Path, stick: Path, choices: StickChoices, repository: PlannedRepository | None = None) -> str:
    """Everything that the job says when it fails: what every face shows."""
    runner = SystemRunner()
    with pytest.raises(LiferaftError) as caught:
        write_planned(plan_stick(iso, stick, choices, runner, ignore, repository=repository), runner, ignore)
    reasons = caught.value.reasons if isinstance(caught.value, RefusedError) else ()
    return " ".join((caught.value.message, *reasons, caught.value.hint))


@pytest.fixture
def said_by_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Everything that the command says when it fails."""

    def say(*words: str | Path) -> str:
        monkeypatch.setattr("sys.argv", ["liferaft", "write-usb", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code not in (ExitCode.DONE, ExitCode.WARNINGS)
        return capsys.readouterr().err

    return say


def test_an_image_that_is_no_medium(stick: Path, tmp_path: Path, said_by_command: Callable[..., str]) -> None:
    other = tmp_path / "other.iso"
    other.write_bytes(bytes(4 * MIB))
    said = said_by_job(other, stick, StickChoices())
    assert "is not an ISO" in said and "--" not in said
    assert "copied or downloaded whole? Another system's image is written with --any-iso." in said_by_command(
        other, stick
    )


def test_no_data_to_keep(iso: Path, stick: Path, said_by_command: Callable[..., str]) -> None:
    said = said_by_job(iso, stick, _KEEP)
    assert "no GPT" in said and "with a new partition for data, or without one" in said and "--" not in said
    assert "--data makes a new partition" in said_by_command(iso, stick, "--keep-data")
    run("sfdisk", "-q", stick, stdin="label: gpt\n")
    said = said_by_job(iso, stick, _KEEP)
    assert "no partitions named" in said and "--" not in said
    assert "--data makes a new partition" in said_by_command(iso, stick, "--keep-data")


def test_data_that_is_in_the_way(iso: Path, stick: Path, said_by_command: Callable[..., str]) -> None:
    run("sfdisk", "-q", stick, stdin="label: gpt\nstart=8192, size=8M, name=LIFERAFT-DATA\n")
    said = said_by_job(iso, stick, _KEEP)
    assert "the data on the stick begins at 4.00 MiB" in said and "--" not in said
    assert "--data makes a new partition" in said_by_command(iso, stick, "--keep-data")


def test_a_disk_that_is_not_removable(
    iso: Path, stick: Path, said_by_command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def inside(*words: Any) -> Candidate:
        return msgspec.structs.replace(name_target(*words), file="")

    monkeypatch.setattr("rescue.jobs.write_usb.name_target", inside)
    said = said_by_job(iso, stick, StickChoices())
    assert f"{stick} does not say that it is removable." in said and "--" not in said
    assert "If it is the right one, say so with --not-removable." in said_by_command(iso, stick)


def test_a_filesystem_that_cannot_be_made(
    iso: Path, stick: Path, said_by_command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.stick.data.find_tool", lambda program: None)
    said = said_by_job(iso, stick, _DATA)
    assert "mkfs.exfat is not installed" in said and "exfatprogs" in said and "--" not in said
    assert "--filesystem names another" in said_by_command(iso, stick, "--data", "--yes")


def test_a_data_partition_that_cannot_be_mounted(
    iso: Path, stick: Path, said_by_command: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where root may not mount, or a kernel lacks the filesystem: what mounts fails, in earnest."""
    monkeypatch.setattr("rescue.jobs.stick_repository.os.geteuid", lambda: 0)
    monkeypatch.setattr("rescue.jobs.stick_repository.find_tool", lambda program: None)
    fails = tmp_path / "bin"
    fails.mkdir()
    (fails / "mount").write_text("#!/bin/sh\necho \"unknown filesystem type 'exfat'\" >&2\nexit 32\n")
    (fails / "mount").chmod(0o755)
    monkeypatch.setenv("PATH", str(fails), prepend=":")
    said = said_by_job(iso, stick, _DATA, PlannedRepository())
    assert "cannot be mounted" in said and "exfat-fuse" in said and "--" not in said
    assert "--data --filesystem ext4" in said_by_command(iso, stick, "--data", "--new-repository", "--yes")


def test_choices_that_exclude_each_other(iso: Path, stick: Path, said_by_command: Callable[..., str]) -> None:
    both = StickChoices(data=True, keep_data=True)
    assert "--" not in said_by_job(iso, stick, both)
    assert "--data makes a new partition and --keep-data" in said_by_command(iso, stick, "--data", "--keep-data")
    assert "--" not in said_by_job(iso, stick, StickChoices(), PlannedRepository())
    assert "Add --data, or --keep-data." in said_by_command(iso, stick, "--new-repository")


def test_data_that_would_be_lost(iso: Path, stick: Path, said_by_command: Callable[..., str]) -> None:
    runner = SystemRunner()
    write_planned(plan_stick(iso, stick, _DATA, runner, ignore), runner, ignore)
    text = describe(plan_stick(iso, stick, StickChoices(), runner, ignore))
    assert "That includes its partition for data." in text and "--" not in text
    # Nobody can be asked here, and nothing is written.
    assert "--keep-data would leave its partition for data alone." in said_by_command(iso, stick)
    assert "--keep-data would" not in said_by_command(iso, stick, "--keep-data")
