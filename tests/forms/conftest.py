"""What this ring shares with the boot ring: the source systems, a repository with both, the tools it needs."""

from tests.boot.conftest import bios_source, ending, lab, runner, tools, uefi_source, work

__all__ = ["bios_source", "ending", "lab", "runner", "tools", "uefi_source", "work"]
