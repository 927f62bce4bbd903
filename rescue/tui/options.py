"""The switches of a restore that screens have in common: grow, verify, clone, decide about each partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from rescue.tui.decisions import Decisions
from rescue.tui.jobs import Jobs
from rescue.tui.messages import Go, Placed, ToPartitions, ToPlan, Wanted
from rescue.tui.screen import WizardScreen
from rescue.tui.widgets.picker import Row

if TYPE_CHECKING:
    from images.store.catalogue import PointSummary

_GROW, _VERIFY, _CLONE, _EACH = "option grow", "option verify", "option clone", "option each"
DEGRADED = "option degraded"
#: Arrays that are named below the switch; the plan names all.
_ARRAYS_SHOWN = 3


class OptionsScreen(WizardScreen):
    """A screen that ends in a plan, with its switches as rows and keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g", "switch_grow", show=False),
        Binding("v", "switch_verify", show=False),
        Binding("c", "switch_clone", show=False),
        Binding("p", "switch_each", show=False),
    ]

    def __init__(self, jobs: Jobs, repository: str, point: PointSummary) -> None:
        super().__init__(jobs)
        self._repository = repository
        self._point = point

    @property
    def decided(self) -> Decisions:
        """What was decided about the recovery point that is to be restored."""
        return self.memory.about(self._repository, self._point.id)

    def option_rows(self, which: str) -> list[Row]:
        """The switches. ``which``: the disk that may be larger, in words."""
        return [
            Row(_GROW, (f"{_box(self.decided.grow)} Grow the last filesystem when {which} is larger",)),
            Row(_VERIFY, (f"{_box(self.decided.verify)} Read everything back and compare it",)),
            Row(_CLONE, (f"{_box(self.decided.unique)} Clone: new identities, so the original may stay in use",)),
            Row(_EACH, (f"{_box(self.decided.each)} Decide about each partition: keep, grow, shrink, leave out",)),
        ]

    def switch(self, key: str) -> bool:
        """Switch what a row stands for; false when it stands for something else."""
        switches = {
            _GROW: self.action_switch_grow,
            _VERIFY: self.action_switch_verify,
            _CLONE: self.action_switch_clone,
            _EACH: self.action_switch_each,
        }
        if key in switches:
            switches[key]()
        return key in switches

    def to_plan(self, placed: tuple[Placed, ...]) -> None:
        """Go on: to the plan, or to the partitions before it."""
        decided, repository, point = self.decided, self._repository, self._point
        wanted = Wanted(decided.grow, decided.verify, decided.unique, degraded=decided.degraded)
        if decided.each:
            self.post_message(Go(ToPartitions(repository, point, placed, wanted)))
        else:
            self.post_message(Go(ToPlan(repository, point, placed, wanted, decided.scratch)))

    def switched(self) -> None:
        """Show the switches as they are now."""

    def action_switch_grow(self) -> None:
        self.decided.grow = not self.decided.grow
        self.switched()

    def action_switch_verify(self) -> None:
        self.decided.verify = not self.decided.verify
        self.switched()

    def action_switch_clone(self) -> None:
        self.decided.unique = not self.decided.unique
        self.switched()

    def action_switch_each(self) -> None:
        self.decided.each = not self.decided.each
        self.switched()


def degraded_rows(switched_on: bool, arrays: Sequence[str]) -> list[Row]:
    """The switch for arrays without members that are left out; none where it would change nothing.

    Args:
        arrays: what would come of each, in a few words.
    """
    if not arrays:
        return []
    shown = [f"  {words}" for words in arrays[:_ARRAYS_SHOWN]]
    shown += [f"  and {len(arrays) - _ARRAYS_SHOWN} more like these"] if len(arrays) > _ARRAYS_SHOWN else []
    return [Row(DEGRADED, (f"{_box(switched_on)} D: let arrays do without what is left out (--degraded)", *shown))]


def _box(switched_on: bool) -> str:
    return "[x]" if switched_on else "[ ]"
