"""The options of ``plan`` and ``restore`` that say how: growth, rules, table, identities, reading back, boot loader."""

import functools
from collections.abc import Callable
from typing import TypeVar

import click

from core.errors import UsageError
from rescue.jobs.restore import BootChoice, RestoreChoices
from restore.planning.rules import TableChoice, parse_rule

T = TypeVar("T")


def choice_options(command: Callable[..., T]) -> Callable[..., T]:
    """``--grow`` to ``--onto-source``: gives the command ``choices``, a RestoreChoices."""

    @click.option(
        "--grow", is_flag=True, help="Let the last data filesystem that can take the space a larger disk has."
    )
    @click.option("--grow-all", is_flag=True, help="Let all data filesystems that can share it, by their sizes.")
    @click.option(
        "--rule",
        "rules",
        multiple=True,
        metavar="N=RULE[:SIZE]|VG/LV=grow",
        help="What becomes of partition N (of one of several disks: disk1:N). keep: it stays where it is and as it "
        "is. grow: it shares the space that is left, or grows to SIZE. shrink: to SIZE, or as small as its content "
        "allows. move: the gap before it is closed. drop: it is left out. Without a rule it stays, and is moved or "
        "made smaller only if it must. Once for each: --rule 3=grow --rule 2=shrink:20G --rule 5=drop. A logical "
        "volume is named with its group, --rule vg0/home=grow: it takes the room that the group gains, and what the "
        "group lies on grows.",
    )
    @click.option(
        "--table",
        type=click.Choice([choice.value for choice in TableChoice]),
        default=TableChoice.KEEP.value,
        show_default=True,
        help="gpt: a dos partition table becomes a GPT, as disks beyond 2 TiB need.",
    )
    @click.option(
        "--unique",
        is_flag=True,
        help="For a clone that runs beside its source: new identities of disks, partitions and filesystems, a new "
        "machine-id and SSH host keys, and everything rewritten that refers to the old ones.",
    )
    @click.option(
        "--degraded",
        is_flag=True,
        help="Let RAID arrays come back without the members on disks (--skip) and partitions (--rule N=drop) that are "
        "left out, as far as their redundancy allows.",
    )
    @click.option("--no-verify", is_flag=True, help="Do not read back what was written.")
    @click.option(
        "--boot",
        type=click.Choice([choice.value for choice in BootChoice]),
        default=BootChoice.AUTO.value,
        show_default=True,
        help="Repair the boot loader for this machine's firmware (auto: not for image files), a named one, or not.",
    )
    @click.option("--onto-source", is_flag=True, help="Allow the disk the recovery point was taken from as target.")
    @functools.wraps(command)
    def with_choices(
        *words: object,
        grow: bool,
        grow_all: bool,
        rules: tuple[str, ...],
        table: str,
        unique: bool,
        degraded: bool,
        no_verify: bool,
        boot: str,
        onto_source: bool,
        **options: object,
    ) -> T:
        if grow and grow_all:
            raise UsageError("--grow and --grow-all say different things.", hint="Leave one of them out.")
        choices = RestoreChoices(
            grow=grow,
            grow_all=grow_all,
            rules=tuple(parse_rule(rule) for rule in rules),
            table=TableChoice(table),
            unique=unique,
            degraded=degraded,
            verify=not no_verify,
            boot=BootChoice(boot),
            onto_source=onto_source,
        )
        return command(*words, choices=choices, **options)

    return with_choices
