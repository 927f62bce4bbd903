"""The nodes by which fstab and crypttab call devices of containers: names that stay from boot to boot."""

from collections.abc import Iterator

from images.model.layout import Layout
from images.model.stack import Array, Luks


def stable_nodes(layout: Layout) -> dict[str, str]:
    """Device ids by node: ``/dev/mapper/vg-lv``, ``/dev/vg/lv``, ``/dev/mapper/name`` of LUKS, ``/dev/md/name``."""
    return dict(_nodes(layout))


def _nodes(layout: Layout) -> Iterator[tuple[str, str]]:
    for container in layout.containers:
        if isinstance(container, Array):
            # The name without the home host, as udev links it (mdadm's udev-md-raid-arrays.rules).
            if name := container.name.rpartition(":")[2]:
                yield f"/dev/md/{name}", container.id
        elif isinstance(container, Luks):
            if container.name:
                yield f"/dev/mapper/{container.name}", container.id
        else:
            for volume in container.volumes:
                yield f"/dev/{container.name}/{volume.name}", volume.id
                yield f"/dev/mapper/{mapper_name(container.name)}-{mapper_name(volume.name)}", volume.id


def mapper_name(name: str) -> str:
    """A name as LVM puts it into one of the device mapper: hyphens doubled."""
    return name.replace("-", "--")
