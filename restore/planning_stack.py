"""The stack's part of a plan: from the containers of a recovery point to the steps that make them again."""

from collections.abc import Sequence

from images.model.layout import Layout


def stack_reasons(layout: Layout) -> Sequence[str]:
    """Why the containers of a layout cannot be made again."""
    return [
        f"{container.id} is a container that this version does not make again" for container in layout.containers
    ]
