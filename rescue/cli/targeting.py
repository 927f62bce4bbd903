"""What the commands that restore share: naming targets, and asking about an assignment that is not clear."""

import sys
from collections.abc import Callable
from typing import TypeVar

import click

from restore.planning.matching import Matching, score_lines

T = TypeVar("T")


def target_options(command: Callable[..., T]) -> Callable[..., T]:
    """``--target``, ``--skip`` and ``--match``: gives a command ``targets``, ``skip`` and ``match``."""
    for option in (
        click.option(
            "--match",
            is_flag=True,
            help="Without --target: find the targets by WWN, serial number, model and size; ask when it is not clear.",
        ),
        click.option(
            "--skip", multiple=True, metavar="DISK", help="Leave out a disk of the recovery point (disk1); repeatable."
        ),
        click.option(
            "--target",
            "targets",
            multiple=True,
            metavar="[DISK=]TARGET",
            help="A disk (its node, serial number or WWN) or a raw image file that is there; once for each disk of the "
            "recovery point. disk0= before it says what goes there; otherwise the disks are matched.",
        ),
    ):
        command = option(command)
    return command


def ask_matching() -> Callable[[Matching], bool] | None:
    """Shows an assignment that is not clear, with its scores, and asks; None when there is no terminal."""

    def ask(found: Matching) -> bool:
        click.echo("It is not clear which disk goes where:", err=True)
        for line in (*found.doubts, *score_lines(found.scores)):
            click.echo(f"  {line}", err=True)
        proposed = ", ".join(f"{pair.disk} to {pair.candidate.node}" for pair in found.pairs)
        return click.confirm(f"Plan it as {proposed}?", err=True)

    return ask if sys.stdin.isatty() else None
