"""Whether this machine runs another processor's programs: found out with the smallest one, and told with a remedy."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from builder.architecture import Architecture, traits_of
from builder.cache import open_cache
from builder.foreign import bootstrap_words, is_foreign, refuse_foreign, smallest_program
from core.errors import ProcessError, RefusedError
from core.process import Result
from tests.runners import ScriptedRunner

_FOREIGN = next(one for one in Architecture if traits_of(one).machine != os.uname().machine)


@pytest.mark.parametrize("architecture", Architecture)
def test_the_smallest_program_is_what_its_kernel_starts(architecture: Architecture, tmp_path: Path) -> None:
    """Judged by the kernel itself, or by QEMU's emulation of another."""
    program = tmp_path / "exit"
    program.write_bytes(smallest_program(architecture))
    program.chmod(0o755)
    machine = traits_of(architecture).machine
    emulator: list[str] = []
    if is_foreign(architecture):
        found = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
        if found is None:
            pytest.skip(f"qemu-{machine} (qemu-user-static) is not installed")
        emulator = [found]
    assert subprocess.run([*emulator, str(program)], timeout=60).returncode == 0
    # Cut short it is none: the answer above was the program's own.
    program.write_bytes(smallest_program(architecture)[:-4])
    assert subprocess.run([*emulator, str(program)], timeout=60, stderr=subprocess.DEVNULL).returncode != 0


def test_a_machine_that_cannot_run_them_is_refused_with_the_remedy(tmp_path: Path) -> None:
    def fail(argv: tuple[str, ...]) -> Result:
        assert argv[0] == "chroot" and (Path(argv[1]) / argv[2].lstrip("/")).stat().st_mode & 0o111
        raise ProcessError(argv, 126, "chroot: failed to run command '/exit': Exec format error")

    with open_cache(tmp_path) as cache:
        with pytest.raises(RefusedError, match=f"cannot run programs of {_FOREIGN}") as caught:
            refuse_foreign(_FOREIGN, cache, ScriptedRunner(fail))
        assert "qemu-user-static" in caught.value.hint and "systemd-binfmt" in caught.value.hint
        assert not list(tmp_path.glob("*.partial"))
        fine = ScriptedRunner(lambda argv: "")
        refuse_foreign(_FOREIGN, cache, fine)
        assert len(fine.calls) == 1


def test_its_own_processor_is_never_asked(tmp_path: Path) -> None:
    own = [one for one in Architecture if one is not _FOREIGN]
    runner = ScriptedRunner(lambda argv: pytest.fail(f"{argv} was run"))
    with open_cache(tmp_path) as cache:
        for architecture in own:
            refuse_foreign(architecture, cache, runner)
            assert bootstrap_words(architecture) == ()
    assert f"--architectures={_FOREIGN}" in bootstrap_words(_FOREIGN)
