"""The build as a whole, with nothing built: what it refuses, and that refusing leaves nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.medium import build_iso
from builder.recipe.recipe import Recipe
from builder.rootfs import bootstrap
from core.errors import LiferaftError, ProcessError, RefusedError, UsageError
from core.events import Event, ignore
from core.process import Result
from rescue.jobs.build import build_medium

_SOURCES = ("deb http://mirror.example/debian trixie main",)


class _Runner:
    """Records what would run; mmdebstrap fails with ``said``."""

    def __init__(self, said: str = "") -> None:
        self.started: list[str] = []
        self._said = said

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        self.started.append(argv[0])
        if argv[0].endswith("apt-helper"):
            Path(argv[3]).write_text("Suite: stable\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n")
        if argv[0] == "mmdebstrap":
            raise ProcessError(tuple(argv), 25, self._said)
        return Result(0, "", "")


@pytest.mark.parametrize(("out", "said"), [("folder", "is a folder"), ("missing/x.iso", "does not exist")])
def test_a_bad_target_is_refused_before_anything_runs(tmp_path: Path, out: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    runner = _Runner()
    with pytest.raises(UsageError, match=said):
        build_iso(Recipe(), tmp_path / out, tmp_path / "cache", tmp_path, runner, ignore)
    assert runner.started == [] and not (tmp_path / "cache").exists()


def test_without_root_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(RefusedError, match="needs root") as caught:
        build_iso(Recipe(), tmp_path / "x.iso", tmp_path / "cache", tmp_path, _Runner(), ignore)
    assert "sudo" in caught.value.hint


def test_mmdebstraps_own_reason_is_named_not_its_last_line() -> None:
    said = "I: working\nE: Unable to locate package rsyncc\nI: cleaning\nE: mmdebstrap failed to run"
    with pytest.raises(LiferaftError, match="Unable to locate package rsyncc"):
        bootstrap(["mmdebstrap", "trixie"], _SOURCES, _Runner(said), ignore)


def test_mmdebstraps_steps_are_told_without_the_scripts_of_hooks() -> None:
    """The lines are mmdebstrap 1.5's."""
    told: list[str] = []

    class Runner:
        def run(self, argv: Sequence[str], *, on_line: Callable[[str], None], **options: Any) -> Result:
            hook = """I: running --customize-hook in shell: sh -c 'rm -f "$1/etc/machine-id"' exec /tmp/tree"""
            for line in ("I: running apt-get update...", "Get:1 http://m InRelease", hook, "I: success in 9.1 seconds"):
                on_line(line)
            return Result(0, "", "")

    bootstrap(["mmdebstrap", "trixie"], _SOURCES, Runner(), lambda event: told.append(event.message))
    assert told == ["  running apt-get update...", "  success in 9.1 seconds"]


def test_an_initrd_that_could_not_be_made_is_told_with_its_reason() -> None:
    """The lines are mkinitramfs's and update-initramfs's (initramfs-tools of Debian 13), then mmdebstrap's."""
    said = (
        "I: running --customize-hook in shell\n"
        "update-initramfs: Generating /boot/initrd.img-6.12.117+deb13-amd64\n"
        "E: /etc/initramfs-tools/hooks/zz-liferaft failed with return 1.\n"
        "update-initramfs: failed for /boot/initrd.img-6.12.117+deb13-amd64 with 1.\n"
        "E: command failed: chroot\nE: mmdebstrap failed to run"
    )
    with pytest.raises(LiferaftError) as caught:
        bootstrap(["mmdebstrap", "trixie"], _SOURCES, _Runner(said), ignore)
    assert caught.value.message == (
        "The medium's initrd could not be made: /etc/initramfs-tools/hooks/zz-liferaft failed with return 1."
    )


def test_a_failed_build_leaves_the_old_medium_and_no_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    out = tmp_path / "x.iso"
    out.write_bytes(b"old")
    with pytest.raises(LiferaftError):
        build_iso(Recipe(), out, tmp_path / "cache", tmp_path, _Runner("E: no mirror"), ignore)
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "x.iso"]
    # What was learned of the archive stays; nothing that was being built does.
    assert {path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir()} == {
        "lock",
        "state",
        "lists",
        "resolved",
        "debs",
    }


def test_a_job_that_the_medium_would_refuse_is_refused_while_building(tmp_path: Path) -> None:
    recipe = tmp_path / "site.toml"
    recipe.write_text('[job]\nrepository = "http://10.0.0.1/repo"\ntarget = { serial = "X" }\naftr = "reboot"\n')
    runner = _Runner()
    with pytest.raises(UsageError, match="aftr") as caught:
        build_medium(recipe, tmp_path / "x.iso", tmp_path / "cache", ignore, runner)
    assert str(recipe) in caught.value.message and runner.started == []


def _job_recipe(folder: Path, passphrase_file: str) -> Path:
    (folder / "site.toml").write_text(
        f'[job]\nrepository = "/r"\ntarget = {{ only = true }}\npassphrase_file = "{passphrase_file}"\n'
    )
    return folder / "site.toml"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "cannot be read"),
        ("two-lines", "has 2 lines"),
        ("folder/pass", "without folders"),
        ("job.json", "cannot lie beside the job"),
        ("a b", "cannot lie beside the job"),
        ("http://server/pass", "everybody in the network"),
    ],
)
def test_a_passphrase_that_cannot_go_onto_the_medium_is_refused_first(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "two-lines").write_text("a\nb\n")
    for fine in ("job.json", "a b"):
        (tmp_path / fine).write_text("secret\n")
    runner = _Runner()
    with pytest.raises(UsageError, match=said):
        build_medium(_job_recipe(tmp_path, name), tmp_path / "x.iso", tmp_path / "cache", ignore, runner)
    assert runner.started == []


def test_a_passphrase_goes_onto_the_medium_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "web.pass").write_text("secret words\n")
    said: list[Event] = []
    recipe = _job_recipe(tmp_path, "web.pass")
    with pytest.raises(LiferaftError):
        build_medium(recipe, tmp_path / "x.iso", tmp_path / "cache", said.append, _Runner("E: no mirror"))
    warnings = [event.message for event in said if event.warning]
    assert any("will hold the passphrase" in message for message in warnings)
    assert not any("secret words" in event.message for event in said)
