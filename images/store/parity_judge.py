"""Whether what parity would bring back is right, judged by the ids of records.

Parity knows what was there when it was made, on a machine whose memory may have been bad. Ids know
what is right: a pack is not made what parity says where that would cost a record that is sound now.
"""

from collections.abc import Iterable, Iterator

from core.errors import DamagedError, DeviceError
from images.store.index_table import IndexTable
from images.store.parity import Accept, PackCondition
from images.store.parity_solver import PackSolver
from images.store.proof import Promise, promise_of
from images.store.repository import Repository, pack_name


def promises_of(tables: Iterable[IndexTable], pack: bytes) -> Iterator[Promise]:
    """Every record that indexes promise in a pack."""
    for table in tables:
        for number, found in enumerate(table.packs):
            if found == pack:
                yield from (promise_of(table, int(row)) for row in table.of_pack(number))


def keep_sound_records(repository: Repository, promises: Iterable[Promise]) -> Accept:
    """For ``parity.repair``: refuse a pack in which a record that can be proven now could not be proven any more.

    Only records that touch damaged blocks are read. Raises DamagedError naming the first that would be lost.
    """

    def accept(condition: PackCondition, solver: PackSolver) -> None:
        for promise in promises:
            start, end = promise.place.offset, promise.end
            if not any(start < extent.end and extent.start < end for extent in condition.damaged):
                continue
            if not _is_sound_after(repository, promise, solver) and _is_sound_now(repository, promise):
                raise DamagedError(
                    f"{repository.backend.location}/{pack_name(condition.pack)}, offset {start}: the record is sound, "
                    f"and would not be after a repair from parity: the parity is wrong.",
                    hint="The memory of the machine that made it may be bad.",
                )

    return accept


def _is_sound_after(repository: Repository, promise: Promise, solver: PackSolver) -> bool:
    try:
        data = solver.read(promise.place.offset, promise.end - promise.place.offset)
        repository.decode(promise.id, promise.place, data, "")
    except DamagedError:
        return False
    return True


def _is_sound_now(repository: Repository, promise: Promise) -> bool:
    place = promise.place
    try:
        data = repository.read_pack(place.pack, place.offset, promise.end - place.offset, "")
        repository.decode(promise.id, place, data, "")
    except DeviceError:
        # A lost sector; a server that does not answer is another error, and goes up.
        return False
    except DamagedError:
        return False
    return True
