"""The inspection job: what a finished medium is, and whether it is whole. What every face that inspects calls."""

import datetime
from pathlib import Path

from builder.finished.inspection import Inspection, inspect_medium
from builder.finished.opened import open_medium
from builder.finished.sbom import bill_of_materials
from core.errors import UsageError
from core.events import Sink
from core.files import write_atomically


def inspect_finished(path: Path, sbom: Path | None, sink: Sink) -> Inspection:
    """Inspect an ISO, a stick or the folder of a netboot set.

    Args:
        sbom: where the bill of materials goes, as CycloneDX JSON; nowhere when None.

    Raises:
        UsageError: no such medium, or ``sbom`` cannot be written there.
        DamagedError: not a medium of liferaft's, or its structure cannot be followed.
        RefusedError: a bill of materials of a medium that has no document.
    """
    if sbom is not None and (sbom.is_dir() or not sbom.absolute().parent.is_dir()):
        raise UsageError(f"{sbom} cannot be written: it is a folder, or its folder does not exist.")
    with open_medium(path) as medium:
        found = inspect_medium(medium, datetime.datetime.now(datetime.UTC), sink)
        if sbom is not None:
            write_atomically(sbom, bill_of_materials(medium))
    return found
