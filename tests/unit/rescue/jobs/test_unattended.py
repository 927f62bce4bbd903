import json
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core.errors import ExitCode, RefusedError, UsageError
from core.events import ignore
from images.model.layout import DiskIdentity
from images.model.machine import Firmware, Machine, MachineDisk, SecureBoot
from images.stack.keys import Keys
from images.store.access import Access
from images.store.passphrase import Passphrase
from rescue.jobs.placing import TargetRule, target_disk
from rescue.jobs.unattended import (
    After,
    Job,
    boot_job_source,
    end_machine,
    failed,
    job_access,
    read_job,
    result_line,
    run_job,
)
from restore.plan.plan import Plan
from restore.report import Report
from tests.flow.servers import serving
from tests.runners import ScriptedRunner
from tests.samples import sample_machine


def _disk(node: str, serial: str, *obstacles: str) -> MachineDisk:
    return MachineDisk(
        node=node,
        identity=DiskIdentity(serial=serial, wwn=f"wwn-{serial}"),
        size=1,
        sector_size=512,
        physical_sector_size=512,
        obstacles=obstacles,
    )


def _machine(*disks: MachineDisk) -> Machine:
    return sample_machine(firmware=Firmware.BIOS, secure_boot=SecureBoot.UNKNOWN, disks=disks)


TWO = _machine(_disk("/dev/sda", "A"), _disk("/dev/sdb", "B"))


def test_the_kernel_command_line_wins_over_the_medium(tmp_path: Path) -> None:
    cmdline, medium = tmp_path / "cmdline", tmp_path / "job.json"
    cmdline.write_text("boot=live quiet liferaft.job=http://server/job.json console=tty0\n")
    medium.write_text("{}")
    assert boot_job_source(cmdline=cmdline, medium=medium) == "http://server/job.json"
    cmdline.write_text("boot=live\n")
    assert boot_job_source(cmdline=cmdline, medium=medium) == str(medium)
    medium.unlink()
    assert boot_job_source(cmdline=cmdline, medium=medium) is None


def test_a_job_with_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text('{"repository": "/r", "target": {"serial": "A"}}')
    assert read_job(str(path)) == Job(repository="/r", target=TargetRule(serial="A"))
    assert read_job(f"file://{path}").after is After.STAY


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not a valid job"),
        ("[]", "not a valid job"),
        ('{"repository": "/r"}', "target"),
        ('{"repository": "/r", "target": {}}', "exactly one of"),
        ('{"repository": "/r", "target": {"only": true}, "after": "explode"}', "explode"),
        ('{"repository": "/r", "target": {"only": true}, "gorw": true}', "gorw"),
    ],
)
def test_malformed_jobs_name_the_field(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_job(str(tmp_path / "job.json"))


def test_a_passphrase_lies_beside_the_job(tmp_path: Path) -> None:
    job = {"repository": "/r", "target": {"only": True}}
    path = tmp_path / "job.json"
    for named, found in (("pass", str(tmp_path / "pass")), ("/run/pass", "/run/pass"), ("https://k/p", "https://k/p")):
        path.write_text(json.dumps({**job, "passphrase_file": named}))
        assert read_job(str(path)).passphrase_file == found
        assert read_job(f"file://{path}").passphrase_file == found


def test_a_passphrase_over_http_only_when_asked_for(tmp_path: Path) -> None:
    job = {"repository": "/r", "target": {"only": True}, "passphrase_file": "http://server/pass"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    with pytest.raises(UsageError, match="everybody in the network"):
        read_job(str(tmp_path / "job.json"))
    (tmp_path / "job.json").write_text(json.dumps({**job, "passphrase_over_http": True}))
    assert read_job(str(tmp_path / "job.json")).passphrase_file == "http://server/pass"


def test_beside_a_url_there_are_no_files(tmp_path: Path) -> None:
    job = {"repository": "/r", "target": {"only": True}, "passphrase_file": "pass"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    with serving(tmp_path) as server, pytest.raises(UsageError, match="beside a URL there are no files"):
        read_job(f"{server.url}/job.json")


def test_the_passphrase_of_a_job_is_fetched_or_read(tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("one two three\n")
    with serving(tmp_path) as server:
        job = Job(
            repository="/r",
            target=TargetRule(only=True),
            passphrase_file=f"{server.url}/pass",
            passphrase_over_http=True,
        )
        fetched = job_access(job)
    for access in (fetched, job_access(msgspec.structs.replace(job, passphrase_file=str(tmp_path / "pass")))):
        assert access.encrypted_only
        assert access.ask is not None and access.ask() == Passphrase("one two three")
    assert job_access(msgspec.structs.replace(job, passphrase_file="")).ask is None


def test_planning_and_restoring_get_what_the_job_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pass").write_text("one two three")
    given: list[Access] = []

    def plan(
        repository: str, point: str, rules: object, choices: object, runner: object, access: Access, sink: object
    ) -> Plan:
        given.append(access)
        return Plan(recovery_point="p", name="n", created="c", repository="r", targets=(), steps=(), notes=())

    def run(
        plan: Plan,
        digest: str,
        runner: object,
        sink: object,
        *,
        repository: str,
        hooks: Path | None,
        access: Access,
        keys: Keys,
        scratch: Path | None,
    ) -> Report:
        assert hooks is None
        given.append(access)
        assert scratch == tmp_path / "scratch"
        assert keys.passphrases == ("four five",)
        raise RefusedError("far enough")

    monkeypatch.setattr("rescue.jobs.unattended.plan_restore_by_rules", plan)
    monkeypatch.setattr("rescue.jobs.unattended.run_plan", run)
    # Byte for byte: only the end of the line does not belong to it.
    (tmp_path / "luks").write_text("four five\n")
    job = Job(
        repository="/r",
        target=TargetRule(serial="A"),
        scratch=str(tmp_path / "scratch"),
        passphrase_file=str(tmp_path / "pass"),
        luks_passphrase_file=str(tmp_path / "luks"),
    )
    result = run_job(job, ScriptedRunner(lambda argv: ""), ignore, lambda plan: None)
    assert result.error == "far enough"
    assert [access.encrypted_only for access in given] == [True, True]
    assert {access.ask() for access in given if access.ask} == {Passphrase("one two three")}
    for field in ("passphrase_file", "luks_passphrase_file"):
        missing = msgspec.structs.replace(job, **{field: str(tmp_path / "none")})
        assert run_job(missing, ScriptedRunner(lambda argv: ""), ignore, lambda plan: None).exit_code == ExitCode.USAGE
    assert len(given) == 2, "nothing is planned without the passphrase that the job names"


def test_required_signatures_are_keys(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate().public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    job = Job(repository="/r", target=TargetRule(only=True), require_signature=(pem,))
    assert job_access(job).trusted == (key.public_bytes_raw(),)
    with pytest.raises(UsageError, match="Key 1 of require_signature is not an Ed25519 public key"):
        job_access(msgspec.structs.replace(job, require_signature=("x",)))


def test_target_rules() -> None:
    assert target_disk(TWO, TargetRule(serial="B")).node == "/dev/sdb"
    assert target_disk(TWO, TargetRule(wwn="wwn-A")).node == "/dev/sda"
    one = _machine(_disk("/dev/sda", "A", "mounted"), _disk("/dev/sdb", "B"))
    assert target_disk(one, TargetRule(only=True)).node == "/dev/sdb"


@pytest.mark.parametrize("rule", [TargetRule(only=True), TargetRule(serial="C")])
def test_unattended_a_guess_is_no_answer(rule: TargetRule) -> None:
    with pytest.raises(RefusedError) as caught:
        target_disk(TWO, rule)
    assert "/dev/sda" in caught.value.hint


def test_an_error_becomes_a_result_with_its_exit_code() -> None:
    runner = ScriptedRunner(lambda argv: json.dumps({"blockdevices": []}))
    result = run_job(Job(repository="/r", target=TargetRule(only=True)), runner, ignore, lambda plan: None)
    assert result.exit_code == ExitCode.REFUSED
    assert "no disk matches" in result.error
    line = result_line(result)
    assert line.startswith("LIFERAFT-RESULT {")
    assert "\n" not in line
    assert json.loads(line.removeprefix("LIFERAFT-RESULT "))["exit_code"] == 3


def test_every_reason_reaches_the_result() -> None:
    error = RefusedError("no", reasons=("one", "two"))
    assert failed(error, 1.0).reasons == ("one", "two")


@pytest.mark.parametrize(
    ("after", "calls"), [(After.STAY, []), (After.REBOOT, ["reboot"]), (After.POWEROFF, ["poweroff"])]
)
def test_the_machine_ends_as_told(after: After, calls: list[str]) -> None:
    runner = ScriptedRunner(lambda argv: "")
    end_machine(after, runner)
    assert [call[-1] for call in runner.calls] == calls


def test_a_result_survives_the_round_trip() -> None:
    result = failed(UsageError("bad", hint="good"), 2.0)
    assert msgspec.json.decode(msgspec.json.encode(result), type=type(result)) == result
