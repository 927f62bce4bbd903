"""Opening LUKS containers: the right key in the end, no passphrase in any argument."""

from pathlib import Path

import pytest

from core.errors import DeviceError, LiferaftError, ProcessError, RefusedError
from core.process import Result
from images.model.stack import Luks
from images.stack.keys import Keys
from restore.stack.luks import free_name, header_opens, open_luks
from tests.runners import ScriptedRunner

UUID = "3b872b48-9f17-4bb4-966a-497ee9569079"
LUKS = Luks(
    id="luks0", uuid=UUID, device="md0", version=2, payload_offset=16 << 20, size=383 << 20, name="no-such-name"
)


def container(right: str, size: int = LUKS.size, uuid: str = UUID) -> ScriptedRunner:
    """A container that the passphrase or key file ``right`` opens."""

    def answer(argv: tuple[str, ...]) -> Result | str:
        if argv[0] == "blockdev":
            return str(size)
        if argv[1] == "luksUUID":
            return uuid + "\n"
        if argv[1] == "open":
            used = argv[argv.index("--key-file") + 1]
            given = runner.inputs.get(len(runner.calls) - 1, "") if used == "-" else used
            return Result(0 if given == right else 2, "", "")
        return ""

    runner = ScriptedRunner(answer)
    return runner


def test_keys_are_tried_in_turn_and_passphrases_go_through_standard_input() -> None:
    runner = container("geheim")
    keys = Keys(files=(Path("/keys/other"),), passphrases=("falsch", "geheim", "unused"))
    assert open_luks(LUKS, "/dev/md0", keys, runner) == "/dev/mapper/no-such-name"
    opens = [call for call in runner.calls if call[1] == "open"]
    assert len(opens) == 3
    assert not any("geheim" in word or "falsch" in word for call in runner.calls for word in call)


def test_a_container_that_no_key_opens_is_refused() -> None:
    with pytest.raises(RefusedError, match="None of the 1 keys") as caught:
        open_luks(LUKS, "/dev/md0", Keys(passphrases=("falsch",)), container("geheim"))
    assert "falsch" not in str(caught.value)


def test_another_container_is_not_opened() -> None:
    runner = container("geheim", uuid="00000000-0000-0000-0000-000000000000")
    with pytest.raises(DeviceError, match="the UUID of the LUKS header"):
        open_luks(LUKS, "/dev/md0", Keys(passphrases=("geheim",)), runner)
    assert all(call[1] != "open" for call in runner.calls)


def test_one_that_is_too_small_is_closed_again() -> None:
    runner = container("geheim", size=LUKS.size - 512)
    with pytest.raises(DeviceError, match=r"has .* bytes, expected"):
        open_luks(LUKS, "/dev/md0", Keys(passphrases=("geheim",)), runner)
    assert runner.calls[-1][:2] == ("cryptsetup", "close")


def test_one_that_does_not_say_its_size_is_closed_again() -> None:
    runner = container("geheim")
    answer = runner._answer

    def failing(argv: tuple[str, ...]) -> Result | str:
        if argv[0] == "blockdev":
            raise ProcessError(argv, 1, "No such device")
        return answer(argv)

    runner._answer = failing
    with pytest.raises(ProcessError, match="blockdev"):
        open_luks(LUKS, "/dev/md0", Keys(passphrases=("geheim",)), runner)
    assert runner.calls[-1][:2] == ("cryptsetup", "close")


def test_testing_a_header_opens_nothing() -> None:
    runner = container("/keys/right")
    assert header_opens(Path("/tmp/header"), Keys(files=(Path("/keys/right"),)), runner)
    assert all("--test-passphrase" in call for call in runner.calls)


def test_a_mapping_that_is_there_is_not_taken(tmp_path: Path) -> None:
    assert free_name(LUKS, tmp_path) == "no-such-name"
    (tmp_path / "no-such-name").touch()
    with pytest.raises(LiferaftError, match="has a mapping"):
        free_name(LUKS, tmp_path)


def test_keys_do_not_show_themselves() -> None:
    assert "geheim" not in repr(Keys(passphrases=("geheim",)))
