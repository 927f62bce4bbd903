"""Debian's archive as a medium's release sees it: which packages there are, and single packages without installing.

apt reads the lists into a folder of its own: neither this machine's sources nor its installed packages count, and no
root is needed. Signatures are checked with Debian's own keys. It installs nothing: that is mmdebstrap's (``rootfs``).
"""

import datetime
import difflib
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from builder.architecture import Architecture, architecture_of
from builder.archive.mirror import without_user
from builder.cache import Cache, key_of
from core.errors import LiferaftError, MissingToolError, ProcessError, UnreachableError, UsageError
from core.events import Event, Sink, Stage
from core.process import Runner

#: The components beside main: firmware, drivers as source (r8125-dkms), and what is free but needs what is not.
_COMPONENTS = "contrib non-free non-free-firmware"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: A line of apt-get's simulation: "Inst NAME (VERSION ORIGIN [ARCHITECTURE])".
_INSTALLED = re.compile(r"^Inst (\S+) \((\S+) ", re.MULTILINE)
_FIELD = re.compile(r"^(Package|Section): (.+)$", re.MULTILINE)
#: A line of ``apt-get --print-uris``: "'URI' FILE SIZE SHA256:DIGEST"; the file is named PACKAGE_VERSION_ARCHITECTURE.
_FILE = re.compile(
    r"^'[^']+' ([a-z0-9][a-z0-9+.-]*_[A-Za-z0-9+.~%-]+_[a-z0-9-]+\.deb) (\d{1,12}) SHA256:([0-9a-f]{64})$"
)


class PackageFile(msgspec.Struct, frozen=True):
    """A package as the signed lists name it: apt's name for the file, its size in bytes and its digest."""

    name: str
    size: int
    sha256: str

    @property
    def wanted(self) -> str:
        """What apt calls this very one: its package and version, in which a colon is quoted in the file's name."""
        package, version, _ = self.name.split("_")
        return f"{package}={urllib.parse.unquote(version)}"


class Archive:
    """The lists of an archive, in the folder of a cache entry. Made by :func:`open_archive`."""

    def __init__(self, folder: Path, architecture: Architecture, cache: Cache, runner: Runner) -> None:
        self._folder = folder
        self._options = _options(folder, architecture)
        self._cache = cache
        self._runner = runner

    def refuse_unknown(self, packages: Iterable[str], field: str, *, main_only: bool = False) -> None:
        """Refuse names that are no packages.

        Args:
            field: what an error calls the place where they were named.
            main_only: refuse also those that are not in Debian's main part.

        Raises:
            UsageError: naming the package and the nearest that there is.
        """
        wanted = tuple(dict.fromkeys(packages))
        if not wanted:
            return
        found = self._sections(wanted)
        for package in wanted:
            if package not in found:
                near = difflib.get_close_matches(package, self._names(package[:2]), n=1)
                raise UsageError(
                    f"{field}: Debian has no package {package}.",
                    hint=f"Is {near[0]} meant? Nothing was built." if near else "Nothing was built.",
                )
            if main_only and found[package].partition("/")[0] in ("contrib", "non-free-firmware", "non-free"):
                raise UsageError(
                    f"{field}: {package} is not in Debian's main part but in {found[package].partition('/')[0]}.",
                    hint="Firmware is named in [firmware] packages. Nothing was built.",
                )

    def fetch(self, packages: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
        """Fetch the newest ``.deb`` of each package into ``folder``, and of nothing that it depends on.

        Raises:
            UsageError: there is no such package.
            UnreachableError: the mirror does not answer.
        """
        self.refuse_unknown(packages, "The medium")
        try:
            self._runner.run(["apt-get", *self._options, "download", *packages], timeout=900, cwd=str(folder))
        except ProcessError as error:
            raise _unreachable(error) from None
        found = {path.name.partition("_")[0]: path for path in folder.glob("*.deb")}
        return tuple(found[package] for package in packages)

    def files(self, packages: Iterable[str]) -> tuple[PackageFile, ...]:
        """The files that apt would install for ``packages`` and everything essential, without recommendations.

        A package whose list names no SHA-256, or that lies in a folder of this machine (``file:``), is not among them.

        Raises:
            LiferaftError: apt cannot install them together.
        """
        said = self._plan(packages, "-o", "Acquire::ForceHash=SHA256", "-qq", "--print-uris")
        found = (_FILE.match(line) for line in said.splitlines())
        return tuple(PackageFile(match[1], int(match[2]), match[3]) for match in found if match)

    def download(self, files: Sequence[PackageFile], folder: Path) -> None:
        """Fetch ``files`` into ``folder``, under their names there. apt compares them with the signed lists.

        Raises:
            UnreachableError: the mirror does not answer.
        """
        argv = ["apt-get", *self._options, "-qq", "download", *(file.wanted for file in files)]
        try:
            self._runner.run(argv, timeout=3600, cwd=str(folder))
        except ProcessError as error:
            raise _unreachable(error) from None

    def unpack(self, packages: tuple[str, ...], folder: Path) -> None:
        """Unpack packages into ``folder``; nothing of them is run."""
        with self._cache.scratch("debs") as scratch:
            for path in self.fetch(packages, scratch):
                self._runner.run(["dpkg-deb", "-x", str(path), str(folder)], timeout=300)

    def resolve(self, packages: Iterable[str]) -> tuple[str, ...]:
        """What apt would install for ``packages`` and everything essential, without recommendations, as
        ``NAME VERSION``, sorted.

        Raises:
            UsageError: a package does not exist. LiferaftError: they do not go together.
        """
        said = self._plan(packages, "--simulate")
        return tuple(sorted(f"{match[1]} {match[2]}" for match in _INSTALLED.finditer(said)))

    def _plan(self, packages: Iterable[str], *words: str) -> str:
        """What apt says of installing ``packages`` and everything essential, without recommendations."""
        wanted = tuple(packages)
        argv = ["apt-get", *self._options, "-o", "APT::Install-Recommends=false", *words, "install"]
        try:
            return self._runner.run([*argv, "?essential", "apt", *wanted], timeout=120).stdout
        except ProcessError as error:
            self.refuse_unknown(wanted, "The medium")
            said = without_user(error.message)
            raise LiferaftError(f"apt cannot install the medium's packages together: {said}") from error

    def known(self, packages: Iterable[str]) -> tuple[str, ...]:
        """Those of ``packages`` that there are: a mirror may have Debian's main part alone."""
        wanted = tuple(packages)
        found = self._sections(wanted)
        return tuple(package for package in wanted if package in found)

    def _sections(self, packages: tuple[str, ...]) -> dict[str, str]:
        """Of each package that there is, the section."""
        argv = ["apt-cache", *self._options, "show", "--no-all-versions", *packages]
        # 100: at least one of them is unknown; which, is seen by who is missing.
        text = self._runner.run(argv, success=frozenset({0, 100}), timeout=120).stdout
        found: dict[str, str] = {}
        name = ""
        for match in _FIELD.finditer(text):
            if match[1] == "Package":
                name = match[2]
            else:
                found[name] = match[2]
        return found

    def _names(self, prefix: str) -> list[str]:
        return self._runner.run(["apt-cache", *self._options, "pkgnames", prefix]).stdout.split()


def open_archive(
    sources: Iterable[str], cache: Cache, runner: Runner, sink: Sink, *, state: tuple[str, ...] = ()
) -> Archive:
    """The archive that lines of a sources.list name, with firmware, as the architecture that they name sees it; its
    lists are fetched at most once a day.

    Args:
        state: digests of what the archive publishes, where they are known: its lists are fetched once for each state.

    Raises:
        MissingToolError: Debian's keys or apt are not on this machine.
        UnreachableError: the mirror does not answer, or what it says is not signed by Debian.
    """
    if not _KEYRING.is_file():
        raise MissingToolError(f"{_KEYRING} is not there.", hint="apt-get install debian-archive-keyring")
    lines = [f"{line} {_COMPONENTS}" for line in sources]
    architecture = architecture_of(lines)
    age = state or (datetime.datetime.now(datetime.UTC).date().isoformat(),)
    key = key_of(("lists 1", *age, *lines))

    def make(folder: Path) -> None:
        sink(Event(stage=Stage.BUILD, message="Reading Debian's package lists"))
        for name in ("state/lists/partial", "cache/archives/partial", "trusted"):
            (folder / name).mkdir(parents=True)
        (folder / "sources.list").touch(0o600)
        (folder / "sources.list").write_text("\n".join(lines) + "\n")
        (folder / "trusted" / "debian.gpg").write_bytes(_KEYRING.read_bytes())
        argv = ["apt-get", *_options(folder, architecture), "-o", "APT::Update::Error-Mode=any", "update"]
        try:
            runner.run(argv, timeout=600)
        except ProcessError as error:
            raise _unreachable(error) from None

    folder, _ = cache.entry("lists", key, make)
    return Archive(folder, architecture, cache, runner)


def _options(folder: Path, architecture: Architecture) -> list[str]:
    """apt's words for a world of its own in ``folder``."""
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "Dir::Cache::srcpkgcache": "",
        # What apt makes of the lists, for the next call; where a container's apt keeps none, ours does.
        "Dir::Cache::pkgcache": "pkgcache.bin",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::trusted": "/dev/null",
        "Dir::Etc::trustedparts": folder / "trusted",
        "APT::Architecture": architecture,
        # Else apt reads lists of the architectures that this machine has beside its own.
        "APT::Architectures": architecture,
        "Acquire::Languages": "none",
        # As root, apt would fetch as a user that cannot write here.
        "APT::Sandbox::User": "root",
        "Acquire::Retries": "3",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _unreachable(error: ProcessError) -> LiferaftError:
    lines = [line for line in error.output.splitlines() if line.startswith(("E: ", "Err:"))]
    said = lines[0].removeprefix("E: ") if lines else error.message
    return UnreachableError(
        f"Debian's packages could not be fetched: {without_user(said)}",
        hint="Does this machine reach its Debian mirror?",
    )
