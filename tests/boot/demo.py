"""The demonstration (``make demo``, ``python -m tests.boot.demo [--all]``): the whole road, visibly, with a timeline.

A real Debian is installed, booted, captured; its disk is lost; the rescue medium restores it onto a blank, larger disk
on another controller over HTTP; every file is compared; the machine boots from the disk alone. The last line is the
measured recovery time: from power-on of the rescue medium to the login prompt of the restored system, both in
software emulation.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from core.errors import LiferaftError
from core.process import Runner, SystemRunner
from core.units import format_duration, format_size
from tests.boot.ending import orderly_end
from tests.boot.machine import Controller, Drive, Firmware
from tests.boot.place import DEFAULT_ISO, missing
from tests.boot.restoring import (
    FINISHED,
    Lab,
    boot_restored,
    examine,
    job,
    liferaft,
    recipe_with_url,
    rescue_machine,
    restore_unattended,
)
from tests.boot.system import source
from tests.boot.timeline import Timeline


@dataclass(frozen=True)
class Show:
    """One demonstration: which firmware, which controller the new disk is on."""

    firmware: Firmware
    controller: Controller


SHOWS = (Show(Firmware.UEFI, Controller.AHCI), Show(Firmware.BIOS, Controller.NVME))


def demonstrate(show: Show, lab: Lab) -> float:
    """The whole road for one machine; returns its recovery time in seconds."""
    name, timeline = f"demo-{show.firmware}", lab.timeline
    timeline.say(f"a Debian 13 for {show.firmware}: installed with mmdebstrap, booted once (cached when made before)")
    system = source(show.firmware, lab.runner)
    timeline.say(f"the source ran on {system.check.driver}, machine-id {system.check.machine_id}")
    point, target, variables = lab.capture(system), lab.blank_disk(name), lab.folder / f"{name}.vars.fd"
    timeline.say(f"the disk is lost; the new one is blank, {format_size(target.stat().st_size)}, {show.controller}")
    with lab.serve(name) as server:
        url = server.publish("job.json", job(server, point, "poweroff"))
        medium = Drive(lab.medium(name, recipe_with_url(url)), Controller.CDROM)
        machine = rescue_machine(name, system, medium, target, show.controller, variables)
        recovered = restore_unattended(machine, server, timeline)
    examine(system, target, lab.runner, timeline)
    started = time.monotonic()
    boot_restored(name, system, target, show.controller, variables, timeline)
    recovery = recovered.seconds + time.monotonic() - started
    timeline.say(f"{show.firmware}: recovered in {format_duration(recovery)} (restore {recovered.result['seconds']} s)")
    return recovery


def build_default_medium(runner: Runner, timeline: Timeline) -> None:
    """The ISO of ``make iso``, unless it is there; the demonstration's own differs from it by one kernel parameter."""
    if DEFAULT_ISO.exists():
        timeline.say(f"the medium is {DEFAULT_ISO}, {format_size(DEFAULT_ISO.stat().st_size)}")
        return
    DEFAULT_ISO.parent.mkdir(exist_ok=True)
    timeline.say("building the rescue medium (some minutes)")
    liferaft(["build", "-o", str(DEFAULT_ISO)], runner, success=FINISHED)
    timeline.say(f"built {DEFAULT_ISO}, {format_size(DEFAULT_ISO.stat().st_size)}")


def main() -> int:
    """Run the demonstration; 0 when every machine came back."""
    parser = argparse.ArgumentParser(prog="python -m tests.boot.demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="the BIOS machine too (about five minutes more)")
    shows = SHOWS if parser.parse_args().all else SHOWS[:1]
    if lacks := missing():
        print("The demonstration cannot run: " + "; ".join(lacks), file=sys.stderr)
        return 3
    runner, timeline = SystemRunner(), Timeline()
    with orderly_end(), tempfile.TemporaryDirectory(prefix="liferaft-demo-", dir="/var/tmp") as folder:
        lab = Lab(Path(folder), runner, timeline)
        try:
            build_default_medium(runner, timeline)
            times = [demonstrate(show, lab) for show in shows]
        except (LiferaftError, AssertionError) as error:
            print(f"\nThe machine did not come back: {error}", file=sys.stderr)
            print(*getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
            return 1
    print()
    for show, seconds in zip(shows, times, strict=True):
        print(f"Measured recovery time, {show.firmware} to {show.controller}: {format_duration(seconds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
