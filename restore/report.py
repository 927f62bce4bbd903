"""The report: what a restore did, for the user, the serial console and the URL a job names."""

import msgspec

from core.units import format_duration, format_size


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """One step: what it was, how long it took in seconds, and bytes written, kept (they matched already) and zeroed."""

    step: str
    seconds: float
    written: int = 0
    kept: int = 0
    zeroed: int = 0
    verified: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A finished restore.

    Attributes:
        digest: of the plan. seconds: from the first write to the end. verified: every chunk was read back.
        boot: what boot repair did, a line each. warnings: what the user must know.
    """

    version: int = 1
    recovery_point: str
    name: str
    digest: str
    targets: tuple[str, ...]
    steps: tuple[StepReport, ...]
    seconds: float
    written: int
    kept: int
    zeroed: int
    verified: bool
    boot: tuple[str, ...]
    warnings: tuple[str, ...]


def render_report(report: Report) -> str:
    """The report as text."""
    rate = report.written / report.seconds if report.seconds else 0
    verified = "read back and equal to the recovery point" if report.verified else "not verified"
    lines = [
        f"Restored {report.name} ({report.recovery_point[:12]}) to {', '.join(report.targets)}",
        f"  {format_size(report.written)} written in {format_duration(report.seconds)} ({format_size(int(rate))}/s)"
        + (f", {format_size(report.kept)} matched already" if report.kept else ""),
        f"  data: {verified}",
        *(f"  boot: {line}" for line in report.boot),
        *(f"  warning: {line}" for line in report.warnings),
    ]
    return "\n".join(lines) + "\n"
