"""Preflight's findings as text: every one of them, worst first, with what mends it."""

import pytest

from builder.preflight.findings import Finding, FindingKind, MachinePreflight, Severity
from builder.preflight.render import describe_machine, verdict


def found(*severities: Severity) -> MachinePreflight:
    findings = tuple(
        Finding(kind=FindingKind.DRIVER, severity=one, message=f"Device {number}.", remedy=f"Mend {number}.")
        for number, one in enumerate(severities)
    )
    return MachinePreflight(name="web1", product="PC", devices=4, driven=3, findings=findings)


def test_findings_stand_under_what_they_mean_with_their_remedies() -> None:
    report = found(Severity.BLOCKS, Severity.WARNING, Severity.WARNING, Severity.NOTE)
    assert list(describe_machine(report, notes=True)) == [
        "3 of 4 devices that a restore needs have a driver on the medium",
        "Stops a restore:",
        "  - Device 0.",
        "    -> Mend 0.",
        "May not work:",
        "  - Device 1.",
        "    -> Mend 1.",
        "  - Device 2.",
        "    -> Mend 2.",
        "Good to know:",
        "  - Device 3.",
        "    -> Mend 3.",
    ]


def test_notes_that_are_not_shown_are_counted() -> None:
    assert list(describe_machine(found(Severity.NOTE, Severity.NOTE), notes=False))[1:] == [
        "2 notes more: -v shows them"
    ]
    assert list(describe_machine(found(Severity.NOTE), notes=False))[1:] == ["1 note more: -v shows it"]
    assert list(describe_machine(found(), notes=False))[1:] == []


@pytest.mark.parametrize(
    ("severities", "sentence"),
    [
        ((), "This medium drives everything here that a restore needs."),
        ((Severity.NOTE,), "This medium drives everything here that a restore needs."),
        ((Severity.WARNING, Severity.NOTE), "This medium should do here, but 1 thing may not work."),
        ((Severity.BLOCKS, Severity.WARNING), "This medium will not do here: 1 thing stops a restore."),
        ((Severity.BLOCKS, Severity.BLOCKS), "This medium will not do here: 2 things stop a restore."),
    ],
)
def test_the_verdict_is_that_of_the_worst(severities: tuple[Severity, ...], sentence: str) -> None:
    assert verdict(found(*severities)) == sentence
