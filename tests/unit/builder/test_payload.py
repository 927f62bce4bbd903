"""The topmost layer: the live system's files, its links, and who starts."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from builder.architecture import Architecture
from builder.payload import install_live, settle_modes, write_settings
from core.errors import DamagedError

LIVE = Path(__file__).resolve().parents[3] / "rescue" / "live"


def test_the_live_system_starts_the_wizard_on_both_consoles_and_silences_what_writes(tmp_path: Path) -> None:
    install_live(LIVE, tmp_path)
    wants = tmp_path / "etc/systemd/system/getty.target.wants"
    assert {path.name for path in wants.iterdir()} >= {"liferaft-tui@tty1.service", "liferaft-tui@ttyS0.service"}
    for link in wants.iterdir():
        assert (tmp_path / str(link.readlink()).lstrip("/")).is_file()
    for rule in ("64-md-raid-assembly.rules", "69-lvm.rules", "85-hdparm.rules"):
        assert str((tmp_path / "etc/udev/rules.d" / rule).readlink()) == "/dev/null"
    for unit in ("swap.target", "fstrim.timer", "mdmonitor.service", "e2scrub_reap.service", "serial-getty@.service"):
        assert str((tmp_path / "etc/systemd/system" / unit).readlink()) == "/dev/null"


def test_the_wizard_is_on_the_serial_port_of_arm64_and_only_there(tmp_path: Path) -> None:
    found = {}
    for architecture in Architecture:
        install_live(LIVE, tmp_path / architecture, architecture)
        wants = tmp_path / architecture / "etc/systemd/system/getty.target.wants"
        found[architecture] = {path.name for path in wants.iterdir()}
    assert found[Architecture.ARM64] - found[Architecture.AMD64] == {"liferaft-tui@ttyAMA0.service"}
    assert found[Architecture.AMD64] <= found[Architecture.ARM64]


def test_ssh_is_off_and_asks_for_keys_when_it_is_on(tmp_path: Path) -> None:
    install_live(LIVE, tmp_path)
    system = tmp_path / "etc/systemd"
    assert not [path for path in system.rglob("*.wants/*") if "ssh" in path.name]
    assert str((system / "system-generators/systemd-ssh-generator").readlink()) == "/dev/null"
    settings = (tmp_path / "etc/ssh/sshd_config.d/10-liferaft.conf").read_text().splitlines()
    assert "AuthenticationMethods publickey" in settings
    assert not list(tmp_path.rglob("ssh_host_*"))


def test_only_the_network_clock_is_told_that_the_hardware_clock_is_not_its_own(tmp_path: Path) -> None:
    """adjtime(5): the third line says UTC or LOCAL."""
    install_live(LIVE, tmp_path)
    assert (tmp_path / "etc/adjtime").read_text().splitlines()[2] == "UTC"
    dropin = tmp_path / "etc/systemd/system/systemd-timesyncd.service.d/liferaft.conf"
    (bind,) = [line for line in dropin.read_text().splitlines() if line.startswith("BindReadOnlyPaths=")]
    source, _, place = bind.removeprefix("BindReadOnlyPaths=").partition(":")
    assert place == "/etc/adjtime"
    assert (tmp_path / source.lstrip("/")).read_text().splitlines()[2] == "LOCAL"


def test_every_program_of_the_units_is_there_and_can_be_run(tmp_path: Path) -> None:
    install_live(LIVE, tmp_path)
    settle_modes(tmp_path)
    programs = {path.name: path for path in (tmp_path / "usr/libexec/liferaft").iterdir()}
    for unit in (tmp_path / "usr/lib/systemd/system").iterdir():
        for line in unit.read_text().splitlines():
            if line.startswith("Exec") and "/usr/libexec/liferaft/" in line:
                name = line.partition("/usr/libexec/liferaft/")[2].split()[0]
                assert programs[name].stat().st_mode & 0o777 == 0o755


def test_the_system_shows_its_units_again_after_a_job_that_is_ended(tmp_path: Path) -> None:
    """systemd.kill(5): SIGTERM goes to every process of the unit, the shell among them."""
    log = tmp_path / "log"
    (tmp_path / "busctl").write_text(f'#!/bin/sh\nfor word; do :; done\necho "status $word" >>{log}\n')
    (tmp_path / "busctl").chmod(0o755)
    program = f"trap 'sleep 0.2; echo ended >>{log}; exit 3' TERM; echo started; while :; do sleep 0.05; done"
    script = LIVE / "root/usr/libexec/liferaft/own-consoles"
    with subprocess.Popen(
        ["/bin/sh", str(script), "/bin/sh", "-c", program],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as started:
        assert started.stdout is not None and started.stdout.readline() == b"started\n"
        os.killpg(started.pid, signal.SIGTERM)
        code = started.wait(10)
    assert log.read_text().splitlines() == ["status no", "ended", "status "]
    # systemd takes this end for the one it asked for (systemd.service(5), SuccessExitStatus=).
    assert code == -signal.SIGTERM


def test_a_bad_line_has_an_address(tmp_path: Path) -> None:
    (tmp_path / "live" / "root").mkdir(parents=True)
    (tmp_path / "live" / "links.txt").write_text("# comment\n\n/etc/a = /dev/null\n")
    with pytest.raises(DamagedError, match=r"links\.txt, line 3"):
        install_live(tmp_path / "live", tmp_path / "tree")


def test_settings_name_the_host_and_leave_the_machine_id_empty(tmp_path: Path) -> None:
    write_settings(tmp_path, "ark")
    assert (tmp_path / "etc/hostname").read_text() == "ark\n"
    assert (tmp_path / "etc/machine-id").read_bytes() == b""


def test_modes_do_not_follow_the_builders_umask(tmp_path: Path) -> None:
    folder = tmp_path / "usr"
    folder.mkdir(mode=0o700)
    (folder / "file").write_text("")
    (folder / "file").chmod(0o600)
    settle_modes(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "file").stat().st_mode & 0o777 == 0o644
