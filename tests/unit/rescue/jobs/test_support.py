"""The support bundle: what is in it, that planted secrets are not, and that what is missing is said."""

import datetime
import json
import zipfile
from pathlib import Path

import pytest

from core.documents import decode_stored
from core.errors import DeviceError, MissingToolError, ProcessError, UsageError
from core.events import ignore
from core.process import Result
from core.units import KIB
from rescue.jobs.records import keep_record
from rescue.jobs.support import SupportContents, bundle_path, save_support_bundle
from rescue.jobs.support_places import SupportPlace, save_to_place, support_places
from tests.runners import ScriptedRunner

NOW = datetime.datetime(2026, 11, 21, 9, 30, 5, tzinfo=datetime.UTC)

PART_LIMIT = 64 * KIB

#: One secret for each place where one may stand; none may be in any part.
SECRETS = (
    "xK-journal-url",
    "xK-job-pass",
    "xK-cmdline",
    "lies on the medium",
    "opens the disks",
    "of the office",
    "has a quote",
    "xK-record",
    "xK-smart",
    "xK-said-by-error",
    "AAAAC3NzaC1lZDI1NTE5xK",
    "b3BlbnNzaC1rZXktdjEAAAAA",
)

_LSBLK = {
    "blockdevices": [
        {"name": "/dev/sda", "kname": "/dev/sda", "type": "disk", "size": 1 << 30, "model": "DISK", "serial": "S1"},
        {"name": "/dev/sdb", "kname": "/dev/sdb", "type": "disk", "size": 0, "model": "EMPTY READER"},
    ]
}
_JOURNAL = """\
Nov 21 09:30:00 liferaft[7]: core.process: run: curl https://me:xK-journal-url@backup.example/repo
Nov 21 09:30:01 kernel: ata1.00: failed command: READ FPDMA QUEUED
Nov 21 09:30:02 liferaft[7]: the passphrase was lies on the medium, really
Nov 21 09:30:02 cryptsetup[8]: opens the disks
Nov 21 09:30:02 wpa_supplicant[9]: of the office, has a quote
Nov 21 09:30:03 sshd[9]: Accepted key ssh-ed25519 AAAAC3NzaC1lZDI1NTE5xK admin
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAA
-----END OPENSSH PRIVATE KEY-----
"""


def _answer(argv: tuple[str, ...]) -> Result | str:
    match argv[0]:
        case "lsblk":
            return json.dumps(_LSBLK)
        case "journalctl":
            return _JOURNAL
        case "smartctl":
            return Result(4, '{"smart_status": {"passed": false}, "password": "xK-smart"}', "")
        case "sensors":
            raise MissingToolError("The program sensors is not installed.")
        case "efibootmgr":
            raise ProcessError(argv, 2, "EFI variables are not supported, token=xK-said-by-error")
        case "dmesg":
            return "é" * PART_LIMIT + "the end\n"
        case tool:
            return f"{tool} said this\n"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rescue.jobs.support.PART_LIMIT", PART_LIMIT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    files = {
        "proc/cmdline": "boot=live liferaft.job=https://a:xK-cmdline@10.0.2.2/job.json quiet\n",
        "proc/meminfo": "MemTotal: 1000000 kB\n",
        "proc/self/mounts": "overlay / overlay rw 0 0\n",
        "run/live/medium/liferaft/medium.json": '{"version": 1}\n',
        "run/live/medium/liferaft/job.json": '{"passphrase": "xK-job-pass", "passphrase_file": "web.passphrase", '
        '"luks_passphrase_file": "disks.txt"}\n',
        "run/live/medium/liferaft/disks.txt": "opens the disks\n",
        "etc/wpa_supplicant/liferaft.conf": 'network={\n\tssid=00\n\tpsk="of the office"\n}\n'
        # "has a quote", as wpa_supplicant.conf(5) takes any bytes.
        "network={\n\tssid=00\n\tsae_password=68617320612071756f7465\n}\n",
        "run/live/medium/liferaft/web.passphrase": "lies on the medium\n",
        "var/log/liferaft/20261121T093000Z-report.json": '{"repository": "https://u:xK-record@h/r", "seconds": 7}\n',
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def _saved(root: Path, out: Path) -> tuple[SupportContents, dict[str, str]]:
    contents = save_support_bundle(out, ScriptedRunner(_answer), ignore, root=root)
    with zipfile.ZipFile(out) as bundle:
        assert bundle.testzip() is None
        return contents, {name: bundle.read(name).decode(errors="replace") for name in bundle.namelist()}


def test_no_planted_secret_is_in_any_part(root: Path, tmp_path: Path) -> None:
    _, parts = _saved(root, tmp_path / "b.zip")
    planted = _JOURNAL + json.dumps(_LSBLK) + "".join(path.read_text() for path in root.rglob("*") if path.is_file())
    assert sum(secret in planted for secret in SECRETS) == len(SECRETS) - 2, "the others are in answers of programs"
    for secret in SECRETS:
        assert [name for name, text in parts.items() if secret in text] == []


def test_what_helps_is_in_it(root: Path, tmp_path: Path) -> None:
    contents, parts = _saved(root, tmp_path / "b.zip")
    assert "failed command: READ FPDMA QUEUED" in parts["journal.txt"]
    assert "backup.example/repo" in parts["journal.txt"]
    assert json.loads(parts["machine.json"])["disks"][0]["identity"]["serial"] == "S1"
    assert json.loads(parts["disks/lsblk.json"]) == _LSBLK
    assert json.loads(parts["disks/smart-sda.json"])["smart_status"] == {"passed": False}
    assert "disks/smart-sdb.json" not in parts, "a reader without a card"
    assert json.loads(parts["liferaft/job.json"])["passphrase_file"] == "web.passphrase"
    assert json.loads(parts["liferaft/records/20261121T093000Z-report.json"])["seconds"] == 7
    assert parts["network/addresses.json"] == "ip said this\n"
    assert decode_stored(parts["contents.json"].encode(), SupportContents, name="contents.json") == contents
    assert {part.path for part in contents.parts if part.size} == set(parts) - {"contents.json"}


def test_what_is_missing_is_said_with_its_reason(root: Path, tmp_path: Path) -> None:
    contents, parts = _saved(root, tmp_path / "b.zip")
    notes = {part.path: part.note for part in contents.parts if part.note}
    assert notes["hardware/sensors.txt"] == "The program sensors is not installed."
    assert "failed with exit code 2" in notes["hardware/boot-entries.txt"]
    assert "not supported" in parts["hardware/boot-entries.txt"], "what it said is kept"
    assert notes["disks/mdstat.txt"] == "It cannot be read: No such file or directory."
    assert "hardware/sensors.txt" in {part.path for part in contents.missing}
    assert notes["dmesg.txt"] == f"Of {2 * PART_LIMIT + 8} bytes the last {PART_LIMIT} were kept."
    assert parts["dmesg.txt"].endswith("the end\n")


def test_a_folder_gets_a_name_with_the_time(tmp_path: Path) -> None:
    assert bundle_path(tmp_path, NOW) == tmp_path / "liferaft-support-20261121T093005Z.zip"
    assert bundle_path(tmp_path / "x.zip", NOW) == tmp_path / "x.zip"
    with pytest.raises(UsageError, match="does not exist"):
        bundle_path(tmp_path / "none" / "x.zip", NOW)
    with pytest.raises(UsageError, match="not a plain file"):
        bundle_path(Path("/dev/null"), NOW)


def test_a_stick_that_was_pulled_out_is_one_sentence(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"stick/b\.zip cannot be written: No such file or directory"):
        save_support_bundle(tmp_path / "stick" / "b.zip", ScriptedRunner(_answer), ignore, root=root)


def _stick(**other: object) -> dict[str, object]:
    part = {
        "name": "/dev/sdb1",
        "kname": "/dev/sdb1",
        "type": "part",
        "size": 8 << 30,
        "fstype": "vfat",
        "label": "KEYS",
    }
    part |= other
    disk = {"name": "/dev/sdb", "kname": "/dev/sdb", "type": "disk", "size": 8 << 30, "model": "Ultra", "tran": "usb"}
    return disk | {"rm": True, "children": [part]}


def _places(*disks: dict[str, object]) -> tuple[SupportPlace, ...]:
    return support_places(ScriptedRunner(lambda argv: json.dumps({"blockdevices": disks})))


def test_sticks_with_fat_are_offered_and_nothing_that_boots_or_has_a_journal() -> None:
    (place,) = _places(_stick())
    assert (place.device, place.kind, place.name) == ("/dev/sdb1", "vfat", "KEYS 8.00 GiB on Ultra")
    assert _places(_stick(parttype="c12a7328-f81f-11d2-ba4b-00a0c93ec93b")) == ()
    assert _places(_stick(parttype="0xef")) == ()
    assert _places(_stick(fstype="ext4")) == ()
    assert _places(_stick(fstype="iso9660")) == ()
    assert _places(_stick(ro=True)) == ()
    assert _places(_stick() | {"rm": False, "tran": "sata"}) == ()


def test_the_stick_that_the_medium_lies_on_as_a_file_is_offered_as_such() -> None:
    (place,) = _places(_stick(mountpoints=["/run/live/findiso"]))
    assert (place.device, place.kind, place.carries_medium, place.stays) == ("/dev/sdb1", "vfat", True, True)
    (place,) = _places(_stick())
    assert not place.carries_medium and not place.stays
    # Not when it is in use elsewhere, too, and not the machine's own disk.
    assert _places(_stick(mountpoints=["/run/live/findiso", "/run/live/medium"])) == ()
    assert _places(_stick(mountpoints=["/run/live/findiso"]) | {"rm": False, "tran": "sata"}) == ()


def test_the_data_partition_of_the_stick_that_the_system_runs_from_is_offered_and_stays() -> None:
    stick = _stick(name="/dev/sdb3", fstype="exfat")
    medium = {"name": "/dev/sdb1", "kname": "/dev/sdb1", "type": "part", "size": 1 << 28, "fstype": "iso9660"}
    stick["children"] = [medium | {"mountpoints": ["/run/live/medium"]}, *stick["children"]]  # type: ignore[misc]
    (place,) = _places(stick)
    assert (place.device, place.carries_medium, place.stays) == ("/dev/sdb3", False, True)


def test_what_the_person_mounted_is_offered_and_the_medium_is_not(tmp_path: Path) -> None:
    (place,) = _places(_stick(fstype="ext4", mountpoints=[str(tmp_path)]))
    assert (place.folder, place.device) == (str(tmp_path), "")
    assert _places(_stick(mountpoints=["/run/live/medium"])) == ()
    assert _places(_stick(mountpoints=["/"])) == ()


def test_a_stick_is_mounted_for_the_moment_of_writing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("rescue.jobs.mounting.PLACE", tmp_path / "run")
    written = []

    def answer(argv: tuple[str, ...]) -> Result | str:
        if argv[0] == "umount":
            for path in Path(argv[1]).iterdir():
                written.append(path.name)
                path.unlink()
        return _answer(argv)

    runner = ScriptedRunner(answer)
    name = save_to_place(SupportPlace(name="x", device="/dev/sdb1", kind="vfat"), runner, ignore)
    mounts = [call for call in runner.calls if call[0] in ("mount", "umount")]
    assert mounts[0][:6] == ("mount", "-t", "vfat", "-o", "rw,nosuid,nodev,noexec", "/dev/sdb1")
    assert mounts[-1] == ("umount", mounts[0][6])
    assert runner.calls[-1][0] == "umount"
    assert written == [name]
    assert not list((tmp_path / "run").glob("*/*"))


def test_the_stick_with_the_medium_is_writable_for_the_moment_of_writing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("rescue.jobs.support_places._FINDISO", str(tmp_path / "findiso"))
    (tmp_path / "findiso").mkdir()
    runner = ScriptedRunner(_answer)
    place = SupportPlace(name="x", device="/dev/sdb1", kind="vfat", carries_medium=True)
    name = save_to_place(place, runner, ignore)
    assert [path.name for path in (tmp_path / "findiso").iterdir()] == [name]
    mounts = [call for call in runner.calls if call[0] in ("mount", "umount")]
    assert [call[:3] for call in mounts] == [("mount", "-o", "remount,rw"), ("mount", "-o", "remount,ro")]
    # Whatever goes wrong between.
    runner = ScriptedRunner(_answer)
    monkeypatch.setattr("rescue.jobs.support_places._FINDISO", str(tmp_path / "gone" / "findiso"))
    with pytest.raises(UsageError, match="gone does not exist"):
        save_to_place(place, runner, ignore)
    assert runner.calls[-1][:3] == ("mount", "-o", "remount,ro")


def test_records_are_kept_where_there_is_a_place_for_them(tmp_path: Path) -> None:
    document = SupportContents(liferaft="x", made=NOW, kernel="6", parts=())
    assert keep_record("plan", document, place=tmp_path / "none") is None
    path = keep_record("plan", document, place=tmp_path)
    assert path is not None
    assert path.name.endswith("Z-plan.json")
    assert decode_stored(path.read_bytes(), SupportContents, name="record") == document
