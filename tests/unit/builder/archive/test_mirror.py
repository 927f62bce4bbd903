"""Finding the Debian mirror in what apt prints (recorded on Debian 12 and 13)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.architecture import Architecture, architecture_of
from builder.archive.debian import open_archive
from builder.archive.mirror import Mirror, find_mirror, parse_mirror, published, read_state
from builder.archive.origin import DatedRunner
from builder.cache import open_cache
from builder.drivers.dkms import build_dkms
from builder.rootfs import forget_user
from core.errors import DamagedError, LiferaftError, ProcessError, UnreachableError, UsageError
from core.events import Event, ignore
from core.process import Result
from tests.runners import ScriptedRunner

DEBIAN_12 = """\
'https://packages.example.org/apt/dists/cloud-sdk-bookworm/InRelease' x_InRelease 0
'http://mirror.lan/debian/dists/bookworm/InRelease' mirror.lan_debian_dists_bookworm_InRelease 0
'http://mirror.lan/debian/dists/bookworm-updates/InRelease' mirror.lan_debian_dists_bookworm-updates_InRelease 0
'http://mirror.lan/debian-security/dists/bookworm-security/InRelease' mirror.lan_InRelease 0
'http://mirror.lan/debian/dists/bookworm/main/binary-amd64/Packages.xz' mirror.lan_Packages 0
"""


def test_the_hosts_own_mirror_is_taken() -> None:
    assert parse_mirror(DEBIAN_12) == Mirror("http://mirror.lan/debian", "http://mirror.lan/debian-security")


def test_a_third_party_with_the_same_suite_is_not_the_archive() -> None:
    other = "'https://download.example.com/linux/debian/dists/bookworm/InRelease' x 0 \n"
    assert parse_mirror(other + DEBIAN_12).archive == "http://mirror.lan/debian"


def test_sources_have_updates_and_security_when_the_host_has() -> None:
    assert Mirror("http://m/debian", "").sources("trixie") == (
        "deb http://m/debian trixie main",
        "deb http://m/debian trixie-updates main",
    )
    assert "deb http://s trixie-security main" in Mirror("http://m/debian", "http://s").sources("trixie")


def test_sources_say_which_architecture_they_are_read_for() -> None:
    """sources.list(5): options in brackets, separated by spaces; arch= names the architecture."""
    dated = Mirror("http://m", "", dated=True, architecture=Architecture.ARM64)
    assert dated.sources("trixie")[0] == "deb [arch=arm64 check-valid-until=no] http://m trixie main"
    assert architecture_of(dated.sources("trixie")) is Architecture.ARM64
    plain = Mirror("http://m", "", dated=True)
    assert architecture_of(plain.sources("trixie")) is Architecture.AMD64
    # A word of an address is no option.
    assert architecture_of(("deb http://arch=arm64.example/debian trixie main",)) is Architecture.AMD64


def test_a_host_that_is_not_debian_uses_debians_own_address() -> None:
    assert parse_mirror("'http://archive.ubuntu.com/ubuntu/dists/noble/InRelease' x 0 \n").archive.endswith("/debian")


def test_backports_are_read_only_when_they_are_asked_for() -> None:
    plain, more = Mirror("http://m", "http://s"), Mirror("http://m", "http://s", backports=True)
    assert set(more.sources("trixie")) - set(plain.sources("trixie")) == {"deb http://m trixie-backports main"}


class _Archive:
    """apt's downloader, serving ``files`` by address; everything else fails as apt does."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        _, action, address, target = argv
        assert action == "download-file"
        self.asked.append(address)
        if address not in self.files:
            raise ProcessError(tuple(argv), 100, f"Err:1 {address}\nE: Failed to fetch {address}  404  Not Found\n")
        Path(target).write_text(self.files[address])
        return Result(0, "", "")


_MIRROR = Mirror("http://m/debian", "http://m/debian-security")
_STATES = {
    "http://m/debian/dists/trixie/InRelease": "Codename: trixie\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n",
    "http://m/debian/dists/trixie-updates/InRelease": "Date: Fri, 20 Nov 2026 02:11:10 UTC\n",
    "http://m/debian-security/dists/trixie-security/InRelease": "Date: Fri, 20 Nov 2026 00:12:42 +0000\n",
}


def test_the_state_of_an_archive_is_what_its_suites_publish(tmp_path: Path) -> None:
    with open_cache(tmp_path) as cache:
        state = read_state(_MIRROR, "trixie", cache, _Archive(_STATES), ignore)
    assert [source.suite for source in state] == ["trixie", "trixie-updates", "trixie-security"]
    # date -u -d 'Sat, 12 Sep 2026 07:55:41 UTC' +%s
    assert state[0].published.timestamp() == 1789199741
    # printf '…' | sha256sum
    assert state[0].sha256 == "eb0d2429eac0fee10f7e987bb205bb1ddbd43f3c984eafac8662984e11fadb64"
    assert published(state).isoformat() == "2026-11-20T02:11:10+00:00"


def test_without_an_answer_the_last_state_counts_with_a_warning(tmp_path: Path) -> None:
    told: list[Event] = []
    with open_cache(tmp_path) as cache:
        known = read_state(_MIRROR, "trixie", cache, _Archive(_STATES), ignore)
        assert read_state(_MIRROR, "trixie", cache, _Archive({}), told.append) == known
    (warning,) = told
    assert warning.warning and "cannot be asked" in warning.message and "2026-11-20" in warning.message


def test_offline_nobody_is_asked(tmp_path: Path) -> None:
    archive = _Archive(_STATES)
    with open_cache(tmp_path) as cache:
        with pytest.raises(UnreachableError, match="--offline"):
            read_state(_MIRROR, "trixie", cache, archive, ignore, offline=True)
        assert archive.asked == []
        known = read_state(_MIRROR, "trixie", cache, archive, ignore)
        asked = len(archive.asked)
        assert read_state(_MIRROR, "trixie", cache, archive, ignore, offline=True) == known
    assert len(archive.asked) == asked


def test_an_archive_that_never_answered_is_named(tmp_path: Path) -> None:
    with open_cache(tmp_path) as cache, pytest.raises(UnreachableError, match=r"http://m/debian .*404  Not Found"):
        read_state(_MIRROR, "trixie", cache, _Archive({}), ignore)


@pytest.mark.parametrize("answer", ["<html>log in</html>", "Date: yesterday\n", "Date: \n"])
def test_a_login_page_is_no_archive(tmp_path: Path, answer: str) -> None:
    files = {**_STATES, "http://m/debian/dists/trixie/InRelease": answer}
    with open_cache(tmp_path) as cache, pytest.raises(DamagedError, match="field Date"):
        read_state(_MIRROR, "trixie", cache, _Archive(files), ignore)


class _NoRunner:
    def run(self, argv: Sequence[str], **options: Any) -> Result:
        raise AssertionError(argv)


def test_a_recipe_chooses_archive_and_state() -> None:
    runner = _NoRunner()
    own = find_mirror(runner, "http://m/debian/")
    assert own == Mirror("http://m/debian", "http://m/debian-security")
    assert own.sources("trixie")[0] == "deb http://m/debian trixie main"
    old = find_mirror(runner, "", "20261101T000000Z")
    # snapshot.debian.org, "Usage": deb [check-valid-until=no] https://snapshot.debian.org/archive/debian/TIMESTAMP/ …
    assert old.sources("trixie") == (
        "deb [check-valid-until=no] http://snapshot.debian.org/archive/debian/20261101T000000Z trixie main",
        "deb [check-valid-until=no] http://snapshot.debian.org/archive/debian/20261101T000000Z trixie-updates main",
        "deb [check-valid-until=no] "
        "http://snapshot.debian.org/archive/debian-security/20261101T000000Z trixie-security main",
    )
    assert find_mirror(runner, "http://s/archive/debian", "20261101T000000Z").security == (
        "http://s/archive/debian-security/20261101T000000Z"
    )


def test_programs_get_the_time_and_keep_their_own_variables() -> None:
    seen: list[Mapping[str, str]] = []

    class Recorder:
        def run(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any) -> Result:
            seen.append(env or {})
            return Result(0, "", "")

    DatedRunner(Recorder(), 17).run(["true"], env={"PIP_INDEX_URL": "x"})
    assert seen == [{"SOURCE_DATE_EPOCH": "17", "PIP_INDEX_URL": "x"}]


TOKEN = "http://user:t0ken@mirror.example/debian"


def test_the_password_of_the_mirror_is_asked_with_and_told_nobody(tmp_path: Path) -> None:
    """Neither in an error nor in the list of processes. What the file says is written as apt_auth.conf(5) has it."""
    logins: list[tuple[str, int]] = []
    told: list[Event] = []

    def answer(argv: Sequence[str]) -> str:
        assert "t0ken" not in " ".join(argv)
        login = Path(argv[argv.index("-o") + 1].removeprefix("Dir::Etc::netrc="))
        logins.append((login.read_text(), login.stat().st_mode & 0o777))
        Path(argv[-1]).write_text("Suite: stable\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n")
        return ""

    def refuse(argv: Sequence[str]) -> str:
        raise ProcessError(tuple(argv), 100, f"E: Failed to fetch {TOKEN}/dists/trixie/InRelease  401")

    mirror = Mirror(TOKEN, "")
    with open_cache(tmp_path) as cache:
        with pytest.raises(UnreachableError) as caught:
            read_state(mirror, "trixie", cache, ScriptedRunner(refuse), told.append)
        first = read_state(mirror, "trixie", cache, ScriptedRunner(answer), told.append)
        again = read_state(mirror, "trixie", cache, ScriptedRunner(refuse), told.append)
    assert set(logins) == {("machine http://mirror.example/debian login user password t0ken\n", 0o600)}
    assert first == again and {source.uri for source in first} == {"http://mirror.example/debian"}
    said = " ".join([caught.value.message, *(event.message for event in told)])
    assert "mirror.example" in said and "t0ken" not in said


@pytest.mark.parametrize("user", ["u:a%20b", "u:a%0Ab", ":token"])
def test_a_login_that_apt_cannot_read_from_a_file_is_refused(user: str, tmp_path: Path) -> None:
    mirror = Mirror(f"http://{user}@mirror.example/debian", "")
    with open_cache(tmp_path) as cache, pytest.raises(UsageError, match="space") as caught:
        read_state(mirror, "trixie", cache, _NoRunner(), ignore)
    assert "http://mirror.example/debian" in caught.value.message


def test_apts_own_line_is_told_without_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    sources = (f"deb {TOKEN} trixie main",)

    def refuse(argv: Sequence[str]) -> str:
        raise ProcessError(tuple(argv), 100, f"E: Failed to fetch {TOKEN}/dists/trixie/InRelease  401  Unauthorized")

    def refuse_to_install(argv: Sequence[str]) -> str:
        return refuse(argv) if "install" in argv else ""

    with open_cache(tmp_path) as cache:
        with pytest.raises(LiferaftError) as fetching:
            open_archive(sources, cache, ScriptedRunner(refuse), ignore)
        with pytest.raises(LiferaftError) as resolving:
            open_archive(sources, cache, ScriptedRunner(refuse_to_install), ignore).resolve(())
        with pytest.raises(LiferaftError) as compiling:
            packages = ("r8125-dkms",)
            build_dkms(packages, (), "6.12.1-amd64", "trixie", sources, cache, ScriptedRunner(refuse), ignore)
    for caught in (fetching, resolving, compiling):
        assert "mirror.example" in caught.value.message and "t0ken" not in caught.value.message


def test_a_sources_list_keeps_everything_but_the_user(tmp_path: Path) -> None:
    lines = "deb http://plain.example/debian trixie main\ndeb [arch=arm64] {}mirror.example/debian-security x main\n"
    for scheme in ("https://a:b%40c@", "https://token@"):
        (tmp_path / "sources.list").write_text(lines.format(scheme))
        forget_user(tmp_path / "sources.list")
        assert (tmp_path / "sources.list").read_text() == lines.format("https://")
