"""Injecting into a small medium; kmod, cpio, unsquashfs and xorriso say what came of it."""

import datetime
import hashlib
import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from builder.architecture import Architecture
from builder.archive.loaders import Loaders
from builder.boot import INITRD
from builder.document import MEDIUM_DOCUMENT, MediumDocument, parse_medium
from builder.finished.inspection import inspect_medium
from builder.finished.opened import open_medium
from builder.inject.inject import InjectReport
from builder.netboot import write_netboot
from builder.sums import SUMS, read_sums
from core.errors import DamagedError, DeviceError, RefusedError, UsageError
from core.events import Event, ignore
from core.process import Runner, SystemRunner
from rescue.jobs.inject import inject_medium
from tests.flow.disks import need
from tests.flow.media import KERNEL_RELEASE, VERMAGIC, make_medium, make_module, make_tree

_ALIAS = "alias=pci:v00001AF4d0000BEEFsv*sd*bc*sc*i*"
_DEVICE = "pci:v00001AF4d0000BEEFsv00000000sd00000000bc01sc00i00"
_UPDATES = f"usr/lib/modules/{KERNEL_RELEASE}/updates/liferaft"


@pytest.fixture(scope="session")
def runner() -> Runner:
    need("gcc", "depmod", "modinfo", "modprobe", "cpio", "mksquashfs", "unsquashfs", "xorriso", "dpkg-deb")
    return SystemRunner()


@pytest.fixture(scope="session")
def medium(tmp_path_factory: pytest.TempPathFactory, runner: Runner) -> Path:
    """Its base has ``bus`` and ``oldcard``; its initrd has neither."""
    folder = tmp_path_factory.mktemp("medium")
    bus = make_module(folder / "bus.ko", runner, exports=("bus_register",))
    old = make_module(folder / "oldcard.ko", runner, info=("alias=pci:v00001234d*sv*sd*bc*sc*i*",))
    other = make_module(folder / "other.ko", runner, info=("firmware=acme/hba-*.bin",), imports=("printk",))
    tree = make_tree(folder / "tree", {"drivers/bus/bus.ko": bus, "drivers/old/oldcard.ko": old}, runner)
    early = make_tree(folder / "early", {"drivers/other.ko": other}, runner)
    return make_medium(folder / "iso", tree, early, runner)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory, runner: Runner) -> Path:
    """A folder with a driver of a SCSI controller that needs the base's ``bus`` and a firmware file."""
    folder = tmp_path_factory.mktemp("driver") / "vendor"
    info = (_ALIAS, "depends=bus", "firmware=acme/card.bin")
    make_module(folder / "newcard.ko", runner, info=info, imports=("scsi_host_alloc", "bus_register"))
    return folder


def _inject(medium: Path, out: Path | None, cache: Path, runner: Runner, **words: object) -> InjectReport:
    sink = words.pop("sink", ignore)
    return inject_medium(medium, out, cache, sink, runner, **words)  # type: ignore[arg-type] # as the test gives them


def _taken(iso: Path, path: str, target: Path, runner: Runner) -> Path:
    runner.run(["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", f"/{path}", str(target)])
    target.chmod(0o644)
    return target


def _live(iso: Path, folder: Path, runner: Runner, layers: tuple[str, ...]) -> Path:
    """The live system's tree: the layers over each other, as live-boot stacks them."""
    folder.mkdir()
    for name in layers:
        squashfs = _taken(iso, f"live/{name}.squashfs", folder.with_name(f"{name}.squashfs"), runner)
        runner.run(["unsquashfs", "-q", "-n", "-f", "-d", str(folder), str(squashfs)])
    return folder


def _initrd(iso: Path, folder: Path, runner: Runner, parts: tuple[str, ...]) -> Path:
    """What the kernel has unpacked before it starts: zstd and cpio, in order."""
    folder.mkdir()
    for number, path in enumerate(parts):
        part = _taken(iso, path, folder.with_name(f"part{number}"), runner)
        if part.read_bytes().startswith(b"\x28\xb5\x2f\xfd"):
            runner.run(["zstd", "-q", "-d", str(part), "-o", f"{part}.cpio"])
            part = Path(f"{part}.cpio")
        runner.run(["cpio", "-i", "-d", "-u", "--quiet", "-F", str(part)], cwd=str(folder))
    return folder


def _modprobe(root: Path, runner: Runner, *words: str) -> str:
    return runner.run(["modprobe", "--dirname", str(root), "--set-version", KERNEL_RELEASE, *words]).stdout


def test_a_driver_is_found_by_its_device_in_the_live_system_and_in_the_initrd(
    medium: Path, driver: Path, tmp_path: Path, runner: Runner
) -> None:
    before = hashlib.sha256(medium.read_bytes()).hexdigest()
    firmware = tmp_path / "firmware"
    (firmware / "acme").mkdir(parents=True)
    (firmware / "acme/card.bin").write_bytes(b"microcode")
    (firmware / "acme/hba-2.bin").write_bytes(b"hba")
    (firmware / "unasked.bin").write_bytes(b"more")
    out = tmp_path / "new.iso"
    report = _inject(medium, out, tmp_path / "cache", runner, drivers=(driver,), firmware=(firmware,))

    assert report.layer == "inject-1"
    live = _live(out, tmp_path / "live", runner, ("base", "inject-1"))
    assert _modprobe(live, runner, "--resolve-alias", _DEVICE).split() == ["newcard"]
    needed = [Path(line.split()[1]).name for line in _modprobe(live, runner, "--show-depends", "newcard").splitlines()]
    assert needed == ["bus.ko", "newcard.ko"]
    assert _modprobe(live, runner, "--resolve-alias", "pci:v00001234d0sv0sd0bc0sc0i0").split() == ["oldcard"]
    assert (live / "usr/lib/firmware/acme/card.bin").read_bytes() == b"microcode"
    assert (live / "usr/lib/firmware/unasked.bin").exists()

    initrd = _initrd(out, tmp_path / "initrd", runner, (INITRD, "live/inject-1.img"))
    shown = [Path(line.split()[1]) for line in _modprobe(initrd, runner, "--show-depends", "newcard").splitlines()]
    assert [path.name for path in shown] == ["bus.ko", "newcard.ko"], "what it needs came along from the base"
    assert all(path.exists() for path in shown)
    assert _modprobe(initrd, runner, "--show-depends", "other"), "what the initrd had is still known"
    assert (initrd / "usr/lib/firmware/acme/card.bin").read_bytes() == b"microcode"
    assert not (initrd / "usr/lib/firmware/unasked.bin").exists(), "the initrd has what its drivers ask for"
    assert (initrd / "usr/lib/firmware/acme/hba-2.bin").exists(), "a driver that is there already asks only once"
    assert (initrd / "lib").is_symlink(), "the initrd's /lib stays a link"

    menu = _taken(out, "boot/grub/grub.cfg", tmp_path / "grub.cfg", runner).read_text()
    lines = [line for line in menu.splitlines() if line.strip().startswith("initrd")]
    wanted = ["initrd", f"/{INITRD}", "/live/inject-1.img", f"/{SUMS}", "$liferaft_initrd"]
    assert lines and all(line.split() == wanted for line in lines), "the digests are last of the medium's own"
    order = _taken(out, "live/filesystem.module", tmp_path / "order", runner).read_text()
    assert order == "base.squashfs inject-1.squashfs\n"
    assert hashlib.sha256(medium.read_bytes()).hexdigest() == before


def test_the_new_medium_describes_itself_and_takes_more(
    medium: Path, driver: Path, tmp_path: Path, runner: Runner
) -> None:
    first, second = tmp_path / "first.iso", tmp_path / "second.iso"
    _inject(medium, first, tmp_path / "cache", runner, drivers=(driver,))
    note = tmp_path / "note"
    note.write_text("hello\n")
    (tmp_path / "units/wants").mkdir(parents=True)
    (tmp_path / "units/a.service").write_text("[Unit]\n")
    (tmp_path / "units/wants/a.service").symlink_to("../a.service")
    windows = tmp_path / "nic"
    (windows / "sub").mkdir(parents=True)
    (windows / "sub" / "Net.INF").write_text("[Version]\n")
    (windows / "odd =\\name.sys").write_bytes(b"sys")
    files = (f"{note}:/etc/note", f"{tmp_path / 'units'}:/etc/units")
    report = _inject(first, second, tmp_path / "cache", runner, files=files, windows=(windows,))

    assert report.layer == "inject-2" and report.early == ()
    document = parse_medium(_taken(second, MEDIUM_DOCUMENT, tmp_path / "m.json", runner).read_bytes(), name="new")
    assert document.layers == ("base", "inject-1", "inject-2")
    assert document.initrds == (INITRD, "live/inject-1.img", SUMS)
    for file in document.files:
        taken = _taken(second, file.path, tmp_path / "one", runner)
        assert (taken.stat().st_size, hashlib.sha256(taken.read_bytes()).hexdigest()) == (file.size, file.sha256)
        taken.unlink()
    sums = _initrd(second, tmp_path / "sums", runner, (SUMS,)) / "usr/lib/liferaft/sums.txt"
    compared = set()
    for line in sums.read_text().splitlines():
        digest, offset, size, path = line.split()
        content = _taken(second, path, tmp_path / "one", runner).read_bytes()[int(offset) : int(offset) + int(size)]
        assert hashlib.sha512(content).hexdigest() == digest
        (tmp_path / "one").unlink()
        compared.add(path)
    assert {f"live/{name}.squashfs" for name in document.layers} | {"live/filesystem.module"} <= compared
    assert "liferaft/drivers/nic/sub/Net.INF" in {file.path for file in document.files}
    live = _live(second, tmp_path / "live", runner, document.layers)
    assert (live / "etc/note").read_text() == "hello\n"
    assert (live / "etc/units/wants/a.service").readlink() == Path("../a.service")
    with open_medium(second) as opened:
        assert opened.read("liferaft/drivers/nic/odd =\\name.sys") == b"sys"
    assert _modprobe(live, runner, "--resolve-alias", _DEVICE).split() == ["newcard"]


def test_files_keep_what_they_may_be_used_for(medium: Path, tmp_path: Path, runner: Runner) -> None:
    for name, mode in (("tool", 0o755), ("key", 0o600), ("note", 0o664)):
        (tmp_path / name).write_text(f"{name}\n")
        (tmp_path / name).chmod(mode)
    out = tmp_path / "new.iso"
    files = (f"{tmp_path}/tool:/bin/tool", f"{tmp_path}/key:/root/.ssh/key", f"{tmp_path}/note://etc/note")
    _inject(medium, out, tmp_path / "cache", runner, files=files)
    listed = runner.run(
        ["unsquashfs", "-lln", str(_taken(out, "live/inject-1.squashfs", tmp_path / "s", runner))]
    ).stdout
    found = {line.split()[-1].removeprefix("squashfs-root"): line.split()[0] for line in listed.splitlines()[-9:]}
    # sshd(8), ssh(1): a private key that others can read is ignored. /bin is a link to /usr/bin, and must stay one.
    assert found["/usr/bin/tool"] == "-rwxr-xr-x" and "/bin" not in found
    assert (found["/root"], found["/root/.ssh/key"]) == ("drwx------", "-rw-------")
    assert (found["/etc"], found["/etc/note"]) == ("drwxr-xr-x", "-rw-r--r--")


@pytest.mark.parametrize("place", ["/run/note", "/proc/note", "/tmp/note", "/sbin"])
def test_a_place_where_a_file_would_not_be_seen_is_refused(
    place: str, medium: Path, tmp_path: Path, runner: Runner
) -> None:
    (tmp_path / "note").write_text("hello\n")
    with pytest.raises(UsageError, match=r"is seen in the running system|is a folder of the live system"):
        _inject(medium, tmp_path / "no.iso", tmp_path / "cache", runner, files=(f"{tmp_path}/note:{place}",))


def test_a_medium_without_a_layer_that_it_names_is_damaged(
    medium: Path, tmp_path: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "note").write_text("hello\n")

    def parse(content: bytes, *, name: str) -> MediumDocument:
        return msgspec.structs.replace(parse_medium(content, name=name), layers=("base", "gone"))

    monkeypatch.setattr("builder.finished.opened.parse_medium", parse)
    with pytest.raises(DamagedError, match=r"lacks live/gone\.squashfs"):
        _inject(medium, tmp_path / "no.iso", tmp_path / "cache", runner, files=(f"{tmp_path}/note:/etc/note",))


def test_a_driver_for_another_kernel_is_refused_and_nothing_is_written(
    medium: Path, tmp_path: Path, runner: Runner
) -> None:
    other = VERMAGIC.replace("6.12.99", "6.1.0")
    make_module(tmp_path / "drv" / "newcard.ko", runner, vermagic=other)
    make_module(tmp_path / "drv" / "second.ko", runner, info=("depends=nobody_has_it",))
    with pytest.raises(RefusedError) as caught:
        _inject(medium, tmp_path / "new.iso", tmp_path / "cache", runner, drivers=(tmp_path / "drv",))
    assert caught.value.reasons == (
        f"{tmp_path}/drv/newcard.ko is for another kernel: vermagic expected {VERMAGIC.strip()!r}, "
        f"found {other.strip()!r}.",
        f"{tmp_path}/drv/second.ko: second needs the module nobody_has_it, which is neither on the medium nor among "
        "the drivers.",
    )
    assert [path.name for path in tmp_path.iterdir() if "iso" in path.name] == []
    assert [path.name for path in (tmp_path / "cache").iterdir() if "partial" in path.name] == []


def test_of_a_driver_for_several_kernels_the_fitting_one_is_taken(medium: Path, tmp_path: Path, runner: Runner) -> None:
    for release in ("6.1.0-1", "6.12.99", "6.18.2"):
        make_module(
            tmp_path / "drv" / release / "newcard.ko",
            runner,
            vermagic=VERMAGIC.replace("6.12.99", release),
            info=(_ALIAS,),
        )
    out = tmp_path / "new.iso"
    _inject(medium, out, tmp_path / "cache", runner, drivers=(tmp_path / "drv",))
    live = _live(out, tmp_path / "live", runner, ("base", "inject-1"))
    said = runner.run(["modinfo", "-F", "vermagic", str(live / _UPDATES / "newcard.ko")]).stdout
    assert said.strip() == VERMAGIC.strip()


def test_a_package_brings_its_modules_and_settings(medium: Path, driver: Path, tmp_path: Path, runner: Runner) -> None:
    tree = tmp_path / "package"
    for name, content in {
        "DEBIAN/control": b"Package: card\nVersion: 1\nArchitecture: amd64\nMaintainer: t <t@t>\nDescription: t\n",
        "lib/modules/any/newcard.ko": (driver / "newcard.ko").read_bytes(),
        "etc/modprobe.d/card.conf": b"options newcard fast=1\n",
        "lib/firmware/acme/card.bin": b"microcode",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    package = tmp_path / "card.deb"
    runner.run(["dpkg-deb", "--build", "--root-owner-group", str(tree), str(package)])
    warned: list[Event] = []
    out = tmp_path / "new.iso"
    _inject(medium, out, tmp_path / "cache", runner, drivers=(package,), sink=warned.append)
    live = _live(out, tmp_path / "live", runner, ("base", "inject-1"))
    assert (live / "usr/lib/firmware/acme/card.bin").read_bytes() == b"microcode"
    assert (live / "etc/modprobe.d/card.conf").read_text() == "options newcard fast=1\n"
    assert any(event.warning and "Secure Boot" in event.message and "newcard" in event.message for event in warned)

    broken = tmp_path / "broken.deb"
    broken.write_bytes(package.read_bytes()[:-200])
    with pytest.raises(DamagedError, match=r"broken\.deb is not a whole Debian package: .+"):
        _inject(medium, tmp_path / "no.iso", tmp_path / "cache", runner, drivers=(broken,))
    assert not (tmp_path / "no.iso").exists()


def test_places_without_drivers_are_refused_with_what_they_are(medium: Path, tmp_path: Path, runner: Runner) -> None:
    windows = tmp_path / "windows"
    windows.mkdir()
    (windows / "net.inf").write_text("[Version]\n")
    with pytest.raises(UsageError, match="has no kernel modules") as caught:
        _inject(medium, tmp_path / "no.iso", tmp_path / "cache", runner, drivers=(windows,))
    assert "--windows-driver" in caught.value.hint
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"has no \.inf"):
        _inject(medium, tmp_path / "no.iso", tmp_path / "cache", runner, windows=(empty,))
    with pytest.raises(UsageError, match="has no files"):
        _inject(medium, tmp_path / "no.iso", tmp_path / "cache", runner, firmware=(empty,))
    assert not (tmp_path / "no.iso").exists()


def test_a_damaged_or_cut_medium_is_refused(medium: Path, tmp_path: Path, runner: Runner) -> None:
    note = tmp_path / "note"
    note.write_text("hello\n")
    content = bytearray(medium.read_bytes())
    place = content.index(b"hsqs")
    content[place + 200] ^= 1
    bad = tmp_path / "bad.iso"
    bad.write_bytes(content)
    with pytest.raises(DamagedError, match=rf"live/base\.squashfs, at offset {place}, has the digest"):
        _inject(bad, tmp_path / "no.iso", tmp_path / "cache", runner, files=(f"{note}:/etc/note",))
    half = len(content) // 2
    bad.write_bytes(content[:half])
    with pytest.raises(DamagedError, match=rf"{len(content) - half} bytes are missing behind byte {half}\."):
        _inject(bad, tmp_path / "no.iso", tmp_path / "cache", runner, files=(f"{note}:/etc/note",))
    assert not (tmp_path / "no.iso").exists()


def test_the_medium_itself_is_never_the_output(medium: Path, tmp_path: Path, runner: Runner) -> None:
    note = tmp_path / "note"
    note.write_text("hello\n")
    with pytest.raises(UsageError, match="stays as it is"):
        _inject(medium, medium, tmp_path / "cache", runner, files=(f"{note}:/etc/note",))
    for word in ("note", f"{note}:relative", f"{note}:/etc/../x"):
        with pytest.raises(UsageError, match="expected SRC:DEST"):
            _inject(medium, tmp_path / "no.iso", tmp_path / "cache", runner, files=(word,))


def test_a_job_goes_beside_with_its_passphrase(medium: Path, tmp_path: Path, runner: Runner) -> None:
    job = tmp_path / "office.json"
    job.write_text('{"repository": "http://h/r", "match": true, "passphrase_file": "phrase"}')
    (tmp_path / "phrase").write_text("correct horse\n")
    (tmp_path / "phrase").chmod(0o600)
    out = tmp_path / "new.iso"
    report = _inject(medium, out, tmp_path / "cache", runner, job=job)
    assert report.layer == "" and report.added == ("liferaft/job.json", "liferaft/phrase", SUMS)
    assert _taken(out, "liferaft/job.json", tmp_path / "j", runner).read_text() == job.read_text()
    # A web server would give the passphrase to everybody.
    for source, words in ((medium, {"job": job}), (out, {"files": (f"{job}:/etc/note",)})):
        with pytest.raises(UsageError, match="to everybody who asks"):
            _inject(source, None, tmp_path / "cache", runner, netboot=tmp_path / "set", **words)
    assert not (tmp_path / "set").exists()
    job.write_text('{"repository": "http://h/r", "match": true, "passphrase_file": "medium.json"}')
    (tmp_path / "phrase").rename(tmp_path / "medium.json")
    with pytest.raises(UsageError, match="cannot lie beside the job"):
        _inject(medium, tmp_path / "no.iso", tmp_path / "cache", runner, job=job)
    job.write_text('{"repositry": "http://h/r", "match": true}')
    with pytest.raises(UsageError, match="repositry"):
        _inject(medium, tmp_path / "no.iso", tmp_path / "cache", runner, job=job)


def test_a_replaced_job_takes_its_passphrases_along(medium: Path, tmp_path: Path, runner: Runner) -> None:
    for name, text in {"old": "correct horse\n", "disk": "battery staple\n", "new": "another phrase\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    job = tmp_path / "job.json"
    words = '{{"repository": "http://h/r", "match": true, "passphrase_file": "{}", "luks_passphrase_file": "disk"}}'
    isos = [tmp_path / f"{number}.iso" for number in range(3)]
    job.write_text(words.format("old"))
    _inject(medium, isos[0], tmp_path / "cache", runner, job=job)
    job.write_text(words.format("new"))
    _inject(isos[0], isos[1], tmp_path / "cache", runner, job=job)
    with open_medium(isos[1]) as opened:
        beside = {path for path in opened.paths if path.startswith("liferaft/") and "." not in path}
        assert beside == {"liferaft/new", "liferaft/disk"}
        # Its EFI image is a stand-in; every file is known and as it should be.
        found = inspect_medium(opened, datetime.datetime.now(datetime.UTC), ignore)
        assert [finding for finding in found.findings if finding.path] == []
        assert {part.path for part in read_sums(opened.read(SUMS), name=SUMS)} >= beside
        assert "liferaft/old" not in {part.path for part in read_sums(opened.read(SUMS), name=SUMS)}
    assert b"correct horse" in isos[0].read_bytes() and b"correct horse" not in isos[1].read_bytes()
    # Without a new job the old one stays whole.
    _inject(isos[1], isos[2], tmp_path / "cache", runner, files=(f"{job}:/etc/note",))
    with open_medium(isos[2]) as opened:
        assert all(opened.has(path) for path in beside)


def test_an_iso_with_a_secret_is_its_owners_alone(medium: Path, tmp_path: Path, runner: Runner) -> None:
    def mode(path: Path) -> int:
        return path.stat().st_mode & 0o777

    job, phrase, note = tmp_path / "job.json", tmp_path / "phrase", tmp_path / "note"
    phrase.write_text("correct horse\n")
    phrase.chmod(0o600)
    note.write_text("x")
    note.chmod(0o644)
    plain, secret, later, key = (tmp_path / f"{name}.iso" for name in ("plain", "secret", "later", "key"))
    job.write_text('{"repository": "http://h/r", "match": true}')
    _inject(medium, plain, tmp_path / "cache", runner, job=job, files=(f"{note}:/etc/note",))
    job.write_text('{"repository": "http://h/r", "match": true, "passphrase_file": "phrase"}')
    _inject(plain, secret, tmp_path / "cache", runner, job=job)
    _inject(secret, later, tmp_path / "cache", runner, files=(f"{note}:/etc/note",))
    _inject(medium, key, tmp_path / "cache", runner, files=(f"{phrase}:/root/key",))
    mask = os.umask(0o022)
    os.umask(mask)
    assert [mode(iso) for iso in (plain, secret, later, key)] == [0o666 & ~mask, 0o600, 0o600, 0o600]
    # A group may read it, not everybody; and one that was copied to everybody has the passphrase all the same.
    for bits, source, wanted in ((0o640, plain, 0o600), (0o644, plain, 0o666 & ~mask), (0o644, secret, 0o600)):
        source.chmod(bits)
        _inject(source, later, tmp_path / "cache", runner, files=(f"{note}:/etc/note",))
        assert mode(later) == wanted
        later.unlink()
    phrase.chmod(0o640)
    _inject(medium, later, tmp_path / "cache", runner, files=(f"{phrase}:/root/key",))
    assert mode(later) == 0o600
    assert mode(tmp_path / "cache") == 0o700


def test_a_cache_without_room_is_named_before_anything_is_copied(
    medium: Path, tmp_path: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "note"
    note.write_text("x")
    usage = shutil.disk_usage(tmp_path)
    cache = tmp_path / "cache"
    monkeypatch.setattr(
        "shutil.disk_usage", lambda folder: usage._replace(free=4096 if folder == cache else usage.free)
    )
    with pytest.raises(DeviceError, match=rf"No space is left for the work: {cache} has 4\.00 KiB free") as caught:
        _inject(medium, tmp_path / "no.iso", cache, runner, files=(f"{note}:/etc/note",))
    assert "--cache" in caught.value.hint and not (tmp_path / "no.iso").exists()


def test_a_netboot_set_takes_the_same_layers(medium: Path, driver: Path, tmp_path: Path, runner: Runner) -> None:
    need("grub-mkimage")
    with open_medium(medium) as opened:
        assert opened.document is not None
        files = {file.path: tmp_path / "files" / file.path for file in opened.document.files}
        files[MEDIUM_DOCUMENT] = tmp_path / "files" / MEDIUM_DOCUMENT
        for path, target in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            opened.extract(path, target)
        signed = {}
        for name in ("bootx64.efi", "grubx64.efi", "mmx64.efi"):
            signed[name] = tmp_path / name
            signed[name].write_bytes(name.encode())
        old, new = tmp_path / "old", tmp_path / "new"
        write_netboot(files, opened.document, Loaders(signed, {}), old, runner, ignore)
    report = _inject(old, None, tmp_path / "cache", runner, netboot=new, drivers=(driver,))

    assert report.netboot == str(new) and report.path == ""
    assert (new / "live/inject-1.squashfs").is_file() and not (old / "live/inject-1.squashfs").exists()
    assert [(new / name).read_text() for name in signed] == list(signed)
    part = new / "live/netboot.img"
    runner.run(["zstd", "-q", "-d", str(part), "-o", str(tmp_path / "part.cpio")])
    runner.run(["cpio", "-i", "-d", "--quiet", "-F", str(tmp_path / "part.cpio")], cwd=str(tmp_path))
    fetched = (tmp_path / "conf/liferaft-fetch").read_text()
    size = (new / "live/inject-1.squashfs").stat().st_size
    assert f"{size} live/inject-1.squashfs\n" in fetched
    script = (new / "boot.ipxe").read_text()
    assert "initrd --name inject-1.img live/inject-1.img" in script
    with pytest.raises(UsageError, match="of which no ISO can be made"):
        _inject(old, tmp_path / "no.iso", tmp_path / "cache", runner, drivers=(driver,))


def test_a_medium_without_bios_stays_one(driver: Path, tmp_path: Path, runner: Runner) -> None:
    """El Torito's platforms by xorriso; UEFI is all that arm64 starts from."""
    initrd = tmp_path / "initrd-tree"
    initrd.mkdir()
    (initrd / "init").write_text("#!/bin/sh\n")
    base = make_tree(tmp_path / "tree", {"drivers/newcard.ko": driver / "newcard.ko"}, runner)
    old = make_medium(tmp_path / "arm64", base, initrd, runner, Architecture.ARM64)
    new = tmp_path / "new.iso"
    _inject(old, new, tmp_path / "cache", runner, files=(f"{initrd}/init:/opt/init",))
    for iso in (old, new):
        report = runner.run(["xorriso", "-indev", str(iso), "-report_el_torito", "plain"]).stdout
        images = [line.split() for line in report.splitlines() if line.startswith("El Torito boot img :")]
        assert [words[6] for words in images] == ["UEFI"]
        assert not any(iso.read_bytes()[:440]), "no code where a BIOS would start it"
    with open_medium(new) as opened:
        assert opened.document is not None and opened.document.architecture == "arm64"
        assert opened.efi_image().read_at(0, 7) == b"efi.img"


def test_a_file_that_cannot_be_read_is_named(
    medium: Path, tmp_path: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "note"
    note.write_text("hello\n")

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr("builder.drivers.drivers.shutil.copyfile", refuse)
    with pytest.raises(DeviceError, match=r"note cannot be used: Permission denied\."):
        _inject(medium, tmp_path / "no.iso", tmp_path / "cache", runner, files=(f"{note}:/etc/note",))
    assert not list(tmp_path.glob("no.iso*")) and not list((tmp_path / "cache").glob("*.partial"))


def test_the_same_additions_are_the_same_medium(medium: Path, driver: Path, tmp_path: Path, runner: Runner) -> None:
    digests = []
    for number in (1, 2):
        note = tmp_path / f"place{number}" / "note"
        note.parent.mkdir()
        note.write_text("hello\n")
        os.utime(note, (number * 10**8, number * 10**8))
        out = tmp_path / f"{number}.iso"
        report = _inject(
            medium, out, tmp_path / f"cache{number}", runner, drivers=(driver,), files=(f"{note}:/etc/note",)
        )
        digests.append(report.sha256)
        time.sleep(1.1)
    assert digests[0] == digests[1] == hashlib.sha256((tmp_path / "1.iso").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("field", "user"),
    [
        ("repository", "u:hunter2"),
        ("report_url", "hunter2"),
        ("passphrase_file", "u:hunter2"),
        ("luks_passphrase_file", "hunter2"),
    ],
)
def test_a_password_in_an_address_of_the_job_is_told(
    medium: Path, tmp_path: Path, runner: Runner, field: str, user: str
) -> None:
    job = tmp_path / "office.json"
    words = {"repository": "http://192.0.2.1/r", "target": {"serial": "S1"}, field: f"https://{user}@192.0.2.1/r"}
    job.write_bytes(msgspec.json.encode(words))
    told: list[Event] = []
    inject_medium(medium, tmp_path / "new.iso", tmp_path / "cache", told.append, runner, job=job)
    warning = next(event.message for event in told if event.warning)
    assert f"the password in {field} of {job}" in warning
    assert "hunter2" not in warning
    assert (tmp_path / "new.iso").stat().st_mode & 0o777 == 0o600
