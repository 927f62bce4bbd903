"""Parity of packs that have just been written, made while the next pack is written.

One pack at a time, in a thread of its own: reading it back and adding up cost a core for about a second
for each GiB, and whoever writes the index waits for it. It decides nothing: what a repository's parity is stands
in its document.
"""

from concurrent.futures import Future, ThreadPoolExecutor, wait

from images.store.backend import Writer
from images.store.parity import protect
from images.store.parity_head import Parity


class ParityQueue:
    """Protects packs in the background; does nothing when ``parity`` is None. Used by one thread."""

    def __init__(self, backend: Writer, repository: bytes, parity: Parity | None) -> None:
        self._backend = backend
        self._repository = repository
        self._parity = parity
        self._work: Future[int] | None = None
        #: Bytes of the parity files that are complete.
        self.stored = 0

    def add(self, pack: bytes) -> None:
        """Begin with a pack that is complete and synced, when the one before is done.

        Raises:
            as :meth:`settle`: it was the one before that failed.
        """
        self.settle()
        if self._parity is not None:
            pool = ThreadPoolExecutor(1, thread_name_prefix="parity")
            self._work = pool.submit(protect, self._backend, self._repository, pack, self._parity)
            pool.shutdown(wait=False)

    def settle(self) -> None:
        """Wait until the parity of every pack that was added is complete and synced.

        Raises:
            DeviceError, DamagedError: as ``protect``. That pack has no parity; it is asked for only once.
        """
        work = self._work
        if work is not None:
            # Whoever interrupts the waiting finds the work still here, and may wait again.
            wait((work,))
            self._work = None
            self.stored += work.result()
