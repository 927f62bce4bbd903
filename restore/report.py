"""The report: what a restore did, for the user, the serial console and the URL a job names."""

import msgspec

from core.units import counted, format_duration, format_size


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """One step: what it was, how long it took in seconds, and bytes.

    Attributes:
        written, zeroed: put on the target. kept: matched already. discarded: of no use to anybody.
        verified: read back and equal to the recovery point. rewritten: of these, what was wrong at first.
    """

    step: str
    seconds: float
    written: int = 0
    kept: int = 0
    zeroed: int = 0
    discarded: int = 0
    verified: int = 0
    rewritten: int = 0


class VolumeProof(msgspec.Struct, frozen=True, kw_only=True):
    """What proves a volume: its range on the target holds the content whose digest tree has this root.

    Attributes:
        root: of the tree of digests (docs/image-format.md), in hex; empty when the volume holds nothing.
        target, offset, size: where it lies, bytes. verified: bytes read back and equal; 0 when that was switched off.
    """

    volume: str
    root: str
    target: str
    offset: int
    size: int
    verified: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A finished restore.

    Attributes:
        volumes: what proves each of them.
        refetched: chunks that were damaged on their way and came right from elsewhere, or at the second try.
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
    discarded: int = 0
    rewritten: int = 0
    refetched: int = 0
    volumes: tuple[VolumeProof, ...] = ()
    verified: bool
    boot: tuple[str, ...]
    warnings: tuple[str, ...]


def _proof_line(proof: VolumeProof) -> str:
    root = f"digest tree {proof.root[:16]}…" if proof.root else "empty"
    proven = f"{format_size(proof.verified)} proven" if proof.verified or not proof.root else "not read back"
    return f"    {proof.volume}: {proven}, {root}, at byte {proof.offset} of {proof.target}"


def _changed(report: Report) -> int:
    """Bytes read back that are not the stored volume: no digest tree of the recovery point proves them."""
    return sum(step.verified for step in report.steps) - sum(proof.verified for proof in report.volumes)


def _head_line(report: Report) -> str:
    """What was proven of the data, without saying more than that."""
    if not report.verified:
        return "not verified"
    if _changed(report) <= 0:
        return "read back and equal to the recovery point"
    equal = "equal to the recovery point, but for " if any(proof.verified for proof in report.volumes) else ""
    return f"read back; {equal}what was made smaller or anew{'' if equal else ', as it was written'}"


def _changed_line(report: Report) -> list[str]:
    changed = _changed(report)
    return [f"    {format_size(changed)} made smaller or made anew: read back as written"] if changed > 0 else []


def render_report(report: Report) -> str:
    """The report as text."""
    rate = report.written / report.seconds if report.seconds else 0
    lines = [
        f"Restored {report.name} ({report.recovery_point[:12]}) to {', '.join(report.targets)}",
        f"  {format_size(report.written)} written in {format_duration(report.seconds)} ({format_size(int(rate))}/s)"
        + (f", {format_size(report.kept)} matched already" if report.kept else "")
        + (f", {format_size(report.zeroed)} zeroed" if report.zeroed else "")
        + (f", {format_size(report.discarded)} discarded" if report.discarded else ""),
        f"  data: {_head_line(report)}",
        *(_proof_line(proof) for proof in report.volumes),
        *_changed_line(report),
        *([f"  {format_size(report.rewritten)} read back wrong and were written again"] if report.rewritten else []),
        *([f"  {counted(report.refetched, 'chunk')} had to be fetched again"] if report.refetched else []),
        *(f"  boot: {line}" for line in report.boot),
        *(f"  warning: {line}" for line in report.warnings),
    ]
    return "\n".join(lines) + "\n"
