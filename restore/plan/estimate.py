"""The estimate: how long each step of a plan will take, as a range, and what every figure rests on.

Arithmetic only; rates are measured and remembered in ``rates.py``. It is no part of what is confirmed: the same plan
made again has the same digest and a new estimate.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from core.units import MIB
from restore.plan.steps import RestoreVolume, Step, VerifyVolume, WriteHead

#: One chunk in so many is read back at the end in any case (``stream.py``); the rest may be, behind the writing.
_READ_BACK_LEAST = 64


class Work(StrEnum):
    """What a rate is of: reading, decompressing and proving chunks; reading a target; writing one."""

    FETCH = "fetch"
    READ = "read"
    WRITE = "write"


class Rate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rate as a range.

    Attributes:
        disk: id of the source disk whose target it is; empty for the repository.
        low, high: bytes in a second; plain bytes for the repository.
        basis: what it rests on, for people.
    """

    work: Work
    disk: str = ""
    low: float
    high: float
    basis: str


class Seconds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From ``low`` to ``high`` seconds."""

    low: float
    high: float

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.low + other.low, self.high + other.high)


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plan will take.

    Attributes:
        steps: in the order of the plan's steps.
        total: of all; disks that are written at the same time make it less than the sum.
        stored: bytes read from the repository. written, zeroed, read_back: bytes on the targets.
        rates: what it was reckoned with.
    """

    steps: tuple[Seconds, ...]
    total: Seconds
    stored: int
    written: int
    zeroed: int
    read_back: int
    rates: tuple[Rate, ...]


#: Seconds of steps whose work does not grow with the data, as long as none was measured.
_ASSUMED = {
    "wipe-signatures": Seconds(0.0, 3.0),
    "create-table": Seconds(0.5, 5.0),
    "write-head": Seconds(0.0, 2.0),
    "grow-filesystem": Seconds(1.0, 60.0),
    "relocate-filesystem": Seconds(0.0, 5.0),
    "create-array": Seconds(0.2, 15.0),
    "open-luks": Seconds(0.5, 30.0),
    "create-volume-group": Seconds(0.5, 20.0),
    "close-stack": Seconds(0.1, 15.0),
    "repair-boot": Seconds(10.0, 300.0),
    "make-unique": Seconds(5.0, 120.0),
}
#: Steps that work through the data of a volume more than once (a copy is made smaller, files are copied), as a factor
#: of streaming it, and what they need at least for the tools.
_THOROUGH = Seconds(1.0, 4.0)
_OTHER = Seconds(0.5, 60.0)
#: Nothing is ever slower or faster than this: a rate of zero would divide by it.
_SLOWEST = 0.25 * MIB


def tag_of(step: Step) -> str:
    """The name of a step's kind, as documents have it in ``do``."""
    return str(type(step).__struct_config__.tag)


def estimate(steps: Sequence[Step], rates: Sequence[Rate], learned: Mapping[str, float]) -> Estimate:
    """Reckon what steps will take.

    Args:
        rates: of the repository, and of reading and writing each target.
        learned: seconds that steps of a kind took in an earlier restore, by the name of the kind.
    """
    known = _known(rates)
    data = {(step.disk, step.volume): step for step in steps if isinstance(step, RestoreVolume)}
    spans = []
    read_back = 0
    for step in steps:
        if isinstance(step, RestoreVolume):
            spans.append(_streaming(step.disk, step.data, step.zero, known))
        elif isinstance(step, VerifyVolume):
            streamed = data.get((step.disk, step.volume))
            spans.append(_reading_back(step, streamed, known))
            read_back += _read(step, streamed)
        else:
            spans.append(_other(step, known, learned))
    return Estimate(
        steps=tuple(_rounded(span) for span in spans),
        total=_rounded(_total(steps, spans, known)),
        stored=sum(_count(step, "stored") for step in steps),
        written=sum(_count(step, "data") + _head(step) for step in steps),
        zeroed=sum(step.zero for step in data.values()),
        read_back=read_back,
        rates=tuple(rates),
    )


class _Known(msgspec.Struct, frozen=True):
    """Rates by what they are of."""

    by_disk: Mapping[tuple[Work, str], Rate]
    widest: Mapping[Work, Rate]

    def of(self, work: Work, disk: str) -> Rate | None:
        """The rate of a disk; for a device of the stack, which lies on some, from the slowest to the fastest."""
        return self.by_disk.get((work, disk)) or self.widest.get(work)


def _known(rates: Sequence[Rate]) -> _Known:
    widest: dict[Work, Rate] = {}
    for rate in rates:
        old = widest.get(rate.work, rate)
        widest[rate.work] = msgspec.structs.replace(rate, low=min(rate.low, old.low), high=max(rate.high, old.high))
    return _Known({(rate.work, rate.disk): rate for rate in rates}, widest)


def _count(step: Step, field: str) -> int:
    """Bytes that a step says in a field; steps of other modules use the same names."""
    found = getattr(step, field, 0)
    return found if isinstance(found, int) else 0


def _head(step: Step) -> int:
    return sum(extent.size for extent in step.extents) if isinstance(step, WriteHead) else 0


def _streaming(disk: str, data: int, zero: int, known: _Known) -> Seconds:
    """The slower of repository and target decides; zeros cost nothing where the target can discard, or are written."""
    fetch, write = known.of(Work.FETCH, ""), known.of(Work.WRITE, disk)
    low = min(_low(fetch), _low(write))
    high = min(_high(fetch), _high(write))
    return Seconds(data / high, data / low + zero / _low(write))


def _reading_back(step: VerifyVolume, streamed: RestoreVolume | None, known: _Known) -> Seconds:
    read = known.of(Work.READ, step.disk)
    data = streamed.data if streamed else step.size
    return Seconds(data / _READ_BACK_LEAST / _high(read), _read(step, streamed) / _low(read))


def _read(step: VerifyVolume, streamed: RestoreVolume | None) -> int:
    """Bytes that are read back: what is not allocated is no chunk, and is not looked at."""
    return streamed.data + streamed.zero if streamed else step.size


def _other(step: Step, known: _Known, learned: Mapping[str, float]) -> Seconds:
    tag = tag_of(step)
    if tag in learned:
        return Seconds(learned[tag] * 0.7, learned[tag] * 1.5 + 1)
    if tag in _ASSUMED:
        return _ASSUMED[tag]
    # Steps that other modules bring: those that carry data say how much in the same field.
    stream = _streaming(step.disk, _count(step, "data"), 0, known)
    return Seconds(stream.low * _THOROUGH.low, stream.high * _THOROUGH.high) + _OTHER


def _total(steps: Sequence[Step], spans: Sequence[Seconds], known: _Known) -> Seconds:
    """At best all disks are worked on at the same time and the repository feeds them; at worst one after another."""
    disks: dict[str, float] = {}
    for step, span in zip(steps, spans, strict=True):
        disks[step.disk] = disks.get(step.disk, 0.0) + span.low
    data = sum(_count(step, "data") for step in steps)
    fed = data / _high(known.of(Work.FETCH, ""))
    return Seconds(max(fed, *disks.values()) if disks else 0.0, sum(span.high for span in spans))


def _low(rate: Rate | None) -> float:
    return max(rate.low, _SLOWEST) if rate else _SLOWEST


def _high(rate: Rate | None) -> float:
    return max(rate.high, _SLOWEST) if rate else _SLOWEST


def _rounded(span: Seconds) -> Seconds:
    return Seconds(round(span.low, 1), round(span.high, 1))
