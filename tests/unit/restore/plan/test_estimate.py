"""Estimates, with rates and clocks that the test owns."""

import datetime
from pathlib import Path

import msgspec
import pytest

from core.units import GIB, MIB
from images.model.extents import Extent
from images.model.layout import DiskIdentity, FilesystemKind
from images.model.machine import Firmware
from restore.plan.estimate import Rate, Seconds, Work, estimate
from restore.plan.forecast import remember
from restore.plan.plan import Plan, TargetDisk
from restore.plan.rates import RateBook, Reached, read_book, target_rates, write_book
from restore.plan.steps import (
    RemakeFat,
    RemakeVolume,
    RepairBoot,
    RestoreVolume,
    Step,
    VerifyVolume,
    WipeSignatures,
    WriteHead,
)
from restore.report import Report, StepReport
from restore.target.candidates import Candidate

DAY = datetime.date(2026, 11, 20)


def rate(work: Work, disk: str, low: int, high: int) -> Rate:
    return Rate(work=work, disk=disk, low=low * MIB, high=high * MIB, basis="")


def volume(disk: str, data: int, zero: int = 0) -> RestoreVolume:
    return RestoreVolume(
        disk=disk, volume=f"{disk}-part1", offset=0, size=data + zero, data=data, zero=zero, stored=data // 2
    )


RATES = (rate(Work.FETCH, "", 100, 400), rate(Work.READ, "disk0", 50, 200), rate(Work.WRITE, "disk0", 25, 800))


def test_the_slower_of_repository_and_target_decides() -> None:
    found = estimate([volume("disk0", 800 * MIB, 100 * MIB)], RATES, {})
    # At best 400 MiB/s of the repository; at worst 25 MiB/s of the target, and zeros that have to be written.
    assert found.steps == (Seconds(2.0, 32.0 + 4.0),)
    assert (found.stored, found.written, found.zeroed) == (400 * MIB, 800 * MIB, 100 * MIB)


def test_reading_back_is_free_at_best_but_for_a_sample() -> None:
    back = VerifyVolume(disk="disk0", volume="disk0-part1", offset=0, size=900 * MIB)
    found = estimate([volume("disk0", 800 * MIB, 100 * MIB), back], RATES, {})
    # 800 / 64 MiB at 200 MiB/s, rounded; 900 MiB at 50 MiB/s.
    assert found.steps[1] == Seconds(0.1, 18.0)
    assert found.read_back == 900 * MIB
    assert found.total == Seconds(2.1, 54.0)


def test_what_is_not_allocated_is_not_read_back() -> None:
    """A logical volume of 100 GiB with 80 MiB in it."""
    back = VerifyVolume(disk="lv-root", volume="lv-root", offset=0, size=100 * GIB)
    step = RestoreVolume(
        disk="lv-root", volume="lv-root", offset=0, size=100 * GIB, data=80 * MIB, zero=20 * MIB, stored=MIB
    )
    found = estimate([step, back], RATES, {})
    # 100 MiB at 50 MiB/s.
    assert found.steps[1].high == 2.0
    assert found.read_back == 100 * MIB


def test_boot_code_is_written_too() -> None:
    head = WriteHead(disk="disk0", volume="disk0-head", extents=(Extent(0, 446), Extent(512, MIB)))
    assert estimate([head, volume("disk0", 8 * MIB)], RATES, {}).written == 446 + MIB - 512 + 8 * MIB


def test_what_is_made_anew_counts() -> None:
    common = {"volume": "v", "number": 1, "offset": 0, "size": GIB, "data": 800 * MIB, "stored": 300 * MIB}
    fat = RemakeFat(disk="disk0", kind=FilesystemKind.FAT32, old_lba=0, **common)  # type: ignore[arg-type]
    xfs = RemakeVolume(disk="disk0", kind=FilesystemKind.XFS, **common)  # type: ignore[arg-type]
    found = estimate([fat, xfs], RATES, {})
    assert (found.written, found.stored) == (1600 * MIB, 600 * MIB)
    # The repository feeds 1600 MiB at 400 MiB/s at best.
    assert found.total.low >= 4.0


def test_disks_at_the_same_time_or_one_after_another() -> None:
    rates = (*RATES, rate(Work.READ, "disk1", 50, 200), rate(Work.WRITE, "disk1", 100, 100))
    found = estimate([volume("disk0", 800 * MIB), volume("disk1", 800 * MIB)], rates, {})
    assert found.steps == (Seconds(2.0, 32.0), Seconds(8.0, 8.0))
    # At best the slower disk decides; the repository could feed both in 4 s.
    assert found.total == Seconds(8.0, 40.0)


def test_what_a_step_took_the_last_time_is_believed() -> None:
    steps: list[Step] = [RepairBoot(disk="disk0", firmware=Firmware.UEFI)]
    assumed = estimate(steps, RATES, {}).total
    learned = estimate(steps, RATES, {"repair-boot": 40.0}).total
    assert learned == Seconds(28.0, 61.0)
    assert assumed.high > learned.high


class Strange(WipeSignatures, frozen=True, kw_only=True, tag="strange"):
    """A step of another module, which works through data."""

    data: int


def test_a_step_that_nobody_here_knows_has_a_time_too() -> None:
    step = Strange(disk="disk0", extents=(), data=800 * MIB)
    found = estimate([step], RATES, {}).steps[0]  # type: ignore[list-item]
    assert found == Seconds(2.0 + 0.5, 4 * 32.0 + 60.0)


def test_rates_of_nothing_do_not_divide() -> None:
    nothing = (rate(Work.FETCH, "", 0, 0),)
    assert estimate([volume("disk0", 10 * MIB)], nothing, {}).total == Seconds(40.0, 40.0)


def candidate(node: str, **identity: str) -> Candidate:
    return Candidate(
        node=node, file="", identity=DiskIdentity(**identity), size=GIB, sector_size=512, contents=(), obstacles=()
    )


def reached(mib: int, **identity: str) -> Reached:
    return Reached(identity=DiskIdentity(**identity), write=float(mib * MIB), day="2026-11-20")


def test_what_this_disk_reached_then_its_model_then_an_assumption() -> None:
    book = RateBook(disks=(reached(410, serial="S", model="M"), reached(300, serial="T", model="M")))
    exact = target_rates("disk0", candidate("/nowhere", serial="S", model="M"), book)[1]
    assert exact.basis == "410.00 MiB/s, reached in the restore of 2026-11-20"
    assert exact.low < 410 * MIB < exact.high
    model = target_rates("disk0", candidate("/nowhere", serial="U", model="M"), book)[1]
    assert model.basis == "300.00 MiB/s, reached in the restore of 2026-11-20, on another disk of this model"
    read, write = target_rates("disk0", candidate("/nowhere", transport="usb"), book)
    assert write.basis == "not measured yet: assumed 10 to 400 MiB/s"
    assert read.basis == "not measured (it cannot be read here): assumed 10 to 400 MiB/s"
    assert (write.low, write.high) == (10 * MIB, 400 * MIB)


def test_a_disk_is_read_for_the_time_it_takes(tmp_path: Path) -> None:
    """16 requests of 4 MiB are the whole sample; a clock that ticks 10 ms at each look makes the rate known."""
    file = tmp_path / "disk"
    file.write_bytes(bytes(128 * MIB))
    ticks = iter(range(1000))
    found = target_rates(
        "disk0",
        msgspec.structs.replace(candidate(str(file)), size=128 * MIB),
        RateBook(),
        clock=lambda: next(ticks) / 100,
    )
    # Looks: one at the start, one before each of 16 requests, one at the end.
    assert found[0].basis == f"{64 / 0.17:.2f} MiB/s, measured now"
    assert found[1].basis.startswith("not measured yet: assumed from a quarter of the rate of reading")


def a_plan(*targets: TargetDisk) -> Plan:
    steps = (*(volume(target.source, GIB) for target in targets), RepairBoot(disk="disk0", firmware=Firmware.BIOS))
    return Plan(recovery_point="p", name="n", created="c", repository="r", targets=targets, steps=steps, notes=())


def a_report(plan: Plan, written: int, seconds: float) -> Report:
    steps = tuple(
        StepReport(step=step.describe(), seconds=seconds, written=written if isinstance(step, RestoreVolume) else 0)
        for step in plan.steps
    )
    return Report(
        recovery_point="p",
        name="n",
        digest=plan.digest,
        targets=(),
        steps=steps,
        seconds=1,
        written=1,
        kept=0,
        zeroed=0,
        verified=True,
        boot=(),
        warnings=(),
    )


def a_target(source: str, file: str = "", **identity: str) -> TargetDisk:
    return TargetDisk(source=source, identity=DiskIdentity(**identity), file=file, size=1, sector_size=512, destroys=())


def test_a_restore_teaches_the_next_plan(tmp_path: Path) -> None:
    path = tmp_path / "state" / "rates.json"
    plan = a_plan(a_target("disk0", serial="S"), a_target("disk1", "/x.img"))
    remember(plan, a_report(plan, GIB, 4.0), path, today=DAY)
    book = read_book(path)
    assert book == RateBook(disks=(reached(256, serial="S"),), seconds={"repair-boot": 4.0})
    remember(plan, a_report(plan, GIB, 8.0), path, today=DAY)
    assert [entry.write for entry in read_book(path).disks] == [128.0 * MIB], "one entry for a disk, the latest"


def test_too_little_teaches_nothing_about_a_disk(tmp_path: Path) -> None:
    """What fits into the disk's cache, and what was kept because it matched, is no rate."""
    plan = a_plan(a_target("disk0", serial="S"))
    remember(plan, a_report(plan, 10 * MIB, 0.001), tmp_path / "rates.json", today=DAY)
    assert read_book(tmp_path / "rates.json").disks == ()


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 1, "disks": [{}]}', bytes(100)])
def test_a_damaged_book_is_begun_anew_and_said(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rates.json"
    path.write_bytes(content)
    assert read_book(path) == RateBook()
    assert "not known" in caplog.text


def test_a_book_that_cannot_be_written_fails_no_restore(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    write_book(tmp_path / "file" / "rates.json", RateBook())
    assert "cannot be written" in caplog.text


def test_the_estimate_is_not_what_is_confirmed() -> None:
    plan = a_plan(a_target("disk0", serial="S"))
    with_times = msgspec.structs.replace(plan, estimate=estimate(plan.steps, RATES, {}))
    assert with_times.digest == plan.digest
    assert msgspec.structs.replace(plan, notes=("x",)).digest != plan.digest
