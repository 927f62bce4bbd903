"""What preflight found, as text: one wording for the command and the wizard. Lines are whole; who shows them wraps."""

from collections.abc import Iterator

from builder.preflight.findings import MachinePreflight, PreflightReport, Severity
from core.units import counted

#: What findings of a severity have in common.
_HEADINGS = {
    Severity.BLOCKS: "Stops a restore:",
    Severity.WARNING: "May not work:",
    Severity.NOTE: "Good to know:",
}


def describe_medium(report: PreflightReport) -> str:
    """Which medium was judged, in one line."""
    return f"{report.medium}: kernel {report.kernel}, built {report.built:%Y-%m-%d}"


def verdict(machine: MachinePreflight) -> str:
    """One sentence about the machine that somebody stands at."""
    worst = machine.worst
    count = sum(finding.severity is worst for finding in machine.findings)
    match worst:
        case Severity.BLOCKS:
            stop = "stops" if count == 1 else "stop"
            return f"This medium will not do here: {counted(count, 'thing')} {stop} a restore."
        case Severity.WARNING:
            return f"This medium should do here, but {counted(count, 'thing')} may not work."
    return "This medium drives everything here that a restore needs."


def describe_machine(machine: MachinePreflight, *, notes: bool) -> Iterator[str]:
    """Counts, then the findings by severity, each with what mends it.

    Args:
        notes: those that need nothing done, too; else only how many there are.
    """
    yield f"{machine.driven} of {machine.devices} devices that a restore needs have a driver on the medium"
    for severity, heading in _HEADINGS.items():
        found = [finding for finding in machine.findings if finding.severity is severity]
        if found and severity is Severity.NOTE and not notes:
            yield f"{counted(len(found), 'note')} more: -v shows {'it' if len(found) == 1 else 'them'}"
            continue
        if found:
            yield heading
        for finding in found:
            yield f"  - {finding.message}"
            if finding.remedy:
                yield f"    -> {finding.remedy}"
