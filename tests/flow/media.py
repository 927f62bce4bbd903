"""Small media for tests, and large ones changed: an ISO as ``liferaft build`` lays it out, made of what the test gives.

A module is what gcc makes of a few lines of C: a real ELF object with a ``.modinfo`` that modinfo and depmod read.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from builder.architecture import Architecture, traits_of
from builder.boot import INITRD, KERNEL, grub_menu, mark_name
from builder.document import MEDIUM_DOCUMENT, describe_files
from builder.finished.iso9660 import Platform
from builder.finished.opened import open_medium
from builder.initrd import read_initrd
from builder.iso import BootImages, write_iso
from builder.sums import SUMS, ranges_of_files, sums_image
from core.documents import encode_readable
from core.process import Runner
from tests.samples import sample_medium

KERNEL_RELEASE = "6.12.99-test"
VERMAGIC = f"{KERNEL_RELEASE} SMP preempt mod_unload modversions "
MEDIUM_ID = "0123456789abcdef0123456789abcdef"


def make_module(
    path: Path,
    runner: Runner,
    *,
    vermagic: str = VERMAGIC,
    info: tuple[str, ...] = (),
    imports: tuple[str, ...] = (),
    exports: tuple[str, ...] = (),
) -> Path:
    """Compile a module that says ``info`` (``alias=…``, ``depends=…``) of itself, into ``path`` (``NAME.ko``)."""
    name = path.name.removesuffix(".ko").replace("-", "_")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, text in enumerate((f"name={name}", f"vermagic={vermagic}", "license=GPL", *info)):
        lines.append(f'static const char info{number}[] __attribute__((section(".modinfo"), used)) = "{text}";')
    lines += [f"void {symbol}(void);" for symbol in (*imports, *exports)]
    lines += [
        f'const char name_{symbol}[] __attribute__((section("__ksymtab_strings"), used)) = "{symbol}";'
        for symbol in exports
    ]
    lines += [f"void {symbol}(void) {{}}" for symbol in exports]
    lines.append(f"void init_module(void) {{ {' '.join(f'{symbol}();' for symbol in imports)} }}")
    source = path.with_suffix(".c")
    source.write_text("\n".join(lines) + "\n")
    runner.run(["gcc", "-c", "-fno-pic", "-mcmodel=kernel", "-o", str(path), str(source)])
    source.unlink()
    return path


def make_tree(root: Path, modules: Mapping[str, Path], runner: Runner) -> Path:
    """A folder as a live system has it: modules below ``kernel/`` by their paths, and depmod's tables."""
    folder = root / "usr/lib/modules" / KERNEL_RELEASE
    for name, source in modules.items():
        (folder / "kernel" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / "kernel" / name)
    (folder / "modules.builtin").write_text("kernel/fs/ext9/ext9.ko\n")
    (folder / "modules.order").write_text("".join(f"kernel/{name}\n" for name in modules))
    (root / "lib").symlink_to("usr/lib")
    runner.run(["depmod", "-b", str(root), KERNEL_RELEASE])
    return root


def make_medium(
    folder: Path, tree: Path, initrd_tree: Path, runner: Runner, architecture: Architecture = Architecture.AMD64
) -> Path:
    """An ISO in ``folder`` whose base is ``tree``, with an initrd made by cpio of ``initrd_tree``."""
    folder.mkdir()
    squashfs, initrd = folder / "base.squashfs", folder / "initrd.img"
    runner.run(["mksquashfs", str(tree), str(squashfs), "-noappend", "-quiet", "-no-progress", "-all-root"])
    names = sorted(path.relative_to(initrd_tree).as_posix() for path in initrd_tree.rglob("*"))
    runner.run(
        ["cpio", "--create", "--format=newc", "--quiet", f"--file={initrd}"],
        stdin="\n".join(names) + "\n",
        cwd=str(initrd_tree),
    )
    texts = {
        "boot/grub/grub.cfg": grub_menu(MEDIUM_ID, (), (INITRD, SUMS)),
        "live/filesystem.module": "base.squashfs\n",
        f".disk/{mark_name(MEDIUM_ID)}": f"{MEDIUM_ID}\n",
        "liferaft/packages.txt": "linux-image\t6.12.99\n",
        KERNEL: "a kernel\n",
    }
    files = {"live/base.squashfs": squashfs, INITRD: initrd}
    for number, (name, text) in enumerate(texts.items()):
        files[name] = folder / f"text{number}"
        files[name].write_text(text)
    files[SUMS] = folder / "sums.img"
    files[SUMS].write_bytes(sums_image(ranges_of_files(files)))
    document = sample_medium(
        medium_id=MEDIUM_ID,
        kernel=KERNEL_RELEASE,
        architecture=architecture,
        initrds=(INITRD, SUMS),
        files=describe_files(files),
    )
    files[MEDIUM_DOCUMENT] = folder / "medium.json"
    files[MEDIUM_DOCUMENT].write_text(encode_readable(document))
    for name, size in (("code.img", 512), ("bios.img", 8192), ("efi.img", 65536)):
        (folder / name).write_bytes(name.encode().ljust(size, b"\x5a"))
    iso = folder / "medium.iso"
    boot = BootImages(folder / "code.img", folder / "bios.img", folder / "efi.img")
    write_iso(files, boot if traits_of(architecture).bios else BootImages(None, None, boot.efi), iso, runner)
    return iso


def rewrite_iso(iso: Path, out: Path, changes: Mapping[str, Callable[[bytes], bytes]], runner: Runner) -> Path:
    """A copy of an ISO in which single files have other contents, its document with them."""
    folder = out.with_name(f"{out.name}.files")
    with open_medium(iso) as medium:
        assert medium.document is not None and medium.volume is not None
        files: dict[str, Path] = {}
        for path in medium.paths:
            files[path] = folder / path
            files[path].parent.mkdir(parents=True, exist_ok=True)
            medium.extract(path, files[path])
        for path, change in changes.items():
            files[path].write_bytes(change(files[path].read_bytes()))
        if SUMS in files:
            files[SUMS].write_bytes(sums_image(ranges_of_files(files)))
        fresh = {
            file.path: file
            for file in describe_files({path: files[path] for path in (*changes, *({SUMS} & files.keys()))})
        }
        known = tuple(fresh.get(file.path, file) for file in medium.document.files)
        files[MEDIUM_DOCUMENT].write_text(encode_readable(msgspec.structs.replace(medium.document, files=known)))
        efi = folder / "efi.img"
        source = medium.efi_image()
        efi.write_bytes(source.read_at(0, source.size))
        assert any(image.platform == Platform.BIOS for image in medium.volume.boot_images)
    code = folder / "code.img"
    with iso.open("rb") as stream:
        code.write_bytes(stream.read(440).ljust(512, b"\0"))
    files.pop("boot/boot.cat")
    boot = BootImages(code, files.pop("boot/grub/eltorito.img"), efi)
    write_iso(files, boot, out, runner)
    shutil.rmtree(folder)
    return out


def initrd_without(content: bytes, module: str) -> bytes:
    """An initrd in which nobody finds a module: its file has another name, and nothing else has changed."""
    changed = content.replace(f"/{module}.ko".encode(), f"/{module}.no".encode())
    assert changed != content, "the module lies in the initrd's plain part"
    assert not any(f"/{module}.ko" in file.name for file in read_initrd(changed, name="initrd"))
    return changed


def unsquash(iso: Path, pattern: str, folder: Path, runner: Runner) -> Path:
    """The one file of the base that matches, out of the ISO, flat in ``folder``."""
    folder.mkdir()
    squashfs = folder / "base.squashfs"
    with open_medium(iso) as medium:
        medium.extract("live/base.squashfs", squashfs)
    listing = runner.run(["unsquashfs", "-l", "-d", "", str(squashfs)]).stdout.splitlines()
    [name] = [line.strip("/") for line in listing if Path(line).match(pattern)]
    runner.run(["unsquashfs", "-q", "-n", "-d", str(folder / "tree"), str(squashfs), name])
    squashfs.unlink()
    target = folder / Path(name).name
    (folder / "tree" / name).rename(target)
    shutil.rmtree(folder / "tree")
    return target
