"""The process that fuzzes one target: instruments liferaft's readers, then hands over to libFuzzer for good."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["images", "restore", "core", "dissect"], enable_loader_override=False):
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import guarded, targets

from tests.fuzz.__main__ import KEPT, MEMORY, TIMEOUT


def run(name: str, seconds: int, seed: int, replay: Path | None) -> None:
    """Fuzz, or run one input. Does not return: libFuzzer ends the process."""
    target = guarded(targets()[name]())
    if replay is not None:
        target(replay.read_bytes())
        sys.exit(0)
    corpus = KEPT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(content)
    words = [
        "liferaft",
        f"-max_total_time={seconds}",
        f"-timeout={TIMEOUT}",
        f"-rss_limit_mb={MEMORY}",
        f"-seed={seed}",
        "-max_len=8192",
        "-print_final_stats=1",
        f"-artifact_prefix={KEPT}/broke-{name}-",
        str(corpus),
    ]
    atheris.Setup(words, target)
    atheris.Fuzz()
