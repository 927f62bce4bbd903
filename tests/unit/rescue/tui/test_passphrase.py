"""Encrypted repositories in the wizard: asked for, never shown, wrong ones refused, the screen never blocked."""

import asyncio
import threading
from pathlib import Path

import pytest

from core.errors import UnreachableError
from core.events import ignore
from core.process import SystemRunner
from core.units import MIB
from images.store.catalogue import PointSummary
from images.store.passphrase import Passphrase, PassphraseNeededError, WrongPassphraseError
from rescue.jobs.access import access_from
from rescue.jobs.capture import capture_disks
from rescue.jobs.keys import init_repository
from rescue.jobs.repositories import Findings, FoundRepository
from rescue.tui.jobs import SystemJobs
from rescue.tui.widgets.secret import Secret
from tests.runners import ScriptedRunner
from tests.unit.rescue.tui.driving import Driver, wizard
from tests.unit.rescue.tui.fakes import FileJobs
from tests.unit.rescue.tui.test_screens import check

WORDS = "correct horse battery"
PARTITION = slice(MIB, 51 * MIB)


@pytest.fixture(scope="session")
def encrypted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encrypted repository with one recovery point."""
    folder = tmp_path_factory.mktemp("encrypted") / "backups"
    passphrase = Passphrase(WORDS)
    with pytest.MonkeyPatch.context() as patched:  # a key slot that costs nothing to open
        patched.setattr("images.store.keys._MEMORY_KIB", 32)
        init_repository(str(folder), passphrase=passphrase)
    capture_disks(
        [source], str(folder), name="web01", runner=SystemRunner(), sink=ignore, access=access_from(passphrase)
    )
    return folder


class EncryptedJobs(FileJobs):
    """The repository is found as the real search finds it: encrypted, its points not counted."""

    def find_repositories(self) -> Findings:
        self.access = None
        found = FoundRepository(
            path=str(self.repository), device="/dev/sdb1", disk="USB DISK 3.0 14.32 GiB", points=0, encrypted=True
        )
        return Findings(repositories=(found,), notes=())


@pytest.fixture
def jobs(encrypted: Path, target: Path) -> EncryptedJobs:
    return EncryptedJobs(encrypted, target)


async def to_the_passphrase(driver: Driver) -> None:
    await driver.see("Rescue system", "of RAM")
    await driver.press("enter")
    await driver.see("Encrypted repository on sdb1")
    check(driver)
    await driver.press("enter")
    await driver.see("Type the passphrase")


def test_a_person_restores_from_an_encrypted_repository(jobs: EncryptedJobs, source: Path, target: Path) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_passphrase(driver)
            check(driver)
            await driver.type(WORDS)
            text = await driver.see("*" * len(WORDS))
            assert "horse" not in text
            check(driver)
            await driver.press("enter")
            await driver.see("Choose a recovery point", "> 2", "web01")
            await driver.press("enter")
            await driver.see("> target")
            await driver.press("enter")
            await driver.see("type: erase target.img")
            await driver.type("erase target.img")
            await driver.press("enter")
            await driver.see("Restore finished", "read back and equal")

    asyncio.run(road())
    assert target.read_bytes()[PARTITION] == source.read_bytes()[PARTITION]


def test_a_wrong_passphrase_says_so_and_stays(jobs: EncryptedJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_passphrase(driver)
            await driver.press("enter")
            await driver.see("Type the passphrase first.")
            await driver.type("wrong")
            await driver.press("enter")
            text = await driver.see("That passphrase does not open it.")
            assert "Type the passphrase" in text and "*" not in text and "web01" not in text
            check(driver)
            await driver.type(WORDS)
            await driver.press("enter")
            await driver.see("Choose a recovery point", "web01")
            await driver.press("escape")
            await driver.see("Choose a repository", "Encrypted repository on")

    asyncio.run(road())


def test_opening_does_not_block_the_screen(jobs: EncryptedJobs) -> None:
    held = threading.Event()
    opening = threading.Event()

    class Slow(EncryptedJobs):
        def points(self, repository: str, passphrase: Passphrase | None = None) -> tuple[PointSummary, ...]:
            if passphrase is not None:
                opening.set()
                assert held.wait(30)
            return super().points(repository, passphrase)

    slow = Slow(jobs.repository, Path(jobs.machine.disks[-1].node))

    async def road() -> None:
        async with wizard(slow) as driver:
            await to_the_passphrase(driver)
            await driver.type(WORDS)
            await driver.press("enter")
            assert await asyncio.to_thread(opening.wait, 30)
            await driver.see("Opening the repository ... 1 s")
            await driver.press("enter", "enter")
            await driver.press("escape")
            await driver.see("Choose a repository")
            held.set()

    asyncio.run(road())
    # Once to find out that it is encrypted, once with the passphrase: Enter while it opens does nothing.
    assert sum(call.startswith("points") for call in slow.calls) <= 2


def test_another_error_is_shown_with_a_way_back(jobs: EncryptedJobs) -> None:
    class Gone(EncryptedJobs):
        def points(self, repository: str, passphrase: Passphrase | None = None) -> tuple[PointSummary, ...]:
            if passphrase is not None:
                raise UnreachableError("The stick was pulled out.")
            return super().points(repository, passphrase)

    async def road() -> None:
        async with wizard(Gone(jobs.repository, Path(jobs.machine.disks[-1].node))) as driver:
            await to_the_passphrase(driver)
            await driver.type("x")
            await driver.press("enter")
            await driver.see("That did not work", "The stick was pulled out.")
            await driver.press("escape")
            await driver.see("Choose a repository")

    asyncio.run(road())


def test_what_is_typed_does_not_reach_the_clipboard(jobs: EncryptedJobs) -> None:
    async def road() -> None:
        async with wizard(jobs) as driver:
            await to_the_passphrase(driver)
            await driver.type("secret")
            field = driver.app.screen.query_one(Secret)
            field.select_all()
            field.action_copy()
            field.action_cut()
            assert driver.app.clipboard == ""
            assert field.value == "secret"

    asyncio.run(road())


def test_the_passphrase_is_remembered_until_repositories_are_looked_for(encrypted: Path) -> None:
    jobs = SystemJobs(ScriptedRunner(lambda argv: '{"blockdevices": []}'))
    with pytest.raises(PassphraseNeededError):
        jobs.points(str(encrypted))
    with pytest.raises(WrongPassphraseError):
        jobs.points(str(encrypted), Passphrase("wrong"))
    with pytest.raises(PassphraseNeededError):
        jobs.points(str(encrypted))
    assert len(jobs.points(str(encrypted), Passphrase(WORDS))) == 1
    assert len(jobs.points(str(encrypted))) == 1
    jobs.find_repositories()
    with pytest.raises(PassphraseNeededError):
        jobs.points(str(encrypted))
    jobs.close()
