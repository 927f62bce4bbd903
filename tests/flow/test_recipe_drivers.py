"""The drivers layer of a build, from files alone; the archive and the compiler are a scripted runner."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.archive.mirror import Mirror, PackageSource
from builder.archive.origin import Origin
from builder.boot import INITRD
from builder.cache import open_cache
from builder.drivers.build import MachineDrivers, build_drivers
from builder.drivers.common_firmware import common_firmware, wanted_firmware
from builder.drivers.dkms import build_dkms
from builder.drivers.module_tree import Ground
from builder.finished.opened import open_medium
from builder.layer import Layer
from builder.recipe.recipe import Firmware, Kernel, Recipe
from core.errors import LiferaftError, ProcessError, UsageError
from core.events import Event, ignore
from core.process import Result, Runner, SystemRunner
from tests.flow.disks import need
from tests.flow.media import KERNEL_RELEASE, make_medium, make_module, make_tree
from tests.runners import ScriptedRunner

_SOURCES = ("deb http://deb.debian.org/debian trixie main",)


@pytest.fixture(scope="module")
def runner() -> Runner:
    need("gcc", "depmod", "modprobe", "cpio", "mksquashfs", "unsquashfs", "xorriso")
    return SystemRunner()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, runner: Runner) -> Ground:
    folder = tmp_path_factory.mktemp("ground")
    old = make_module(folder / "old.ko", runner)
    tree = make_tree(folder / "tree", {"old.ko": old}, runner)
    early = make_tree(folder / "early", {"old.ko": old}, runner)
    iso = make_medium(folder / "iso", tree, early, runner)
    with open_medium(iso) as medium:
        medium.extract("live/base.squashfs", folder / "base")
        medium.extract(INITRD, folder / "initrd")
    return Ground(kernel=KERNEL_RELEASE, trees=(folder / "base",), initrds=(folder / "initrd",))


def _build(recipe: Recipe, ground: Ground, root: Path, runner: Runner) -> tuple[Layer, ...]:
    with open_cache(root) as cache:
        return build_drivers(recipe, MachineDrivers(), ground, _SOURCES, cache, runner, ignore)


def test_a_recipe_without_drivers_has_no_layer(ground: Ground, tmp_path: Path, runner: Runner) -> None:
    assert _build(Recipe(), ground, tmp_path / "cache", runner) == ()


def test_the_same_drivers_are_not_packed_twice(ground: Ground, tmp_path: Path, runner: Runner) -> None:
    make_module(tmp_path / "drv/new.ko", runner, info=("alias=pci:v1234*",), imports=("register_netdev",))
    (tmp_path / "fw").write_bytes(b"1")
    recipe = Recipe(kernel=Kernel(modules=(str(tmp_path / "drv"),)), firmware=Firmware(files=(str(tmp_path / "fw"),)))
    [first] = _build(recipe, ground, tmp_path / "cache", runner)
    [second] = _build(recipe, ground, tmp_path / "cache", runner)
    assert (first.reused, second.reused) == (False, True)
    assert first.files == second.files and set(first.files) == {"live/drivers.squashfs", "live/drivers.img"}
    (tmp_path / "fw").write_bytes(b"2")
    [third] = _build(recipe, ground, tmp_path / "cache", runner)
    assert not third.reused
    runner.run(["unsquashfs", "-q", "-n", "-d", str(tmp_path / "live"), str(third.squashfs)])
    assert (tmp_path / "live/usr/lib/firmware/fw").read_bytes() == b"2"
    (tmp_path / "live/lib").symlink_to("usr/lib")
    argv = ["modprobe", "--dirname", str(tmp_path / "live"), "--set-version", KERNEL_RELEASE]
    assert runner.run([*argv, "--resolve-alias", "pci:v1234d1"]).stdout.split() == ["new"]


def test_common_firmware_is_what_drivers_of_disks_and_wired_networks_ask_for(tmp_path: Path, runner: Runner) -> None:
    pci = "alias=pci:v00001234d*sv*sd*bc*sc*i*"
    modules = [
        make_module(tmp_path / "nic.ko", runner, info=(pci, "firmware=nic/a-*.fw"), imports=("register_netdev",)),
        make_module(tmp_path / "hba.ko", runner, info=(pci, "firmware=hba.bin"), imports=("scsi_host_alloc",)),
        make_module(tmp_path / "modem.ko", runner, info=(pci, "firmware=modem.bin"), imports=("tty_register_driver",)),
        make_module(tmp_path / "wifi.ko", runner, info=(pci, "firmware=wifi.bin"), imports=("ieee80211_register_hw",)),
    ]
    names = ("nic/a-1.fw", "nic/a-2.fw", "nic/b.fw", "hba.bin", "modem.bin", "wifi.bin")
    found = wanted_firmware(modules, {name: tmp_path / name for name in names})
    assert set(found) == {"nic/a-1.fw", "nic/a-2.fw", "hba.bin"}


class _MainOnly:
    """An archive that has Debian's main part only, with one package of the common firmware; all else really runs."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        if argv[0] == "apt-cache":
            return Result(0, "Package: firmware-linux-free\nSection: kernel\n" if "show" in argv else "", "")
        if argv[0] != "apt-get":
            return self._inner.run(argv, **options)
        if "install" in argv:
            if "firmware-qlogic" in argv:
                raise ProcessError(tuple(argv), 100, "E: Unable to locate package firmware-bnx2")
            return Result(0, "Inst firmware-linux-free (20241210-2 Debian:13 [all])\n", "")
        if "download" in argv:
            assert argv[argv.index("download") + 1 :] == ["firmware-linux-free"]
            folder = Path(options["cwd"])
            for path, text in {
                "usr/lib/firmware/card.fw": "x",
                "DEBIAN/control": "Package: firmware-linux-free\nVersion: 1\nArchitecture: all\n"
                "Maintainer: x <x@example.org>\nDescription: x\n",
            }.items():
                (folder / "tree" / path).parent.mkdir(parents=True)
                (folder / "tree" / path).write_text(text)
            name = folder / "firmware-linux-free_1_all.deb"
            self._inner.run(["dpkg-deb", "--build", "--root-owner-group", str(folder / "tree"), str(name)])
        return Result(0, "", "")


def test_without_non_free_firmware_the_medium_is_built_and_what_lacks_is_named(tmp_path: Path, runner: Runner) -> None:
    need("dpkg-deb")
    info = ("alias=pci:v00001234d*sv*sd*bc*sc*i*", "firmware=card.fw")
    card = make_module(tmp_path / "card.ko", runner, info=info, imports=("register_netdev",))
    tree = make_tree(tmp_path / "tree", {"card.ko": card}, runner)
    early = make_tree(tmp_path / "early", {"card.ko": card}, runner)
    with open_medium(make_medium(tmp_path / "iso", tree, early, runner)) as medium:
        medium.extract("live/base.squashfs", tmp_path / "base")
        medium.extract(INITRD, tmp_path / "initrd")
    ground = Ground(kernel=KERNEL_RELEASE, trees=(tmp_path / "base",), initrds=(tmp_path / "initrd",))
    mirror = Mirror("http://main.example/debian", "")
    when = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    state = tuple(PackageSource(uri, suite, when, "0" * 64) for uri, suite in mirror.suites("trixie"))
    told: list[Event] = []
    with open_cache(tmp_path / "cache") as cache:
        for _ in range(2):
            origin = Origin(mirror, "trixie", state)
            found = common_firmware(origin, ground, "base", cache, _MainOnly(runner), told.append)
            assert set(found) == {"card.fw"}
    warnings = [event.message for event in told if event.warning]
    # Again when it comes from the cache: this medium lacks it, too.
    assert len(warnings) == 2 and warnings[0] == warnings[1]
    assert "firmware-bnx2," in warnings[0] and "firmware-linux-free" not in warnings[0]
    assert "firmware.common = false" in warnings[0]


def test_common_firmware_is_in_the_layer_and_gives_way_to_what_is_named(
    ground: Ground, tmp_path: Path, runner: Runner
) -> None:
    common = {name: tmp_path / "common" / name for name in ("card.fw", "other.fw")}
    for path in (*common.values(), tmp_path / "card.fw"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.parent.name)
    recipe = Recipe(firmware=Firmware(files=(str(tmp_path / "card.fw"),)))
    with open_cache(tmp_path / "cache") as cache:
        [layer] = build_drivers(recipe, MachineDrivers(), ground, _SOURCES, cache, runner, ignore, common=common)
    runner.run(["unsquashfs", "-q", "-n", "-d", str(tmp_path / "live"), str(layer.files["live/drivers.squashfs"])])
    folder = tmp_path / "live/usr/lib/firmware"
    assert (folder / "card.fw").read_text() == tmp_path.name and (folder / "other.fw").read_text() == "common"


def test_firmware_alone_needs_no_tables(ground: Ground, tmp_path: Path, runner: Runner) -> None:
    (tmp_path / "fw.bin").write_bytes(b"1")
    [layer] = _build(Recipe(firmware=Firmware(files=(str(tmp_path / "fw.bin"),))), ground, tmp_path / "cache", runner)
    listing = runner.run(["unsquashfs", "-l", "-d", "", str(layer.squashfs)]).stdout.split()
    assert "/usr/lib/firmware/fw.bin" in listing and not any("modules" in name for name in listing)
    assert layer.initrd is None, "no driver of the initrd asks for it"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (
            "E: Unable to locate package linux-headers-6.12.99-test\nE: mmdebstrap failed",
            "no longer has the headers of the kernel 6.12.99-test",
        ),
        (
            "Building module:\nnew.c:12:5: error: unknown type name 'sizet'\nError! Bad return status",
            "could not be compiled for the kernel 6.12.99-test: new.c:12:5: error: unknown type name",
        ),
    ],
)
def test_why_a_driver_was_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, wanted: str) -> None:
    def fail(argv: tuple[str, ...]) -> Result:
        raise ProcessError(argv, 25, said)

    monkeypatch.setattr("os.geteuid", lambda: 0)
    with open_cache(tmp_path / "cache") as cache, pytest.raises(LiferaftError, match=wanted):
        build_dkms(("new-dkms",), (), KERNEL_RELEASE, "trixie", _SOURCES, cache, ScriptedRunner(fail), ignore)
    assert not list((tmp_path / "cache").glob("dkms-*"))


def test_the_build_system_is_of_the_release_whatever_its_sources_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dated = ("deb [check-valid-until=no] http://snapshot.debian.org/archive/debian/20261101T000000Z trixie main",)
    runner = ScriptedRunner(lambda argv: "")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with open_cache(tmp_path / "cache") as cache, pytest.raises(LiferaftError, match="DKMS made no modules"):
        build_dkms(("new-dkms",), (), KERNEL_RELEASE, "trixie", dated, cache, runner, ignore)
    [argv] = runner.calls
    assert argv[-3] == "trixie" and argv[-1] == "-"
    assert runner.inputs[0] == f"{dated[0]} contrib non-free non-free-firmware\n"
    assert f"--include=dkms,linux-headers-{KERNEL_RELEASE},new-dkms" in argv


def test_a_folder_that_is_no_dkms_source(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache") as cache:
        never = ScriptedRunner(lambda argv: pytest.fail(f"{argv} was run"))
        with pytest.raises(UsageError, match=r"it has no dkms\.conf"):
            build_dkms((), (tmp_path,), KERNEL_RELEASE, "trixie", _SOURCES, cache, never, ignore)
        (tmp_path / "dkms.conf").write_text("PACKAGE_NAME=$(hostname)\n")
        with pytest.raises(UsageError, match="PACKAGE_NAME and PACKAGE_VERSION"):
            build_dkms((), (tmp_path,), KERNEL_RELEASE, "trixie", _SOURCES, cache, never, ignore)
