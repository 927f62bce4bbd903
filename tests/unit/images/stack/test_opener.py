"""Opening: read-only in every case, secrets only on standard input, and what was opened closes in reverse."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import ProcessError
from core.events import Event
from core.process import Result
from images.stack.keys import Keys
from images.stack.luks import Header
from images.stack.lvm_text import parse_group
from images.stack.opener import NotOpenedError, Opener
from tests.runners import ScriptedRunner
from tests.unit.images.stack.members import DATA

IDLE = '{"blockdevices": [{"name": "/dev/vda", "kname": "/dev/vda", "type": "disk", "size": 1000}]}'
UUID = "346d9c6e-dd9e-4798-a2f1-27291b0ebdb7"
#: What this process opens is called so, and nobody else's.
OURS = f"liferaft-{os.getpid()}-"
HEADER = Header(version=2, uuid=UUID, payload_offset=16 << 20)


def runner(answer: Callable[[tuple[str, ...]], Result | str] = lambda argv: "") -> ScriptedRunner:
    """A machine on which nothing is open."""
    return ScriptedRunner(lambda argv: IDLE if argv[0] == "lsblk" else answer(argv))


def started(ran: ScriptedRunner) -> list[tuple[str, ...]]:
    """What it was asked to run, without looking and waiting."""
    return [argv for argv in ran.calls if argv[0] not in ("lsblk", "udevadm")]


def test_an_array_is_assembled_read_only() -> None:
    ran = runner()
    with Opener(ran, Keys(), lambda event: None) as opener:
        assert opener.array("md0", "u:u:u:u", ["/dev/vda1", "/dev/vdb1"]) == f"/dev/md/{OURS}md0"
    assert started(ran) == [
        (
            "mdadm",
            "--assemble",
            "--readonly",
            "--run",
            "--config=none",
            "--uuid=u:u:u:u",
            f"/dev/md/{OURS}md0",
            "/dev/vda1",
            "/dev/vdb1",
        )
    ]


def test_an_array_that_runs_is_used_and_left_alone() -> None:
    tree = (
        '{"blockdevices": [{"name": "/dev/vda", "kname": "/dev/vda", "type": "disk", "size": 1000, "children": '
        '[{"name": "/dev/md127", "kname": "/dev/md127", "type": "raid1", "size": 900}]}]}'
    )
    ran = ScriptedRunner(lambda argv: tree)
    with Opener(ran, Keys(), lambda event: None) as opener:
        assert opener.array("md0", "u", ["/dev/vda"]) == "/dev/md127"
    assert started(ran) == []


def test_a_passphrase_is_never_an_argument() -> None:
    ran = runner(lambda argv: Result(2 if "/key" in argv else 0, "", ""))
    with Opener(ran, Keys((Path("/key"),), ("the secret",)), lambda event: None) as opener:
        assert opener.luks(HEADER, "/dev/vda") == (f"/dev/mapper/{OURS}{UUID}", "")
    opening = [argv for argv in started(ran) if argv[:2] == ("cryptsetup", "open")]
    assert len(opening) == 2
    assert all("--readonly" in argv for argv in opening)
    assert not any("secret" in word for argv in ran.calls for word in argv)
    assert "the secret" in ran.inputs.values()


def test_without_a_key_nothing_is_started() -> None:
    ran = runner()
    with Opener(ran, Keys(), lambda event: None) as opener, pytest.raises(NotOpenedError, match="no key was given"):
        opener.luks(HEADER, "/dev/vda")
    assert started(ran) == []


def test_a_person_is_asked_until_nothing_is_typed() -> None:
    ran = runner(lambda argv: Result(2, "", ""))
    answers = iter(["wrong", "again", ""])
    keys = Keys(ask=lambda name: next(answers))
    with Opener(ran, keys, lambda event: None) as opener, pytest.raises(NotOpenedError):
        opener.luks(HEADER, "/dev/vda")
    assert list(ran.inputs.values()) == ["wrong", "again"]


def test_a_group_with_a_thin_pool_is_activated_on_copies_only() -> None:
    answers = {"blockdev": "209715200\n", "losetup": "/dev/loop9\n"}
    ran = runner(lambda argv: answers.get(argv[0], ""))
    group = parse_group((DATA / "vgcfgbackup.txt").read_text())
    with Opener(ran, Keys(), lambda event: None) as opener, pytest.raises(NotOpenedError, match="does not activate"):
        opener.group(group, ["/dev/vdf", "/dev/vdg"])
    tables = [argv for argv in ran.calls if argv[:2] == ("dmsetup", "create")]
    assert [argv[-1] for argv in tables] == [
        "0 409600 snapshot /dev/vdf /dev/loop9 N 8",
        "0 409600 snapshot /dev/vdg /dev/loop9 N 8",
    ]
    for argv in ran.calls:
        if argv[0] in ("vgchange", "lvchange"):
            assert argv[argv.index("--devices") + 1].split(",") == [
                f"/dev/mapper/{OURS}copy-vdf",
                f"/dev/mapper/{OURS}copy-vdg",
            ]
            assert "metadata_read_only = 1" in argv[argv.index("--config") + 1]
    # Everything is taken down, the uppermost first.
    verbs = [argv[:2] for argv in started(ran)]
    closing = [("dmsetup", "remove"), ("losetup", "--detach")] * 2
    assert verbs[-4:] == closing
    assert [argv[-2:] for argv in ran.calls if argv[0] == "vgchange"] == [("-K", "tvg"), ("n", "tvg")]


def test_a_plain_group_is_mapped_read_only() -> None:
    text = (DATA / "vgcfgbackup.txt").read_text().replace('type = "thin-pool"', 'type = "striped"')
    ran = runner()
    with Opener(ran, Keys(), lambda event: None) as opener, pytest.raises(NotOpenedError):
        opener.group(parse_group(text), ["/dev/vdf", "/dev/vdg"])
    activating = next(argv for argv in ran.calls if argv[0] == "lvchange")
    assert 'read_only_volume_list = [ "tvg" ]' in activating[activating.index("--config") + 1]


def test_what_does_not_close_is_said_and_the_rest_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: True)
    said: list[Event] = []

    def answer(argv: tuple[str, ...]) -> str:
        if argv[:2] == ("cryptsetup", "close"):
            raise ProcessError(argv, 5, "device is busy")
        return ""

    ran = runner(answer)
    with pytest.raises(KeyError), Opener(ran, Keys((Path("/key"),)), said.append) as opener:
        opener.array("md0", "u", ["/dev/vda"])
        opener.luks(HEADER, f"/dev/md/{OURS}md0")
        raise KeyError
    assert started(ran)[-1] == ("mdadm", "--stop", f"/dev/md/{OURS}md0")
    assert [event.warning for event in said] == [True]
    assert "does not close" in said[0].message
