"""Coverage-guided fuzzing (atheris, libFuzzer) of every reader; ``make fuzz`` runs it for long, the flow ring briefly.

    python -m tests.fuzz                     every target, 60 seconds each
    python -m tests.fuzz ntfs xfs --seconds 600
    python -m tests.fuzz ntfs --replay FILE  one input that was found, with its traceback

Each target runs in a process of its own, which ends with its coverage or with the input that broke it (kept under
``.cache/fuzz``). A fixed seed makes a brief run repeatable.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".cache" / "fuzz"
#: Seconds one input may take, and MiB the process may have. The readers' own bounds are far below; but atheris keeps
#: what it compares (whole FATs, say), so that a process grows with its inputs.
TIMEOUT, MEMORY = 20, 4000
#: Seconds of one process for that reason; what was found lies in the corpus and is taken up by the next.
SLICE = 15


def main() -> int:
    """Run the named targets; 1 when one of them broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="0: a new one")
    parser.add_argument("--replay", type=Path, help="run one input")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        from tests.fuzz.inside import run

        run(given.targets[0], given.seconds, given.seed, given.replay)
        return 0
    from tests.fuzz.targets import targets

    unknown = set(given.targets) - set(targets())
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(targets())}")
    names = given.targets or list(targets())
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        sound = list(pool.map(lambda name: fuzz(name, given.seconds, given.seed, given.replay), names))
    print(f"{sum(sound)} passed, {len(sound) - sum(sound)} failed")
    return 0 if all(sound) else 1


def fuzz(name: str, seconds: int, seed: int, replay: Path | None = None) -> bool:
    """Run one target, a process for every :data:`SLICE` seconds. True when nothing broke."""
    slices = [SLICE] * (seconds // SLICE) + ([seconds % SLICE] if seconds % SLICE else [])
    return all(_slice(name, length, seed and seed + number, replay) for number, length in enumerate(slices))


def _slice(name: str, seconds: int, seed: int, replay: Path | None) -> bool:
    words = [sys.executable, "-m", "tests.fuzz", name, "--inside", f"--seconds={seconds}", f"--seed={seed}"]
    if replay:
        words.append(f"--replay={replay.resolve()}")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    if done.returncode:
        print("\n".join([f"{name}: BROKE", *lines[-40:]]), flush=True)
        return False
    runs = next((line.split()[1] for line in lines if line.startswith("Done ")), "1")
    coverage = next((line.split("cov: ")[1].split()[0] for line in reversed(lines) if "cov: " in line), "?")
    print(f"{name}: {runs} inputs, coverage {coverage}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
