"""The text of a report: it claims no more than the report's numbers say."""

from core.units import MIB
from restore.report import Report, StepReport, VolumeProof, render_report


def step(name: str, verified: int) -> StepReport:
    return StepReport(step=name, seconds=0.0, written=0, kept=0, zeroed=0, verified=verified)


def proof(volume: str, verified: int) -> VolumeProof:
    return VolumeProof(volume=volume, root="ab" * 32, target="/t", offset=0, size=4 * MIB, verified=verified)


def shown(steps: tuple[StepReport, ...], volumes: tuple[VolumeProof, ...], *, verified: bool = True) -> str:
    return render_report(
        Report(
            recovery_point="0" * 64,
            name="n",
            digest="d",
            targets=("/t",),
            steps=steps,
            seconds=1.0,
            written=0,
            kept=0,
            zeroed=0,
            volumes=volumes,
            verified=verified,
            boot=(),
            warnings=(),
        )
    )


def test_what_was_made_smaller_is_not_said_to_be_proven_by_the_recovery_point() -> None:
    said = shown((step("shrink", 3 * MIB), step("verify", MIB)), (proof("disk0-part1", MIB),))
    assert "disk0-part1: 1.00 MiB proven" in said
    assert "3.00 MiB made smaller or made anew: read back as written" in said
    assert "data: read back; equal to the recovery point, but for what was made smaller or anew\n" in said
    plain = shown((step("verify", MIB),), (proof("disk0-part1", MIB),))
    assert "made smaller" not in plain
    assert "data: read back and equal to the recovery point\n" in plain
    alone = shown((step("shrink", 3 * MIB),), ())
    assert "equal to the recovery point" not in alone
    assert "data: read back; what was made smaller or anew, as it was written\n" in alone


def test_a_volume_that_was_not_read_back_is_named() -> None:
    said = shown((step("verify", MIB),), (proof("disk0-part1", MIB), proof("disk0-part2", 0)), verified=False)
    assert "data: not verified" in said
    assert "disk0-part2: not read back" in said
    assert "0 bytes proven" not in said
