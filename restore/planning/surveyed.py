"""Surveyed: that every chunk which a recovery point's volumes need is there, and how much there is of each volume.

Maps and indexes are read, and the sizes of packs; the chunks themselves are proven when they are restored.
"""

import msgspec

from core.errors import DamagedError
from images.model.manifest import Manifest, Volume
from images.store.backend import Heard, deaf
from images.store.repository import Repository
from restore.plan.plan import Plan
from restore.planning.seating import Content
from restore.stream.placed import lba_range

#: Chunks between two signs of life.
_ALIVE = 4096


def survey_chunks(repository: Repository, point: str, manifest: Manifest, alive: Heard = deaf) -> dict[str, Content]:
    """Walk every volume's map and check that each chunk is indexed and its pack is there, whole.

    Args:
        alive: called now and then while it goes on, with 0.

    Raises:
        DamagedError: naming every volume that cannot be restored.
    """
    problems: list[str] = []
    contents: dict[str, Content] = {}
    repository.check_packs()
    for volume in manifest.volumes:
        where = volume_name(point, manifest, volume)
        sector_size = manifest.layout.device(volume.disk).sector_size
        try:
            contents[volume.id] = _survey_volume(repository, volume, where, sector_size, alive)
        except DamagedError as error:
            problems.append(error.message)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DamagedError(
            f"Recovery point {point[:12]} ({manifest.name}) is damaged: {problems[0]}{more}",
            hint="Choose another recovery point. Nothing was written.",
        )
    return contents


def of_steps(plan: Plan, manifest: Manifest) -> Manifest:
    """The manifest with the volumes that a plan's steps name, alone: what is left out of a restore may be damaged."""
    named = {getattr(step, "volume", "") for step in plan.steps}
    needed = tuple(volume for volume in manifest.volumes if volume.id in named)
    return msgspec.structs.replace(manifest, volumes=needed)


def _survey_volume(repository: Repository, volume: Volume, where: str, sector_size: int, alive: Heard) -> Content:
    chunk = repository.chunk_size
    data = zero = stored = 0
    for slot in repository.slots(volume, where):
        if slot.number % _ALIVE == 0:
            alive(0)
        length = min(chunk, volume.size - slot.number * chunk)
        if slot.id is None:
            zero += length
            continue
        place = repository.locate(slot.id)
        if place is None:
            lbas = lba_range(volume, slot.number, chunk, sector_size)
            raise repository.missing(slot.id, f"{where}, {lbas}")
        data += length
        stored += place.payload_length
    return Content(data=data, zero=zero, stored=stored)


def volume_name(point: str, manifest: Manifest, volume: Volume) -> str:
    """How errors name a volume."""
    return f"recovery point {point[:12]} ({manifest.name}), volume {volume.id}"
