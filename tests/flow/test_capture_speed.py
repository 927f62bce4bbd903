"""What capture does so as not to wait: it announces what it will read, and sends packs to the disk early."""

import os
import threading
from pathlib import Path

import pytest

from core.events import ignore
from images.capture import capture
from images.model.layout import DiskIdentity
from images.sources import FileSource, Prefetching, WindowSource, open_source
from images.store.backend import WRITE_EARLY, LocalBackend
from images.store.create import open_or_create
from images.survey import survey_disk
from tests.flow.disks import MIB, gpt_disk


def test_sources_pass_the_announcement_on_to_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "disk.img"
    file.write_bytes(bytes(MIB))
    advice: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *words: advice.append(words))
    with open_source(file) as source:
        window = WindowSource(source, 4096, 65536)
        assert isinstance(window, Prefetching)
        window.prefetch(512, 1024)
    assert advice == [(4096 + 512, 1024, os.POSIX_FADV_WILLNEED)]


def test_an_advice_that_fails_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: int) -> None:
        raise OSError(22, "Invalid argument")

    file = tmp_path / "disk.img"
    file.write_bytes(bytes(MIB))
    backend = LocalBackend(tmp_path / "repo")
    monkeypatch.setattr(os, "posix_fadvise", refuse)
    with open_source(file) as source:
        source.prefetch(0, 4096)
    with backend.create("packs/one") as stream:
        stream.write(bytes(WRITE_EARLY))
    assert backend.size("packs/one") == WRITE_EARLY


def test_what_is_read_was_announced_before(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    announced: list[tuple[int, int]] = []
    by_workers: list[int] = []
    unannounced: list[int] = []
    real_read, real_prefetch = FileSource.read_at, FileSource.prefetch

    def read_at(self: FileSource, offset: int, length: int) -> bytes:
        with lock:
            # Others (the survey) read where they need to; the capture's own threads read what was announced.
            if threading.current_thread().name.startswith("capture"):
                by_workers.append(offset)
                if not any(start <= offset and offset + length <= end for start, end in announced):
                    unannounced.append(offset)
        return real_read(self, offset, length)

    def prefetch(self: FileSource, offset: int, length: int) -> None:
        with lock:
            announced.append((offset, offset + length))
        real_prefetch(self, offset, length)

    disk = gpt_disk(tmp_path / "source.img", tree)
    repository = open_or_create(LocalBackend(tmp_path / "repo"))
    with open_source(disk) as source:
        surveys = (survey_disk(source, "disk0", DiskIdentity()),)
        monkeypatch.setattr(FileSource, "read_at", read_at)
        monkeypatch.setattr(FileSource, "prefetch", prefetch)
        capture(repository, surveys, name="n", origin="o", machine=None, tool="t", sink=ignore, threads=1)
    assert len(by_workers) > 2
    assert not unannounced
    assert max(end - start for start, end in announced) <= MIB


def test_a_new_file_is_sent_to_the_disk_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advice: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *words: advice.append(words))
    piece = bytes(MIB)
    with LocalBackend(tmp_path).create("packs/one") as stream:
        for _ in range(2 * WRITE_EARLY // MIB + 1):
            stream.write(piece)
    assert advice == [
        (0, WRITE_EARLY, os.POSIX_FADV_DONTNEED),
        (WRITE_EARLY, WRITE_EARLY, os.POSIX_FADV_DONTNEED),
    ]
