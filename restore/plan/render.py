"""A plan as text, for a terminal, the wizard or a printout: 76 columns, plain ASCII but for names.

Steps that are not known here (other modules bring their own) are shown by what they say of themselves.
"""

import textwrap
from collections.abc import Iterator

from core.units import ALIGNMENT, format_duration, format_size
from images.model.machine import Occupant
from restore.plan.diskmap import WIDTH, bar, readable, row, rows
from restore.plan.estimate import Estimate, Seconds, Work, tag_of
from restore.plan.plan import Plan, TargetDisk
from restore.plan.steps import CreateArray, CreateTable, CreateVolumeGroup, OpenLuks, Step
from restore.target.occupants import occupants_of_table

#: How a partition's content gets to its place, by the names of the steps' kinds; empty: not worth a word.
_MEANS = {
    "restore-volume": "written as captured",
    "verify-volume": "",
    "grow-filesystem": "grown to its partition",
    "relocate-filesystem": "told its new place",
    "shrink-volume": "made smaller on a copy, then written",
    "remake-volume": "made anew, its files copied",
    "remake-fat": "made anew, its files copied",
}
_WORK = {Work.FETCH: "repository", Work.READ: "reading", Work.WRITE: "writing"}


def render(plan: Plan) -> str:
    """The plan as text."""
    return "\n".join(line.rstrip() for line in _lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"Plan {plan.digest}"
    yield f"  restore  {readable(plan.name)}, taken {_moment(plan.created)} UTC ({plan.recovery_point[:12]})"
    yield f"  from     {readable(plan.repository)}"
    for target in plan.targets:
        yield ""
        yield from _target(plan, target)
    yield ""
    yield from _steps(plan)
    if plan.estimate is not None:
        yield ""
        yield from _time(plan.estimate)
    if plan.notes:
        yield ""
        yield "Notes"
        for note in plan.notes:
            yield from _wrapped(f"  - {note}", "    ")


def _target(plan: Plan, target: TargetDisk) -> Iterator[str]:
    yield from _wrapped(f"Target for {target.source}: {target.shown}, {format_size(target.size)}", "  ")
    yield "  EVERYTHING ON IT WILL BE LOST. It holds now:"
    if target.holds:
        yield f"    {bar(target.holds, target.size)}"
        yield from rows(target.holds)
    # What lies in the partitions and is no partition: volumes of LVM, arrays, mapped containers.
    mapped = bool(target.holds)
    for line in target.destroys or (() if mapped else ("nothing that is recognised",)):
        if not (mapped and line.startswith(("partition ", "whole disk"))):
            yield from _wrapped(f"    {line}", "      ")
    tables = [step.table for step in plan.steps if isinstance(step, CreateTable) and step.disk == target.source]
    if not tables:
        yield "  It will become, without a partition table:"
        owners = [step.disk for step in plan.steps if target.source in _members(step)]
        if target.captured or not owners:
            yield f"    {bar(target.captured, target.size)}"
            yield from rows(target.captured)
        yield from (f"    a part of {owner}, whose content comes with it" for owner in owners)
    for table in tables:
        made = occupants_of_table(table, target.sector_size)
        yield f"  It will become, as {table.kind} {readable(table.identifier)}:"
        yield f"    {bar(made, target.size)}"
        header, *drawn = rows(made)
        yield header
        for occupant, line in zip(made, drawn, strict=True):
            yield line
            yield from _fate(plan, target, occupant)
        kept = {occupant.id for occupant in made}
        lost = [occupant for occupant in target.captured if occupant.id not in kept]
        if lost:
            yield "  Left out:"
            yield from map(row, lost)


def _fate(plan: Plan, target: TargetDisk, occupant: Occupant) -> Iterator[str]:
    """Where a partition was, and how its content gets to where it will be; nothing for what stays as it was."""
    words = []
    was = next((found for found in target.captured if found.id == occupant.id), None)
    if was is not None and (was.offset, was.size) != (occupant.offset, occupant.size):
        end = format_size(was.offset + was.size)
        words.append(f"was {format_size(was.offset)} to {end}, {format_size(was.size)}")
    if occupant.offset % ALIGNMENT:
        words.append("start kept, not on 1 MiB")
    steps = [step for step in plan.steps if step.disk == target.source and _concerns(step, occupant)]
    means = [_MEANS.get(tag_of(step), tag_of(step).replace("-", " ")) for step in steps]
    owners = [step.disk for step in plan.steps if occupant.id in _members(step)]
    words += [text for text in means if text]
    words += [f"becomes a part of {owner}, whose content comes with it" for owner in owners]
    if not steps and not owners and occupant.kind != "extended":
        words.append("made, nothing is put in")
    if words != [_MEANS["restore-volume"]]:
        yield from _wrapped(f"        {'; '.join(words)}" if words else "", "        ")


def _members(step: Step) -> tuple[str, ...]:
    """The devices that a step of the stack makes something of."""
    match step:
        case CreateArray():
            return tuple(member.device for member in step.array.members)
        case OpenLuks():
            return (step.container.device,)
        case CreateVolumeGroup():
            return tuple(member.device for member in step.group.members)
        case _:
            return ()


def _concerns(step: Step, occupant: Occupant) -> bool:
    """Whether a step says that it is about that partition, by its number or by its volume."""
    named = getattr(step, "volume", None)
    return named == occupant.id if named is not None else getattr(step, "number", None) == occupant.number


def _steps(plan: Plan) -> Iterator[str]:
    yield "Steps"
    spans = plan.estimate.steps if plan.estimate is not None else ()
    for number, step in enumerate(plan.steps, 1):
        *most, last = _wrapped(f"  {number:2}. {readable(step.describe())}", "      ")
        yield from most
        span = _span(spans[number - 1]) if number <= len(spans) else ""
        if len(last) + 2 + len(span) > WIDTH:
            yield last
            last = ""
        yield last.ljust(WIDTH - len(span)) + span


def _time(estimate: Estimate) -> Iterator[str]:
    total = estimate.total
    yield f"Time, estimated: {format_duration(total.low)} to {format_duration(total.high)}"
    zeros = f" and {format_size(estimate.zeroed)} of zeros" if estimate.zeroed else ""
    back = f", reads back {format_size(estimate.read_back)}" if estimate.read_back else ""
    stored, written = format_size(estimate.stored), format_size(estimate.written)
    yield from _wrapped(f"  reads {stored} from the repository, writes {written}{zeros}{back}", "    ")
    for rate in estimate.rates:
        what = f"{_WORK[rate.work]} {rate.disk}".strip()
        yield from _wrapped(f"  {what:<15} {readable(rate.basis)}", "                  ")


def _span(seconds: Seconds) -> str:
    if seconds.high < 1:
        return "below 1 s"
    if seconds.high < 60:
        return f"{seconds.low:.0f}-{seconds.high:.0f} s"
    return f"{format_duration(seconds.low)} to {format_duration(seconds.high)}"


def _moment(created: str) -> str:
    return created[:19].replace("T", " ")


def _wrapped(line: str, indent: str) -> list[str]:
    """One line as several of at most WIDTH characters; a word that is longer (an address) is left whole."""
    return textwrap.wrap(
        readable(line),
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
