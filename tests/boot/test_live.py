"""The live system as people have it: its tools run, nothing else does, the wizard is watched over, what it says about
itself in a support bundle holds no secret, and disks that fail under it are named. One boot.
"""

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.units import MIB
from tests.boot import failing_disks
from tests.boot.console import Console
from tests.boot.lab import Guest, blank_disk, guest
from tests.boot.restoring import Lab

_F2 = "\x1bOQ"
_PATIENCE = 300.0

#: What issue 5 names, and what restores and captures start: a command that only says its version, or how it is used.
TOOLS = (
    "systemctl --version",
    "udevadm --version",
    "sensors --version",
    "smartctl --version",
    "nvme version",
    "hdparm -V",
    "mount.nfs -V",
    "mount.cifs -V",
    "sshfs --version",
    "ssh -V",
    "curl --version",
    "mdadm --version",
    "lvm version",
    "dmsetup version",
    "thin_check --version",
    "cryptsetup --version",
    "mke2fs -V",
    "e2fsck -V",
    "resize2fs --help",
    "mkfs.xfs -V",
    "xfs_repair -V",
    "mkfs.btrfs --version",
    "btrfs --version",
    "mkfs.fat --help",
    "fsck.fat --help",
    "mkfs.exfat -V",
    "fsck.exfat -V",
    "mkntfs --version",
    "ntfsfix --version",
    "ntfsresize --help",
    "ntfs-3g --version",
    "mkswap --version",
    "partclone.ext4 -v",
    "partclone.ntfs -v",
    "partclone.btrfs -v",
    "partclone.dd -v",
    "testdisk /version",
    "photorec /version",
    "ddrescue --version",
    "sfdisk --version",
    "sgdisk --version",
    "parted --version",
    "wipefs --version",
    "efibootmgr --version",
    "mokutil --version",
    "nano --version",
    "tmux -V",
    "less --version",
    "ip -V",
    "ethtool --version",
    "wpa_supplicant -v",
    "lspci --version",
    "lsusb --version",
    "setfont --version",
    "sshd -V",
    "liferaft --version",
)

#: Every service that may run when nobody has asked for anything; debug-shell is the lab's.
RUNNING = {
    "dbus",
    "debug-shell",
    "liferaft-shell@tty2",
    "liferaft-shell@tty3",
    "liferaft-tui@tty1",
    "liferaft-tui@ttyS0",
    "systemd-journald",
    "systemd-logind",
    "systemd-networkd",
    "systemd-resolved",
    "systemd-timesyncd",
    "systemd-udevd",
}

#: Filesystems whose drivers replay a journal or touch a superblock when they mount read-only (DESIGN §3.1).
WRITERS = ("ext4", "btrfs", "xfs", "ntfs3", "jfs", "reiserfs", "f2fs", "nilfs2", "hfsplus", "bcachefs", "ocfs2")


@pytest.fixture(scope="module")
def iso(lab: Lab) -> Path:
    return lab.medium("live", "")


@pytest.fixture(scope="module")
def live(lab: Lab, iso: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, Path]]:
    folder = tmp_path_factory.mktemp("live")
    shared = folder / "shared"
    shared.mkdir()
    paths = [blank_disk(folder / f"{number}.raw", size * MIB) for number, size in enumerate(failing_disks.SIZES)]
    with guest("live", iso, paths, shared, lab.runner, whole=True) as machine:
        yield machine, shared
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def captured(lab: Lab, live: tuple[Guest, Path]) -> failing_disks.Captured:
    return failing_disks.capture(live[1], lab.runner)


def _console(live: tuple[Guest, Path]) -> Console:
    console = live[0].console
    assert console is not None
    return console


def _see(console: Console, *words: str) -> None:
    console.wait_screen(lambda rows: all(any(word in row for row in rows) for word in words), repr(words), _PATIENCE)


def test_every_tool_starts(live: tuple[Guest, Path]) -> None:
    script = "\n".join(f'echo "=== {tool}"; timeout 30 {tool} </dev/null; echo "--- $?"' for tool in TOOLS)
    said = live[0].run(script).output
    found = re.findall(r"^=== ([^\n]+)\n(.*?)^--- (\d+)$", said, re.MULTILINE | re.DOTALL)
    answers = {tool: text for tool, text, _ in found}
    codes = {tool: code for tool, _, code in found}
    assert set(answers) == set(TOOLS)
    # 1 and 2: programs that show how they are used call that a failure. Not started at all, or killed: 124 and more.
    assert {tool: answers[tool] for tool in TOOLS if int(codes[tool]) > 16} == {}
    assert {
        tool: answers[tool] for tool in TOOLS if "shared librar" in answers[tool] or not answers[tool].strip()
    } == {}


def test_nothing_runs_or_listens_that_nobody_asked_for(live: tuple[Guest, Path]) -> None:
    machine, _ = live
    _see(_console(live), "Rescue system", "Power off")
    units = machine.check("systemctl list-units --type=service --state=running --plain --no-legend")
    assert {line.split()[0].removesuffix(".service") for line in units.splitlines()} == RUNNING
    assert machine.check("systemctl --failed --plain --no-legend").strip() == ""
    # The stub resolver on the loopback, and the client's own port of DHCP.
    listening = machine.check("ss -Hltun | awk '{print $5}'").split()
    assert [place for place in listening if not place.startswith("127.0.0.5") and not place.endswith(":68")] == []
    assert machine.check("ss -Hl --vsock; ls -d /run/ssh-unix-local 2>/dev/null || true").strip() == ""
    assert machine.run("ls /dev/mapper 2>/dev/null | grep -v control; ls -d /dev/md[0-9]* 2>/dev/null").output == ""


def test_ssh_lets_in_a_key_and_nothing_else_and_only_where_there_are_keys(live: tuple[Guest, Path]) -> None:
    machine, _ = live
    assert machine.check("ls /etc/ssh /etc/nvme").count("host") == 0
    machine.check("systemctl start ssh; if systemctl -q is-active ssh; then exit 1; fi")
    machine.check(
        "mkdir -p -m 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/k\n"
        "cp /root/k.pub /root/.ssh/authorized_keys"
    )
    machine.check("systemctl start ssh")
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes"
    assert "it is me" in machine.check(f"ssh {options} -i /root/k root@127.0.0.1 echo it is me")
    refused = machine.run(f"ssh {options} -v -o PubkeyAuthentication=no root@127.0.0.1 true")
    assert refused.code == 255
    assert "can continue: publickey\n" in refused.output.replace("\r", "")
    machine.check("systemctl stop ssh; rm -r /root/.ssh /root/k /root/k.pub")


#: A server that says it is 2000 seconds later than it is (RFC 5905: seconds since 1900, version 4, mode 4, stratum 1).
_NTP_SERVER = """
import socket, struct, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 123))
offset = time.time() - time.monotonic() + 2000
stamp = lambda: struct.pack("!II", int(time.monotonic() + offset) + 2208988800, 0)
while True:
    q, peer = s.recvfrom(100)
    s.sendto(struct.pack("!BBbbII4s", 0x24, 1, 6, -20, 0, 0, b"GPS\\0") + stamp() + q[40:48] + stamp() + stamp(), peer)
"""
#: adjtimex(2): status is the fifth field of struct timex, STA_UNSYNC is 0x40.
_UNSYNC = "import ctypes; b = ctypes.create_string_buffer(512); ctypes.CDLL(None).adjtimex(b); print(b.raw[40] & 0x40)"


def test_the_clock_follows_the_network_and_the_machines_own_is_left_alone(live: tuple[Guest, Path]) -> None:
    machine, shared = live
    (shared / "ntp.py").write_text(_NTP_SERVER)
    before = int(machine.check("date +%s"))
    machine.check(
        "conf=/run/systemd/timesyncd.conf.d; mkdir -p $conf; printf '[Time]\\nNTP=127.0.0.1\\n' >$conf/test.conf\n"
        "systemd-run -q python3 /run/lab/ntp.py; sleep 2; systemctl restart systemd-timesyncd\n"
        "for n in $(seq 60); do [ -e /run/systemd/timesync/synchronized ] && break; sleep 1; done\n"
        "[ -e /run/systemd/timesync/synchronized ]"
    )
    after = int(machine.check("date +%s"))
    assert 1900 < after - before < 2000 + 300
    # Synchronised, and the kernel is told that it is not, so that it does not write the hardware clock.
    assert machine.check(f'python3 -c "{_UNSYNC}"').strip() == "64"
    assert machine.check("tail -n1 /etc/adjtime").strip() == "UTC"
    hardware = int(machine.check("cat /sys/class/rtc/rtc0/since_epoch"))
    assert abs(hardware - before) < 300


def test_a_wizard_that_is_killed_comes_back(live: tuple[Guest, Path]) -> None:
    machine, _ = live
    console = _console(live)
    _see(console, "Rescue system", "Power off")
    pid = machine.check("systemctl show -P MainPID liferaft-tui@ttyS0").strip()
    machine.check(f"kill -KILL {pid}")
    console.wipe()
    machine.check(
        "for n in $(seq 90); do p=$(systemctl show -P MainPID liferaft-tui@ttyS0)\n"
        f"[ $p != 0 ] && [ $p != {pid} ] && exit 0; sleep 1; done; exit 1"
    )
    # A process is not yet a wizard: the terminal is set up first, and forgets the keys that came before.
    _see(console, "Rescue system", "Power off")
    console.send("\x1b[B")
    _see(console, "Rescue system", "> Show this machine")


def test_a_key_opens_a_shell_and_exit_comes_back(live: tuple[Guest, Path]) -> None:
    console = _console(live)
    _see(console, "Rescue system", "Power off")
    console.send(_F2)
    _see(console, "A root shell. To come back")
    console.send("echo $((6 * 7))-on-$(tty)\r")
    _see(console, "42-on-/dev/ttyS0")
    console.send("exit\r")
    _see(console, "Rescue system", "Power off")


_SECRETS = ("xK-in-the-journal", "xK-on-the-medium", "xK-in-a-record", "AAAAC3NzaC1lZDI1NTE5AAAAIxK")


def test_the_support_bundle_has_what_helps_and_no_planted_secret(live: tuple[Guest, Path]) -> None:
    machine, shared = live
    url, password, record, key = _SECRETS
    machine.check(
        f"logger 'fetching https://me:{url}@10.0.2.2/repo'; logger 'ssh-ed25519 {key} me@office'\n"
        f"logger 'cifs: password={password}'; echo '{{\"url\": \"https://u:{record}@h/\"}}' >/var/log/liferaft/x.json\n"
        "echo LIVE-TEST >/dev/kmsg; journalctl --sync"
    )
    machine.check("liferaft support-bundle -o /run/lab/bundle.zip 2>&1")
    with zipfile.ZipFile(shared / "bundle.zip") as bundle:
        parts = {name: bundle.read(name).decode(errors="replace") for name in bundle.namelist()}
    assert [(secret, name) for secret in _SECRETS for name, text in parts.items() if secret in text] == []
    assert "fetching https://***@10.0.2.2/repo" in parts["journal.txt"]
    assert "core.process: run: lsblk" in parts["journal.txt"], "what the wizard does is in the journal"
    assert "LIVE-TEST" in parts["dmesg.txt"]
    contents = json.loads(parts["contents.json"])
    lacking = {part["path"] for part in contents["parts"] if part.get("note") and not part.get("size")}
    # No job on this medium; no sensors, no USB and no md in this machine.
    assert lacking <= {
        "liferaft/job.json",
        "hardware/sensors.txt",
        "hardware/usb.txt",
        "hardware/boot-entries.txt",
        "disks/mdstat.txt",
        "disks/lvm.txt",
    }
    assert json.loads(parts["liferaft/medium.json"])["kernel"] == machine.check("uname -r").strip()
    assert json.loads(parts["machine.json"])["firmware"] == "bios"


def test_the_journal_stays_in_memory_and_is_bounded(live: tuple[Guest, Path]) -> None:
    machine, _ = live
    assert machine.run("ls /var/log/journal").code != 0
    assert "max 32M" in machine.check("journalctl -b -u systemd-journald --no-pager")


#: What a write that fails is told with: the step and its partition, the disk, and the sectors.
_FAILED = (
    r"Error: disk0-part1: write [^\n]+: /dev/loop7: writing \d+ bytes at (\d+) \(LBA (\d+) to (\d+)\) failed: "
    r"Input/output error\."
)


def test_a_sector_that_cannot_be_written_is_named_and_when_it_can_the_rest_follows(
    live: tuple[Guest, Path], captured: failing_disks.Captured
) -> None:
    machine, _ = live
    machine.check(failing_disks.broken(captured))
    said = machine.run(failing_disks.restore("/dev/loop7"))
    assert said.code == 1, said.output
    found = re.search(_FAILED, said.output)
    assert found is not None, said.output
    offset, first, last = map(int, found.groups())
    assert first * 512 == offset
    assert first <= captured.bad <= last
    assert last - first < 4 * MIB // 512
    assert machine.check(failing_disks.behind("/dev/loop7")) == "untouched\n"

    machine.check(failing_disks.MEND)
    before = int(machine.check("awk '{ print $7 }' /sys/block/loop7/stat"))
    report = json.loads(machine.check(failing_disks.restore("/dev/loop7", "--json", "2>/dev/null")))
    after = int(machine.check("awk '{ print $7 }' /sys/block/loop7/stat"))
    assert report["kept"] > 16 * MIB, "what was written before the fault is kept"
    # As the kernel counts: what lacks, and what is wiped for the table.
    assert (after - before) * 512 < report["written"] + 8 * MIB < 40 * MIB
    assert machine.check(failing_disks.content("/dev/loop7")).split()[0] == captured.digest
    assert machine.check(failing_disks.behind("/dev/loop7")) == "untouched\n"


def test_a_disk_that_is_taken_out_half_way_and_put_in_again(
    live: tuple[Guest, Path], captured: failing_disks.Captured
) -> None:
    machine, _ = live
    machine.check(failing_disks.UNDO)
    said = machine.run(failing_disks.VANISH).output
    assert "code 1\n" in said, said
    assert re.search(rf"Error: disk0-part1: write [^\n]+ \(serial {failing_disks.SERIAL}\): /dev/vda is gone:", said), (
        said
    )
    assert "no such disk\n" in said
    node = said.split()[-1]
    assert machine.check(failing_disks.behind(node)) == "untouched\n"
    # By the name that stays.
    report = json.loads(machine.check(failing_disks.restore(failing_disks.SERIAL, "--json", "2>/dev/null")))
    assert report["kept"] > 8 * MIB, "it goes on where it stopped"
    assert report["verified"]
    assert machine.check(failing_disks.content(node)).split()[0] == captured.digest
    assert machine.check(failing_disks.behind(node)) == "untouched\n"


def test_the_members_of_a_stack_are_kept_whole_when_that_is_asked(live: tuple[Guest, Path]) -> None:
    """``--part-only``, through: captured without being opened, restored, and opened by their own tools."""
    machine, _ = live
    was = machine.check(failing_disks.STACK).split()[-2]
    machine.check(failing_disks.CLOSE)
    said = machine.run("liferaft capture /dev/vdb --repo /run/lab/parts --name parts --part-only 2>&1")
    assert said.code == 0, said.output
    assert said.output.count("(48.00 MiB): it is kept as it lies, as --part-only asks") == 2, said.output
    assert machine.check("ls /dev/mapper; ls -d /dev/md[0-9]* 2>/dev/null || true").split() == ["control"]
    machine.check(
        "liferaft restore parts --repo /run/lab/parts --target /dev/vdc --boot no --yes --progress none 2>&1\n"
        "blkdiscard -f -q /dev/vdb; blockdev --rereadpt /dev/vdb; udevadm settle"
    )
    try:
        assert machine.check(failing_disks.OPEN).split()[-2] == was
    finally:
        machine.run(failing_disks.CLOSE)


def test_the_initrd_has_no_driver_that_writes_when_it_mounts(iso: Path, tmp_path: Path, lab: Lab) -> None:
    """live-boot looks for its medium by mounting what it finds, so what is not there cannot replay a journal."""
    initrd = tmp_path / "initrd.img"
    lab.runner.run(["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", "/live/initrd.img", str(initrd)])
    with initrd.open("rb") as stream:
        listed = subprocess.run(["cpio", "-it", "--quiet"], stdin=stream, capture_output=True, text=True, check=True)
    modules = {Path(name).name.split(".")[0] for name in listed.stdout.splitlines() if ".ko" in name}
    assert {"isofs", "squashfs", "overlay", "vfat", "udf"} <= modules, "this is the archive with the drivers"
    assert modules & {*WRITERS, "jbd2", "dm-mod", "md-mod", "raid1", "dm-thin-pool"} == set()
