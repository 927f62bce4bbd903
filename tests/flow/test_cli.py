"""The command line as a user meets it: output, exit codes, and that nothing is written when it refuses."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from images.capture import CaptureResult
from tests.flow.disks import DISKS, MIB, blank, gpt_disk

Capture = Callable[[Path], CaptureResult]


def liferaft(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from rescue.cli.main import main; main()", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def repo(tmp_path: Path, tree: Path, capture: Capture) -> Path:
    capture(gpt_disk(tmp_path / "source.img", tree))
    return tmp_path / "repo"


def test_capture_plan_restore_by_hand(tmp_path: Path, tree: Path) -> None:
    DISKS["dos"](tmp_path / "source.img", tree)
    blank(tmp_path / "target.img", 200 * MIB)
    taken = liferaft("capture", "source.img", "--repo", "repo", "--name", "monday", "--json", cwd=tmp_path)
    assert taken.returncode == 0, taken.stderr
    identifier = json.loads(taken.stdout)["id"]
    assert identifier[:12] in liferaft("snapshots", "--repo", "repo", cwd=tmp_path).stdout
    assert "smallest target" in liferaft("show", "monday", "--repo", "repo", cwd=tmp_path).stdout
    plan = liferaft("plan", identifier[:8], "--repo", "repo", "--target", "target.img", "-o", "p.json", cwd=tmp_path)
    assert "EVERYTHING ON IT WILL BE LOST" in plan.stdout
    digest = plan.stderr.split("--confirm ")[1].strip()
    done = liferaft("restore", "--plan", "p.json", "--confirm", digest, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"] is True


def test_progress_as_json_lines(tmp_path: Path, repo: Path) -> None:
    blank(tmp_path / "target.img", 200 * MIB)
    done = liferaft(
        "restore", "latest", "--repo", "repo", "--target", "target.img", "--yes", "--progress", "json", cwd=tmp_path
    )
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert {"preflight", "layout", "stream", "verify"} <= {event["stage"] for event in events}


#: words, exit code, part of the sentence
BAD = [
    ("capture text --repo new", 3, "not a disk"),
    ("capture empty --repo new", 2, "is empty"),
    ("capture zeros.img --repo new", 3, "not a disk"),
    ("capture nothere --repo new", 2, "does not exist"),
    ("capture folder --repo new", 2, "neither a block device nor a plain file"),
    ("capture source.img --repo folder", 3, "not a liferaft repository and is not empty"),
    ("snapshots --repo nothere", 2, "the folder does not exist"),
    ("snapshots --repo folder", 3, "is not a liferaft repository"),
    ("snapshots --repo ftp://x/y", 2, "not a repository address"),
    ("plan latest --repo repo --target small.img", 3, "bytes too small"),
    ("plan latest --repo repo --target source.img", 3, "was captured from"),
    ("plan latest --repo repo --target repo/inside.img", 3, "lies in the repository"),
    ("plan nope --repo repo --target target.img", 2, "No recovery point nope"),
    ("plan latest --repo repo --target target.img --target target.img", 3, "named twice"),
    ("plan latest --repo repo --target empty", 2, "is empty"),
    ("restore --plan plan.json --confirm 0000000000000000", 3, "The plan's digest is"),
    ("restore --plan plan.json", 2, "digest"),
    ("restore --plan text --confirm 0", 2, "not a valid plan"),
    ("restore --plan nothere --confirm 0", 2, "cannot be read"),
    ("restore latest", 2, "what to restore where"),
    ("job text", 2, "not a valid job"),
    ("job bad-job.json", 2, "unknown field `surprise`"),
    ("job two-targets.json", 2, "exactly one of"),
    ("restore latest --repo repo --target target.img --yes --confirm 0000", 3, "digest is"),
    ("restore --plan plan.json --confirm 0 --grow", 2, "stands alone"),
    ("plan latest --repo repo --target target.img -o nothere/plan.json", 2, "cannot be written"),
    ("snapshots --repo bad-repo", 5, "hash or id"),
    ("frobnicate", 2, "No such command"),
    ("plan latest --repo repo", 2, "--target"),
]


@pytest.fixture(scope="session")
def bad_inputs(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    """A folder with a repository, a plan, a target, and everything that is wrong."""
    folder = tmp_path_factory.mktemp("bad")
    gpt_disk(folder / "source.img", tree)
    assert liferaft("capture", "source.img", "--repo", "repo", cwd=folder).returncode == 0
    (folder / "text").write_text("hello")
    (folder / "empty").write_bytes(b"")
    (folder / "zeros.img").write_bytes(bytes(MIB))
    (folder / "folder").mkdir()
    (folder / "folder" / "file").write_text("x")
    (folder / "small.img").write_bytes(bytes(MIB))
    (folder / "repo" / "inside.img").write_bytes(bytes(MIB))
    job = {"repository": "r", "target": {"only": True}}
    (folder / "bad-job.json").write_text(json.dumps({**job, "surprise": 1}))
    (folder / "two-targets.json").write_text(json.dumps({**job, "target": {"only": True, "serial": "x"}}))
    (folder / "bad-repo").mkdir()
    document = json.loads((folder / "repo" / "liferaft.json").read_text())
    (folder / "bad-repo" / "liferaft.json").write_text(json.dumps({**document, "id": "x" * 32}))
    blank(folder / "target.img", 200 * MIB)
    made = liferaft("plan", "latest", "--repo", "repo", "--target", "target.img", "-o", "plan.json", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize(("words", "code", "sentence"), BAD, ids=[words for words, _, _ in BAD])
def test_bad_input(words: str, code: int, sentence: str, bad_inputs: Path) -> None:
    before = (bad_inputs / "target.img").read_bytes()
    done = liferaft(*words.split(), cwd=bad_inputs)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert sentence in said
    assert "Traceback" not in said
    assert (bad_inputs / "target.img").read_bytes() == before


def test_a_changed_plan_has_another_digest(tmp_path: Path, repo: Path) -> None:
    blank(tmp_path / "target.img", 200 * MIB)
    made = liferaft("plan", "latest", "--repo", "repo", "--target", "target.img", "-o", "plan.json", cwd=tmp_path)
    digest = made.stderr.split("--confirm ")[1].strip()
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["steps"][0]["extents"][0][1] += 512
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = liferaft("restore", "--plan", "plan.json", "--confirm", digest, cwd=tmp_path)
    assert done.returncode == 3
    assert "Nothing was written" in done.stderr


@pytest.mark.parametrize(
    "command", ["", "capture", "plan", "restore", "snapshots", "show", "probe", "job", "build", "tui"]
)
def test_help_teaches(command: str, tmp_path: Path) -> None:
    done = liferaft(*filter(None, [command, "--help"]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage: liferaft" in done.stdout or "Usage: -c" in done.stdout


@pytest.mark.parametrize("words", [("snapshots", "--repo", "repo"), ("--help",), ("ls", "--help")])
def test_a_result_that_cannot_be_printed_is_a_failure(tmp_path: Path, repo: Path, words: tuple[str, ...]) -> None:
    argv = [sys.executable, "-c", "from rescue.cli.main import main; main()", *words]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(argv, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: What was to be printed cannot be written: No space left on device.\nHint: ")
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr


def test_a_reader_who_has_seen_enough_is_told_nothing(tmp_path: Path, repo: Path) -> None:
    argv = [sys.executable, "-c", "from rescue.cli.main import main; main()", "probe", "--json"]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_an_error_that_cannot_be_said_keeps_its_exit_code(tmp_path: Path) -> None:
    for words, code in ((("snapshots", "--repo", "none"), 2), (("sanpshots",), 2)):
        argv = [sys.executable, "-c", "from rescue.cli.main import main; main()", *words]
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(argv, cwd=tmp_path, stdout=full, stderr=full, timeout=60)
        assert done.returncode == code
