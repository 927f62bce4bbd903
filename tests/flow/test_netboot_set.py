"""The netboot set as a folder: what is in it, what stays, what is refused; and the script that fetches it, run here.

GRUB's own checker judges its scripts.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files as package_files
from pathlib import Path

import msgspec
import pytest

from builder.archive.loaders import Loaders
from builder.boot import grub_menu, loopback_menu
from builder.initrd import read_initrd
from builder.netboot import ipxe_script, network_initrd, write_netboot
from core.errors import UsageError
from core.events import Event
from core.process import SystemRunner, find_tool
from tests.samples import sample_medium

DATA = Path(str(package_files("builder"))) / "data"
DOCUMENT = sample_medium(
    medium_id="0123",
    kernel_parameters=("last=word",),
    layers=("base", "site"),
    initrds=("live/initrd.img", "live/drivers.img"),
)
CONTENT = {
    "live/vmlinuz": b"kernel",
    "live/initrd.img": b"initrd",
    "live/base.squashfs": b"base" * 1000,
    "live/site.squashfs": b"site",
    "live/filesystem.module": b"base.squashfs site.squashfs\n",
    "liferaft/medium.json": b"{}",
    "liferaft/job.json": b"{}",
    "liferaft/drivers/net.inf": b"carried",
    "boot/grub/grub.cfg": grub_menu("0123", ()).encode(),
    ".disk/info": b"liferaft rescue medium\n",
}
FETCHED = {
    "live/base.squashfs",
    "live/site.squashfs",
    "live/filesystem.module",
    "liferaft/medium.json",
    "liferaft/job.json",
    ".disk/info",
}


@pytest.fixture
def medium(tmp_path: Path) -> dict[str, Path]:
    """The files of a small medium."""
    found = {path: tmp_path / "medium" / path for path in CONTENT}
    for path, content in CONTENT.items():
        found[path].parent.mkdir(parents=True, exist_ok=True)
        found[path].write_bytes(content)
    return found


@pytest.fixture
def loaders(tmp_path: Path) -> Loaders:
    """Stand-ins: Debian's are fetched, and what they do is the boot ring's."""
    path = tmp_path / "loader"
    path.write_bytes(b"signed")
    return Loaders(dict.fromkeys(("bootx64.efi", "grubx64.efi", "mmx64.efi"), path), {})


def _write(medium: dict[str, Path], loaders: Loaders, out: Path) -> int:
    if find_tool("grub-mkimage") is None or not Path("/usr/lib/grub/i386-pc").is_dir():
        pytest.skip("grub-mkimage or GRUB's BIOS files are not installed (grub-common, grub-pc-bin)")
    said: list[Event] = []
    return write_netboot(medium, DOCUMENT, loaders, out, SystemRunner(), said.append)


def _listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_set_has_the_medium_and_what_each_firmware_asks_for(
    medium: dict[str, Path], loaders: Loaders, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    size = _write(medium, loaders, out)
    found = _listing(out)
    assert {path: found[path] for path in CONTENT} == CONTENT
    assert {"bootx64.efi", "grubx64.efi", "mmx64.efi", "grub.pxe", "boot.ipxe", "grub/grub.cfg", "README.txt"} <= set(
        found
    )
    assert size == sum(map(len, found.values()))
    # A TFTP server runs as nobody.
    assert all(path.stat().st_mode & 0o004 for path in out.rglob("*"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_set_for_arm64_has_nothing_that_only_pcs_ask_for(medium: dict[str, Path], tmp_path: Path) -> None:
    """IANA, "Processor Architecture Types": 11 is ARM 64-bit UEFI, 19 the same over HTTP; 0, 7, 9 and 16 are PCs."""
    program = tmp_path / "loader"
    program.write_bytes(b"signed")
    loaders = Loaders({"bootaa64.efi": program, "grubaa64.efi": program, "mmaa64.efi": program}, {})
    document = msgspec.structs.replace(DOCUMENT, architecture="arm64")
    out = tmp_path / "set"
    write_netboot(medium, document, loaders, out, SystemRunner(), lambda event: None)
    found = _listing(out)
    assert {path: found[path] for path in CONTENT} == CONTENT
    assert "grub/arm64-efi/command.lst" in found and "grub.pxe" not in found
    assert not [path for path in found if "x64" in path or "x86" in path]
    readme = found["README.txt"].decode()
    assert set(re.findall(r"client-arch,(\d+)", readme)) == {"11", "19"} and "arch = 00:13" in readme
    assert not [word for word in ("BIOS", "grub.pxe", "x64", "@") if word in readme]
    assert "console=ttyAMA0,115200n8" in found["boot.ipxe"].decode()


def test_what_dhcp_is_told_for_pcs_follows_their_numbers(
    medium: dict[str, Path], loaders: Loaders, tmp_path: Path
) -> None:
    """IANA, "Processor Architecture Types": 0 is BIOS, 7 and 9 x64 UEFI, 16 the same over HTTP."""
    _write(medium, loaders, tmp_path / "set")
    readme = (tmp_path / "set" / "README.txt").read_text()
    assert set(re.findall(r"client-arch,(\d+)", readme)) == {"0", "7", "9", "16"}
    missing = [word for word in ("arch = 00:10", "arch = 00:00", "bootx64.efi", "grub.pxe") if word not in readme]
    assert not missing and "BIOS|" not in readme and "@" not in readme


def test_the_sites_own_settings_stay_and_old_layers_do_not(
    medium: dict[str, Path], loaders: Loaders, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    _write(medium, loaders, out)
    (out / "site" / "site.cfg").write_text("set job=http://192.0.2.1/job\n")
    (out / "site" / "own.json").write_text("{}")
    (out / "live" / "old.squashfs").write_bytes(b"old")
    _write(medium, loaders, out)
    assert (out / "site" / "site.cfg").read_text() == "set job=http://192.0.2.1/job\n"
    assert (out / "site" / "own.json").exists()
    assert not (out / "live" / "old.squashfs").exists()


def _kill_between_the_renames(medium: dict[str, Path], loaders: Loaders, out: Path) -> None:
    """The old set lies beside its place, and the new one is not whole to anybody."""
    _write(medium, loaders, out)
    (out / "site/site.cfg").write_text("set timeout=1\n")
    old, partial = (out.with_name(f".{out.name}.{end}") for end in ("old", "partial"))
    out.rename(old)
    shutil.copytree(old, partial)


@pytest.mark.parametrize("made_again", [False, True])
def test_the_sites_own_settings_outlast_a_build_that_was_killed_while_it_changed_the_sets(
    medium: dict[str, Path], loaders: Loaders, tmp_path: Path, made_again: bool
) -> None:
    out = tmp_path / "set"
    _kill_between_the_renames(medium, loaders, out)
    if made_again:
        # As tmpfiles.d does at every start.
        out.mkdir()
    _write(medium, loaders, out)
    assert (out / "site/site.cfg").read_text() == "set timeout=1\n"
    assert sorted(path.name for path in tmp_path.iterdir() if "set" in path.name) == ["set"]


def test_settings_that_only_an_older_set_has_are_not_deleted_with_it(
    medium: dict[str, Path], loaders: Loaders, tmp_path: Path
) -> None:
    out, old = tmp_path / "set", tmp_path / ".set.old"
    _kill_between_the_renames(medium, loaders, out)
    (old / "site/own.json").write_text("{}")
    # Somebody took a set from elsewhere.
    _write(medium, loaders, tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(out)
    before = _listing(old), _listing(out)
    with pytest.raises(UsageError, match=r"lacks or has otherwise: site/own\.json, site/site\.cfg") as caught:
        _write(medium, loaders, out)
    assert str(old) in caught.value.hint
    assert (_listing(old), _listing(out)) == before
    shutil.copytree(old / "site", out / "site", dirs_exist_ok=True)
    _write(medium, loaders, out)
    assert (out / "site/site.cfg").read_text() == "set timeout=1\n"
    assert not old.exists()


def test_a_set_that_a_build_was_killed_with_while_it_removed_it_does_not_come_back(
    medium: dict[str, Path], loaders: Loaders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one is in its place then, and its settings are the true ones."""
    out = tmp_path / "set"
    _write(medium, loaders, out)
    with monkeypatch.context() as patch:
        # What ends a program at once removes nothing.
        patch.setattr("builder.netboot.shutil.rmtree", lambda path, **options: None)
        _write(medium, loaders, out)
    assert [path.name for path in tmp_path.glob(".set.*")] == [".set.partial"]
    (out / "site/site.cfg").write_text("set timeout=2\n")
    _write(medium, loaders, out)
    assert (out / "site/site.cfg").read_text() == "set timeout=2\n"
    assert not list(tmp_path.glob(".set.*"))


def test_a_folder_with_other_things_is_left_alone(medium: dict[str, Path], loaders: Loaders, tmp_path: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "child.jpg").write_bytes(b"dear")
    with pytest.raises(UsageError, match="has other things in it than a netboot set"):
        _write(medium, loaders, out)
    assert _listing(out) == {"child.jpg": b"dear"}
    with pytest.raises(UsageError, match="does not exist"):
        _write(medium, loaders, tmp_path / "no" / "set")
    with pytest.raises(UsageError, match="is not a folder"):
        _write(medium, loaders, out / "child.jpg")


def test_grub_understands_the_scripts_and_the_settings_that_they_show(tmp_path: Path) -> None:
    if shutil.which("grub-script-check") is None:
        pytest.skip("grub-script-check (grub-common) is not installed")
    shown = (DATA / "netboot" / "site.cfg").read_text()
    scripts = {
        "grub.cfg": (DATA / "netboot" / "grub.cfg").read_text(),
        "site.cfg": re.sub(r"^#(?! )|^#(?=  set )", "", shown, flags=re.MULTILINE),
        "loopback.cfg": loopback_menu(),
    }
    assert scripts["site.cfg"].count("\nset ") + scripts["site.cfg"].count("\n  set ") == 5
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        subprocess.run(["grub-script-check", str(tmp_path / name)], check=True)


def test_ipxe_loads_every_initrd_and_the_recipe_has_the_last_word() -> None:
    lines = ipxe_script(DOCUMENT).splitlines()
    assert lines[0] == "#!ipxe"
    kernel = next(line for line in lines if line.startswith("kernel "))
    assert "initrd=initrd.img initrd=drivers.img initrd=netboot.img" in kernel
    assert kernel.endswith(" last=word || goto failed")
    loaded = [line.split()[3] for line in lines if line.startswith("initrd ")]
    assert loaded == ["live/initrd.img", "live/drivers.img", "live/netboot.img"]


class Initrd:
    """The fetching script as live-boot runs it, with a wget and a mount that work here without a network or root."""

    def __init__(self, medium: dict[str, Path], server: Path, folder: Path) -> None:
        self.parts = {entry.name: entry for entry in read_initrd(network_initrd(medium), name="netboot.img")}
        self.server, self.folder = server, folder
        self.mountpoint = folder / "mountpoint"
        self.mountpoint.mkdir(parents=True)
        (folder / "consoles").write_text("tty0\n")
        script = self.parts["usr/lib/live/boot/9999-liferaft-fetch"].content.decode()
        (folder / "list").write_bytes(self.parts["conf/liferaft-fetch"].content)
        script = script.replace("/conf/liferaft-fetch", str(folder / "list"))
        script = script.replace("/sys/class/tty/console/active", str(folder / "consoles"))
        script = script.replace("/dev/${console}", str(folder / "screen")).replace("' > ", "' >> ")
        script = script.replace('" > "', '" >> "')
        (folder / "script").write_text(script)
        tools = folder / "tools"
        tools.mkdir()
        # As a web server does: what is encoded in an address is decoded.
        decode = "import sys, urllib.parse as u; print(u.unquote(u.urlsplit(sys.argv[1]).path.removeprefix('/')))"
        wget = f'#!/bin/sh\nfor url; do :; done\necho "$url" >> "{folder}/asked"\n'
        wget += f'cp "{server}/$({sys.executable} -S -c "{decode}" "$url")" "$5"\n'
        for name, text in {
            "wget": wget,
            "mount": "#!/bin/sh\n",
            "umount": "#!/bin/sh\n",
            "sleep": "#!/bin/sh\n",
        }.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)

    def fetch(self, address: str) -> int:
        """Call do_httpmount as live-boot does; its exit code."""
        text = f'mountpoint="{self.mountpoint}"; FETCH="{address}"; . "{self.folder}/script"; do_httpmount'
        path = f"{self.folder / 'tools'}:{os.environ['PATH']}"
        done = subprocess.run(["sh", "-c", text], env={"PATH": path}, capture_output=True, text=True, timeout=60)
        return done.returncode

    @property
    def screen(self) -> str:
        """What the consoles show."""
        path = self.folder / "screen"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def initrd(medium: dict[str, Path], tmp_path: Path) -> Initrd:
    return Initrd(medium, tmp_path / "medium", tmp_path / "initrd")


def test_the_list_has_the_live_system_and_not_what_grub_loads(initrd: Initrd) -> None:
    lines = initrd.parts["conf/liferaft-fetch"].content.decode().splitlines()
    assert {line.split()[1]: int(line.split()[0]) for line in lines} == {path: len(CONTENT[path]) for path in FETCHED}


def test_everything_on_the_list_is_fetched(initrd: Initrd) -> None:
    assert initrd.fetch("http://server/") == 0
    assert _listing(initrd.mountpoint) == {path: CONTENT[path] for path in FETCHED}


def test_addresses_are_encoded_as_servers_want_them(medium: dict[str, Path], tmp_path: Path) -> None:
    """RFC 3986; what the site encoded itself stays as it is."""
    name = "liferaft/50% ü #1?.key"
    medium[name] = tmp_path / "medium" / name
    medium[name].write_bytes(b"key")
    for folder in ("a b", "Rettung ü!"):
        (tmp_path / "medium" / folder).symlink_to(".")
    initrd = Initrd(medium, tmp_path / "medium", tmp_path / "initrd")
    assert initrd.fetch("http://server/Rettung ü!/a%20b/") == 0
    assert (initrd.mountpoint / name).read_bytes() == b"key"
    asked = (tmp_path / "initrd/asked").read_text()
    assert "http://server/Rettung%20%c3%bc!/a%20b/liferaft/50%25%20%c3%bc%20%231%3f.key\n" in asked
    assert asked.isascii() and " " not in asked


def test_a_file_that_does_not_come_is_named(initrd: Initrd) -> None:
    (initrd.server / "live" / "site.squashfs").unlink()
    assert initrd.fetch("http://server") == 1
    assert "http://server/live/site.squashfs cannot be fetched." in initrd.screen


def test_a_file_of_another_build_is_refused(initrd: Initrd) -> None:
    (initrd.server / "live" / "base.squashfs").write_bytes(b"short")
    assert initrd.fetch("http://server") == 1
    assert "live/base.squashfs has 5 bytes, expected 4000." in initrd.screen


def test_an_address_that_is_none_is_refused(initrd: Initrd) -> None:
    assert initrd.fetch("tftp://server") == 1
    assert "fetch=tftp://server is not the http:// address" in initrd.screen


def _build(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", "from rescue.cli.main import main; main()", "build", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def test_a_build_of_nothing_and_of_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    nothing = _build()
    assert nothing.returncode == 2 and "--netboot DIR" in nothing.stderr
    other = _build("--architecture", "riscv64", "-o", str(tmp_path / "x.iso"))
    assert other.returncode == 2 and "'amd64', 'arm64'" in other.stderr
    assert not list(tmp_path.iterdir())


def test_a_passphrase_is_not_given_to_everybody_on_the_network(tmp_path: Path) -> None:
    """docs/job.md: over plain HTTP everybody reads it along, so the job has to allow it."""
    (tmp_path / "web.passphrase").write_text("correct horse battery staple\n")
    (tmp_path / "site.toml").write_text(
        '[job]\nrepository = "http://192.0.2.1/repo"\npassphrase_file = "web.passphrase"\ntarget = { only = true }\n'
    )
    done = _build(str(tmp_path / "site.toml"), "--netboot", str(tmp_path / "set"))
    assert done.returncode == 2 and "a netboot set gives files to everybody" in done.stderr
    assert not (tmp_path / "set").exists()
