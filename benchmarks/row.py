"""A row of the table: two figures side by side, their ratio, and what was asked of it."""

from typing import NamedTuple

from benchmarks.measure import Measured

MIB = 1 << 20
#: What no row's memory may exceed.
MEMORY = 300 * MIB

HEADS = ("row", "work", "beside", "ours", "theirs", "ratio", "CPU s", "memory", "asked", "verdict")


class Row(NamedTuple):
    """One line, as text."""

    row: str
    work: str
    beside: str
    ours: str
    theirs: str
    ratio: str
    cpu: str
    memory: str
    asked: str
    verdict: str


def faster(row: str, work: str, beside: str, ours: Measured, theirs: Measured, at_least: float | None) -> Row:
    """Our seconds beside theirs; the ratio says how many times faster ours is."""
    ratio = theirs.seconds / ours.seconds
    met = ours.peak_memory <= MEMORY and (at_least is None or ratio >= at_least)
    return Row(
        row,
        work,
        beside,
        f"{ours.seconds:.2f} s",
        f"{theirs.seconds:.2f} s",
        f"{ratio:.2f} x",
        f"{ours.cpu:.1f} / {theirs.cpu:.1f}",
        f"{ours.peak_memory // MIB} MiB",
        "-" if at_least is None else f">= {at_least:g} x",
        _verdict(met),
    )


def smaller(row: str, work: str, beside: str, ours: int, theirs: int, at_most: float) -> Row:
    """Our bytes beside theirs."""
    ratio = ours / theirs
    sizes = f"{ours / MIB:.0f} MiB", f"{theirs / MIB:.0f} MiB"
    return Row(row, work, beside, *sizes, f"{ratio:.3f}", "", "", f"<= {at_most:g}", _verdict(ratio <= at_most))


def within(row: str, work: str, beside: str, ours: Measured, seconds: float) -> Row:
    """Our seconds beside a limit."""
    return Row(
        row,
        work,
        beside,
        f"{ours.seconds:.2f} s",
        "",
        "",
        f"{ours.cpu:.1f}",
        f"{ours.peak_memory // MIB} MiB",
        f"<= {seconds:g} s",
        _verdict(ours.seconds <= seconds and ours.peak_memory <= MEMORY),
    )


def transferred(row: str, work: str, beside: str, sent: int, measured: Measured, at_most: int) -> Row:
    """Bytes a server sent beside a limit."""
    return Row(
        row,
        work,
        beside,
        f"{sent / MIB:.2f} MiB",
        "",
        "",
        f"{measured.cpu:.1f}",
        f"{measured.peak_memory // MIB} MiB",
        f"<= {at_most / MIB:g} MiB",
        _verdict(sent <= at_most and measured.peak_memory <= MEMORY),
    )


def table(rows: list[Row]) -> str:
    """Rows under their headings."""
    widths = [max(len(row[column]) for row in [HEADS, *rows]) for column in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [HEADS, *rows]]
    return "\n".join(line.rstrip() for line in [lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"
