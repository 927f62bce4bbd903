"""What a site's medium offers in the wizard, and where it comes from."""

import asyncio
from pathlib import Path

import pytest

from builder.site.document import SiteRepository, read_site, site_hooks
from core.errors import DamagedError
from core.process import Result
from rescue.jobs.repositories import AttachedRepositories, Findings
from tests.runners import ScriptedRunner
from tests.unit.rescue.tui.driving import wizard
from tests.unit.rescue.tui.fakes import FileJobs


def test_a_sites_repository_is_one_enter_away_and_its_password_is_not_shown(
    repository: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = FileJobs(repository, target)
    address = f"file://reader:secret@/{repository.relative_to('/')}"
    offered = (SiteRepository(name="Backup server", address=address),)
    monkeypatch.setattr(jobs, "find_repositories", lambda: Findings(repositories=(), notes=(), offered=offered))

    async def road() -> None:
        async with wizard(jobs) as driver:
            await driver.see("Disks:")
            await driver.press("enter")
            await driver.see("Choose a repository", "Backup server", f"file:///{repository.relative_to('/')}"[:40])
            assert "secret" not in driver.text and "No repository was found" not in driver.text
            await driver.press("enter")
            await driver.see("Choose a recovery point")

    asyncio.run(road())
    assert jobs.calls[0] == f"points {address}"


def test_the_document_of_a_site_is_read_and_a_damaged_one_is_a_note(tmp_path: Path) -> None:
    document = tmp_path / "site.json"
    runner = ScriptedRunner(lambda argv: Result(0, '{"blockdevices": []}', ""))

    def findings() -> Findings:
        return AttachedRepositories(runner, place=tmp_path / "run", site=document).find()

    assert findings() == Findings(repositories=(), notes=())
    document.write_text('{"version": 1, "repositories": [{"address": "http://b/r", "later": 1}]}')
    assert findings().offered == (SiteRepository(address="http://b/r"),)
    for text, said in (("{", "not a valid"), ('{"version": 2}', "has version 2")):
        document.write_text(text)
        found = findings()
        assert found.offered == () and len(found.notes) == 1 and said in found.notes[0]
        with pytest.raises(DamagedError, match=said):
            read_site(document)


def test_hooks_of_a_site_are_those_in_their_folder(tmp_path: Path) -> None:
    assert site_hooks(tmp_path / "none") is None
    assert site_hooks(tmp_path) == tmp_path
