"""The benchmarks: what is made once and shared, and one method for each row.

Whatever a row needs is made when the first row asks for it, so that one row can run alone. Both
sides of a row start from the same state: sources in the page cache, targets fresh and sparse.
"""

import functools
import json
import shlex
import shutil
import subprocess
from pathlib import Path

from benchmarks.disk import change_files, make_disk, partition, turn_chunks
from benchmarks.large import WANTED, make_big, make_huge
from benchmarks.many import make_many, make_targets
from benchmarks.measure import LIFERAFT, Measured, best, liferaft, measure, settle, warm
from benchmarks.row import Row, faster, smaller, transferred, within
from benchmarks.server import nginx
from benchmarks.throttle import slow_writes

#: Bytes a second that an NVMe drive of three-bit cells takes once its fast cells are full; reading is not slowed.
SLOW = 600_000_000
_QUIET = ("--progress", "none")
_BORG = {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}


class Bench:
    """Scratch folder and rows.

    Args:
        disk: an existing disk image of an earlier run (it is copied), or None to make one.
        repeat: runs of each command, the quickest of which counts, on both sides.
    """

    def __init__(self, folder: Path, disk: Path | None, repeat: int) -> None:
        self.folder = folder
        self.repeat = repeat
        self._given = disk

    @functools.cached_property
    def disk(self) -> Path:
        """8 GiB, one ext4, 4.5 GiB of real files."""
        disk = self.folder / "disk.img"
        if self._given is not None:
            subprocess.run(["cp", "--sparse=always", str(self._given), str(disk)], check=True)
        else:
            print("making a disk of 8 GiB with real files …", flush=True)
            make_disk(disk)
        settle()
        return disk

    @functools.cached_property
    def peer_capture(self) -> Measured:
        """partclone and zstd; leaves the stream that the peers of the restore rows read."""
        with partition(self.disk) as node:
            command = f"partclone.ext4 -c -s {node} -L /dev/null | zstd -q -f -3 -T0 -o {self.folder / 'stream.zst'}"
            return best(self.repeat, lambda: self._warmly(self.disk, command))

    @functools.cached_property
    def stream(self) -> Path:
        """What partclone and zstd stored."""
        assert self.peer_capture
        return self.folder / "stream.zst"

    @functools.cached_property
    def raw(self) -> Path:
        """The same bytes, not compressed."""
        raw = self.folder / "raw"
        subprocess.run(["zstd", "-q", "-d", "-f", str(self.stream), "-o", str(raw)], check=True)
        settle()
        return raw

    @functools.cached_property
    def our_capture(self) -> Measured:
        """The first capture into an empty repository, which stays for the rows that restore."""

        def once() -> Measured:
            shutil.rmtree(self.folder / "repo", ignore_errors=True)
            settle()
            warm(self.disk)
            return liferaft("capture", self.disk, "--repo", self.folder / "repo", *_QUIET)

        return best(self.repeat, once)

    @functools.cached_property
    def repo(self) -> Path:
        """A repository with one recovery point of the disk."""
        assert self.our_capture
        return self.folder / "repo"

    def _warmly(self, path: Path, command: str) -> Measured:
        settle()
        warm(path)
        return measure(command)

    def capture(self) -> Row:
        ours, theirs = self.our_capture, self.peer_capture
        return faster("capture", "full capture", "partclone.ext4 -c | zstd -3 -T0", ours, theirs, 2.2)

    def capture_zstd(self) -> Row:
        theirs = best(self.repeat, lambda: self._warmly(self.raw, f"zstd -q -3 -T0 -c {self.raw} > /dev/null"))
        return faster("capture-zstd", "full capture", "zstd -3 -T0 alone, same bytes", self.our_capture, theirs, 0.95)

    def capture_borg(self) -> Row:
        repo = self.folder / "borg"
        env = {**_BORG, "BORG_BASE_DIR": str(self.folder / "borg-home")}

        def once() -> Measured:
            shutil.rmtree(repo, ignore_errors=True)
            settle()
            warm(self.disk)
            measure(["borg", "init", "--encryption", "none", str(repo)], env=env)
            return measure(["borg", "create", "-C", "zstd,3", f"{repo}::one", str(self.disk)], env=env)

        theirs = best(self.repeat, once)
        shutil.rmtree(repo)
        name = "borg create -C zstd,3, not encrypted"
        return faster("capture-borg", "full capture", name, self.our_capture, theirs, 2.0)

    def capture_restic(self) -> Row:
        repo = self.folder / "restic"
        env = {"RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(self.folder / "restic-cache")}

        def once() -> Measured:
            shutil.rmtree(repo, ignore_errors=True)
            settle()
            warm(self.disk)
            measure(["restic", "-q", "-r", str(repo), "init"], env=env)
            return measure(["restic", "-q", "-r", str(repo), "backup", str(self.disk)], env=env)

        theirs = best(self.repeat, once)
        shutil.rmtree(repo)
        name = "restic backup, compression auto"
        return faster("capture-restic", "full capture", name, self.our_capture, theirs, 2.0)

    def capture_again(self) -> Row:
        assert self.our_capture
        copy = self.folder / "changed.img"
        subprocess.run(["cp", "--sparse=always", str(self.disk), str(copy)], check=True)
        used = _stored(self.repo, "*.pack")
        change_files(copy, max(1, self._chunks() // 100))
        settle()
        warm(copy)
        ours = liferaft("capture", copy, "--repo", self.repo, "--name", "changed", *_QUIET)
        copy.unlink()
        added = (_stored(self.repo, "*.pack") - used) >> 20
        work = f"capture, 1 % of chunks changed ({added} MiB stored)"
        return faster("capture-again", work, "our first capture", ours, self.our_capture, 4.0)

    def _chunks(self) -> int:
        """Chunks in use: the bytes of partclone's image, which holds used blocks and little more."""
        return self.raw.stat().st_size >> 20

    def stored(self) -> Row:
        assert self.our_capture
        fresh = self.folder / "stored"
        liferaft("capture", self.disk, "--repo", fresh, *_QUIET)
        ours = _stored(fresh, "*")
        shutil.rmtree(fresh)
        return smaller("stored", "stored", "partclone | zstd -3", ours, self.stream.stat().st_size, 1.05)

    @functools.cached_property
    def unverified(self) -> Measured:
        """Our restore without read-back."""
        return self._restore(self.repo, "--no-verify")

    @functools.cached_property
    def verified(self) -> Measured:
        """Our restore, read back and compared."""
        return self._restore(self.repo)

    def _restore(self, repo: Path | str, *options: str) -> Measured:
        target = self.folder / "target.img"

        def once() -> Measured:
            self._fresh(target)
            for pack in self.repo.rglob("*.pack"):
                warm(pack)
            return liferaft("restore", "latest", "--repo", repo, "--target", target, "--yes", *_QUIET, *options)

        return best(self.repeat, once)

    def _fresh(self, target: Path) -> None:
        size = self.disk.stat().st_size
        target.unlink(missing_ok=True)
        with target.open("wb") as stream:
            stream.truncate(size)
        # The scratch filesystem may discard what the old file held: that is over before the clock starts.
        settle()
        settle()

    def restore(self) -> Row:
        target = self.folder / "target.img"

        def once() -> Measured:
            self._fresh(target)
            subprocess.run(["sfdisk", "-q", str(target)], input="label: gpt\nstart=2048\n", text=True, check=True)
            with partition(target) as node:
                command = f"zstd -q -dc {self.stream} | partclone.ext4 -r -o {node} -L /dev/null && sync {target}"
                return self._warmly(self.stream, command)

        theirs = best(self.repeat, once)
        return faster("restore", "restore, read back", "zstd -dc | partclone.ext4 -r", self.verified, theirs, 5.0)

    @functools.cached_property
    def delta(self) -> tuple[Measured, int, int]:
        """Our restore onto a disk that matches except one chunk in a hundred; bytes it wrote, bytes that differed."""
        assert self._restore(self.repo)
        return self._delta()

    def _delta(self) -> tuple[Measured, int, int]:
        target, report = self.folder / "target.img", self.folder / "report.json"
        written: list[int] = []
        differing = 0

        def once() -> Measured:
            nonlocal differing
            differing = turn_chunks(target, every=100)
            settle()
            words = [
                *LIFERAFT,
                "restore",
                "latest",
                "--repo",
                self.repo,
                "--target",
                target,
                "--yes",
                *_QUIET,
                "--json",
            ]
            ours = measure(f"{shlex.join(map(str, words))} > {report}")
            done = json.loads(report.read_text())
            # The head, too, and what was zeroed inside the volume: everything that was put on the disk.
            written.append(done["written"] + sum(step["rewritten"] for step in done["steps"]))
            return ours

        quickest = best(self.repeat, once)
        return quickest, max(written), differing

    def restore_delta(self) -> Row:
        ours, _, _ = self.delta
        name = "the same onto an empty disk"
        return faster("restore-delta", "restore where 1 % differs, read back", name, ours, self.verified, 3.0)

    def restore_delta_slow(self) -> Row:
        with slow_writes(self.folder, SLOW):
            full = self._restore(self.repo)
            ours, _, _ = self._delta()
        name = "the same onto an empty disk"
        work = f"the same, on a disk that takes {SLOW // 10**6} MB a second"
        return faster("restore-delta-slow", work, name, ours, full, 3.0)

    def restore_delta_written(self) -> Row:
        _, written, differing = self.delta
        return smaller(
            "restore-delta-written", "written where 1 % differs", "chunks that differ", written, differing, 1.2
        )

    def restore_dd(self) -> Row:
        target = self.folder / "target.img"
        command = f"zstd -q -dc {self.stream} | dd of={target} bs=1M iflag=fullblock oflag=direct conv=notrunc"

        def once() -> Measured:
            self._fresh(target)
            return self._warmly(self.stream, command)

        theirs = best(self.repeat, once)
        name = "zstd -dc | dd oflag=direct, same bytes"
        return faster("restore-dd", "restore, not read back", name, self.unverified, theirs, 1.5)

    def restore_device(self) -> Row:
        target = self.folder / "target.img"

        def once() -> Measured:
            self._fresh(target)
            return self._warmly(self.raw, f"dd if={self.raw} of={target} bs=4M oflag=direct conv=notrunc")

        theirs = best(self.repeat, once)
        name = "dd oflag=direct alone, not compressed"
        return faster("restore-device", "restore, not read back", name, self.unverified, theirs, None)

    def restore_http(self) -> Row:
        with nginx(self.repo, self.folder / "nginx") as server:
            ours = self._restore(server.url)
        name = "the same from a folder"
        return faster("restore-http", "restore over HTTP, read back", name, ours, self.verified, 0.8)

    def restore_http_dd(self) -> Row:
        with nginx(self.repo, self.folder / "nginx") as server:
            ours = self._restore(server.url, "--no-verify")
        name = "the same from a folder"
        return faster("restore-http-dd", "restore over HTTP, not read back", name, ours, self.unverified, None)

    def open_16t(self) -> Row:
        repo, target = make_huge(self.folder)
        ours = best(self.repeat, lambda: liferaft("plan", "latest", "--repo", repo, "--target", target))
        target.unlink()
        work = "open and plan 16 TiB, 100 GiB in use"
        return within("open-16t", work, "a limit", ours, 2.0)

    @functools.cached_property
    def many(self) -> Path:
        """A repository with a recovery point of 8 disks of 32 partitions."""
        return make_many(self.folder)

    def _plan_many(self, percent: int, *options: str) -> Measured:
        words = [*make_targets(self.folder, percent), *options]
        return best(self.repeat, lambda: liferaft("plan", "latest", "--repo", self.many, *words))

    def plan_8x32(self) -> Row:
        ours = self._plan_many(150, "--grow-all")
        return within("plan-8x32", "plan 8 disks of 32 partitions, all to grow", "a limit", ours, 1.0)

    def plan_8x32_smaller(self) -> Row:
        ours = self._plan_many(90)
        return within("plan-8x32-smaller", "the same, all to shrink", "a limit of our own", ours, 2.0)

    def extract_http(self) -> Row:
        # The index it looks things up in holds the chunks of 100 GiB: those of the synthetic disk are beside it.
        repo, target = make_huge(self.folder)
        target.unlink()
        big = make_big(self.folder, self.disk)
        liferaft("capture", big, "--repo", repo, "--name", "big", *_QUIET)
        big.unlink()
        out = self.folder / "extracted"
        with nginx(repo, self.folder / "nginx") as server:
            server.forget()
            ours = liferaft("extract", f"latest:/{WANTED}", out, "--repo", server.url)
            sent, requests = server.sent()
        found = next(path for path in (out, *out.rglob("*")) if path.is_file())
        if found.read_bytes() != (self.folder / "wanted.bin").read_bytes():
            raise SystemExit("The extracted file is not the one that was stored.")
        shutil.rmtree(repo)
        work = f"1 MiB file from a 100 GiB image over HTTP ({requests} requests)"
        return transferred("extract-http", work, "a limit", sent, ours, 8 << 20)


ROWS = {
    "capture": Bench.capture,
    "capture-zstd": Bench.capture_zstd,
    "capture-borg": Bench.capture_borg,
    "capture-restic": Bench.capture_restic,
    "stored": Bench.stored,
    "restore-dd": Bench.restore_dd,
    "restore-device": Bench.restore_device,
    "restore": Bench.restore,
    "restore-delta": Bench.restore_delta,
    "restore-delta-slow": Bench.restore_delta_slow,
    "restore-delta-written": Bench.restore_delta_written,
    "restore-http": Bench.restore_http,
    "restore-http-dd": Bench.restore_http_dd,
    "capture-again": Bench.capture_again,
    "open-16t": Bench.open_16t,
    "extract-http": Bench.extract_http,
    "plan-8x32": Bench.plan_8x32,
    "plan-8x32-smaller": Bench.plan_8x32_smaller,
}


def _stored(repo: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in repo.rglob(pattern) if path.is_file())
