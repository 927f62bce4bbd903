"""Programs of another processor: whether this machine runs them, which building a medium for it needs.

Installing packages and compiling run the medium's own programs. For another architecture the kernel gives them to an
emulator (binfmt_misc with QEMU's user mode emulation); nothing here registers one.
"""

import os
import struct

from builder.architecture import Architecture, traits_of
from builder.cache import Cache
from core.errors import ProcessError, RefusedError
from core.process import Runner

#: exit(0) by each kernel's own numbers, and the ELF number of the machine (elf(5); Linux, syscall(2)).
_EXIT = {
    # mov eax, 60; xor edi, edi; syscall
    Architecture.AMD64: (62, bytes.fromhex("b83c00000031ff0f05")),
    # mov x8, #93; mov x0, #0; svc #0
    Architecture.ARM64: (183, bytes.fromhex("a80b80d2000080d2010000d4")),
}
_ADDRESS = 0x400000


def is_foreign(architecture: Architecture) -> bool:
    """Whether this machine has another processor."""
    return os.uname().machine != traits_of(architecture).machine


def refuse_foreign(architecture: Architecture, cache: Cache, runner: Runner) -> None:
    """Refuse to run programs of ``architecture`` where the kernel has nobody to give them to: found out with one.

    It is run inside another root, as those of the medium are: there the emulator is found only where its entry says
    that the kernel opens it beforehand (binfmt_misc's flag F). Needs root, as what comes after it does.

    Raises:
        RefusedError: they do not run.
    """
    if not is_foreign(architecture):
        return
    with cache.scratch("foreign") as folder:
        program = folder / "exit"
        program.write_bytes(smallest_program(architecture))
        program.chmod(0o755)
        try:
            runner.run(["chroot", str(folder), "/exit"], timeout=60)
        except ProcessError:
            raise RefusedError(
                f"This machine ({os.uname().machine}) cannot run programs of {architecture}, which building a medium "
                "for it takes.",
                hint="Install qemu-user-static (Debian 13: qemu-user-binfmt) and register it: systemctl restart "
                "systemd-binfmt; or build on such a machine.",
            ) from None


def bootstrap_words(architecture: Architecture) -> tuple[str, ...]:
    """mmdebstrap's words for ``architecture``. Its own look at the emulator asks for another package (arch-test);
    :func:`refuse_foreign` has looked."""
    return (f"--architectures={architecture}", "--skip=check/qemu") if is_foreign(architecture) else ()


def smallest_program(architecture: Architecture) -> bytes:
    """A program (ELF, 64 bit, static) that ends with exit code 0."""
    machine, code = _EXIT[architecture]
    head, segment = 64, 56
    size = head + segment + len(code)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    entry = _ADDRESS + head + segment
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, machine, 1, entry, head, 0, 0, head, segment, 1, 0, 0, 0)
    loaded = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
    return header + loaded + code
