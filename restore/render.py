"""A plan as text, for a terminal, the wizard or a printout."""

from collections.abc import Iterator

from core.units import ALIGNMENT, format_size, to_bytes
from images.model.layout import PartitionTable
from restore.plan import Plan
from restore.steps import CreateTable


def render(plan: Plan) -> str:
    """The plan as text, 80 columns, for a terminal, the wizard or a printout."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"Plan {plan.digest}"
    yield f"  restore  {plan.name}, taken {plan.created[:19].replace('T', ' ')} UTC ({plan.recovery_point[:12]})"
    yield f"  from     {plan.repository}"
    for target in plan.targets:
        yield ""
        yield f"Target for {target.source}: {target.shown}, {format_size(target.size)}"
        yield "  EVERYTHING ON IT WILL BE LOST. It holds now:"
        yield from (f"    {line}" for line in target.destroys or ("nothing that is recognised",))
        yield "  It will become:"
        for step in plan.steps:
            if isinstance(step, CreateTable) and step.disk == target.source:
                yield from _table_lines(step.table, target.sector_size)
    yield ""
    yield "Steps"
    for number, step in enumerate(plan.steps, 1):
        yield f"  {number:2}. {step.describe()}"
    if plan.notes:
        yield ""
        yield "Notes"
        yield from (f"  - {note}" for note in plan.notes)


def _table_lines(table: PartitionTable, sector_size: int) -> Iterator[str]:
    yield f"    {table.kind} partition table {table.identifier}"
    for partition in table.partitions:
        extent = partition.extent(sector_size)
        filesystem = partition.filesystem
        kind = (filesystem.detail or filesystem.kind) if filesystem else partition.role.value
        label = f' "{filesystem.label}"' if filesystem and filesystem.label else ""
        aligned = "" if extent.start % ALIGNMENT == 0 else "  (start kept, not on 1 MiB)"
        yield (
            f"    {partition.number:2}  {kind:<8}{label}  {format_size(extent.size):>10}  "
            f"from {format_size(to_bytes(partition.start_lba, sector_size))}{aligned}"
        )
