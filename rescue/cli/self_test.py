"""``liferaft self-test``: whether the medium that this system runs from is whole, and what the machine has."""

import contextlib
import datetime
from pathlib import Path

import click

from core.documents import encode_readable
from core.errors import UsageError
from core.events import Event
from core.process import SystemRunner
from images.probe import probe_machine
from rescue.cli.terminal import TerminalSink, json_option, open_sink, progress_option
from rescue.jobs.self_test import MEDIUM, SelfTestResult, result_line, run_self_test


@click.command("self-test")
@click.option(
    "--console",
    "consoles",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also write the result to this terminal device.",
)
@json_option
@progress_option
def command(consoles: tuple[Path, ...], as_json: bool, progress: str) -> int:
    """Test the rescue medium on the machine that runs from it.

    Reads every file of the medium and compares it with its digest; says how much RAM there is and how much is needed,
    which consoles, network cards and disks are seen. Writes nothing. The boot menu has an entry for it: start the
    medium once a year, choose the self-test, and read the last word.

    Ends with one line LIFERAFT-RESULT {json}; exit code 5 when something is bad.
    """
    if not MEDIUM.is_dir():
        raise UsageError(
            "This system does not run from a rescue medium.",
            hint="liferaft inspect ISO looks at one that does not run.",
        )
    runner = SystemRunner()
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(console.open("w", encoding="utf-8")) for console in consoles]
        sinks = [open_sink(progress), *(TerminalSink(stream) for stream in streams)]
        for stream in streams:
            stream.write("liferaft self-test: reading the whole medium\r\n")
            stream.flush()

        def tell(event: Event) -> None:
            for sink in sinks:
                sink(event)

        result = run_self_test(tell, lambda: probe_machine(runner), now=datetime.datetime.now(datetime.UTC))
        text = _describe(result)
        for stream in streams:
            # A terminal in raw mode does not return the carriage by itself.
            stream.write("\r\n" + text.replace("\n", "\r\n") + "\r\n")
    click.echo(encode_readable(result) if as_json else text, nl=not as_json)
    return result.exit_code


def _describe(result: SelfTestResult) -> str:
    lines = ["liferaft self-test", ""]
    lines += [f"  {line.grade:4}  {line.what:15} {line.said}" for line in result.lines]
    word = "BAD: do not rely on this medium" if result.exit_code else "GOOD"
    lines += [
        "",
        result_line(result),
        "",
        f"  The result: {word}.",
        "  Ctrl-Alt-Del starts the machine again; Alt-F2 has a shell.",
    ]
    return "\n".join(lines)
