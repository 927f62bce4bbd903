"""``liferaft tui``: the wizard."""

import click


@click.command("tui")
def command() -> int:
    """The restore wizard: repository, recovery point, target disk, plan, confirm, restore, reboot."""
    from rescue.tui.app import run_wizard

    return run_wizard()
