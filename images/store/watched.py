"""Watched: a repository whose signs of life, and whose new tries, reach whoever watches a job.

It counts nothing and waits for nothing: that is the backend's. A person who is asked for the passphrase meanwhile is
no server that does not answer.
"""

import threading
import time

import msgspec

from core.events import Event, Sink, Stage, Watch
from images.store.access import Access
from images.store.backend import Heard, Hearing, Reader, Telling
from images.store.connect import connect
from images.store.passphrase import AskPassphrase, Passphrase
from images.store.repository import Repository


class Retries:
    """Tells whoever watches that the repository does not answer and is asked again, without repeating itself.

    Attributes:
        stage: what waits for the repository. Before the first write it must not be a stage that writes.
    """

    #: Seconds in which one message is enough: several requests fail at the same time.
    QUIET = 1.0

    def __init__(self, sink: Sink, stage: Stage = Stage.PREFLIGHT) -> None:
        self.stage = stage
        self._sink = sink
        self._lock = threading.Lock()
        self._told = -self.QUIET

    def __call__(self, text: str) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._told < self.QUIET:
                return
            self._told = now
        self._sink(Event(stage=self.stage, message=text))


def watch_backend(backend: Reader, heard: Heard, retries: Retries) -> None:
    """Have a backend say what it says to these, from now on."""
    if isinstance(backend, Hearing):
        backend.heard = heard
    if isinstance(backend, Telling):
        backend.tell = retries


def open_watched(location: str, access: Access | None, watch: Watch, sink: Sink) -> Repository:
    """The repository at an address, opened under a watch; its backend goes on telling it what it hears.

    Raises:
        UsageError, RefusedError, UnreachableError, DamagedError: as :class:`Repository`.
    """
    backend = connect(location)
    watch_backend(backend, watch, Retries(sink))
    with watch.doing(f"Opening the repository {backend.location}"):
        return Repository(backend, patient(access, watch))


def patient(access: Access | None, watch: Watch) -> Access | None:
    """The same right to read; while a person types the passphrase, nothing is missed."""
    if access is None or access.ask is None:
        return access
    return msgspec.structs.replace(access, ask=_patiently(access.ask, watch))


def _patiently(ask: AskPassphrase, watch: Watch) -> AskPassphrase:
    def answer() -> Passphrase:
        with watch.asking():
            return ask()

    return answer
