"""Which liferaft this is."""

from importlib.metadata import version


def tool_name() -> str:
    """``liferaft 0.1.0``, as manifests and reports name their writer."""
    return f"liferaft {version('liferaft')}"
