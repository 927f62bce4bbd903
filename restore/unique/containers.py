"""Containers with identities of their own: arrays, LUKS containers and volume groups as a clone's plan makes them.

An array and a group are made anew anyway, with the UUIDs that their steps name: these are others here. A LUKS container
keeps its header and key slots, and gets its UUID when it is opened. What lies on the devices is renewed as a filesystem
on a partition is. Names stay: a clone has groups and arrays of the same names.
"""

import secrets
import string
import uuid

import msgspec

from images.model.filesystem import Filesystem
from images.model.layout import Layout
from images.model.stack import Array, Container, Luks, VolumeGroup
from images.stack.lvm_text import parse_group
from restore.unique.references import rewrite
from restore.unique.renewal import Renewal, Sort, filesystem_renewals

#: LVM's identifiers: 32 letters and digits in groups (lib/uuid/uuid.c, id_create and id_write_format).
_LVM_LETTERS = string.digits + string.ascii_letters
_LVM_GROUPS = (6, 4, 4, 4, 4, 4, 6)


def renewed_containers(layout: Layout) -> tuple[tuple[Container, ...], tuple[Renewal, ...]]:
    """The containers of a layout with new identities, their filesystems' included, and what became what."""
    made: list[Container] = []
    renewals: list[Renewal] = []
    for container in layout.containers:
        if isinstance(container, Array):
            made.append(_array(container, renewals))
        elif isinstance(container, Luks):
            made.append(_luks(container, renewals))
        else:
            made.append(_group(container, renewals))
    return tuple(made), tuple(renewals)


def _array(array: Array, renewals: list[Renewal]) -> Array:
    digits = secrets.token_hex(16)
    # As mdadm spells it, colons between words of 32 bits.
    new = ":".join(digits[at : at + 8] for at in range(0, 32, 8))
    renewals.append(Renewal(sort=Sort.ARRAY, disk=array.id, number=0, old=array.uuid, new=new))
    return msgspec.structs.replace(array, uuid=new, filesystem=_held(array.id, array.filesystem, renewals))


def _luks(luks: Luks, renewals: list[Renewal]) -> Luks:
    new = str(uuid.uuid4())
    renewal = Renewal(sort=Sort.LUKS, disk=luks.id, number=0, old=luks.uuid, new=new)
    renewals.append(renewal)
    # Installers name the mapping after the UUID (luks-UUID). It must be what crypttab and fstab say when they are
    # rewritten, so the same rule decides.
    name = rewrite(luks.name.encode(), (renewal,)).decode()
    return msgspec.structs.replace(luks, uuid=new, name=name, filesystem=_held(luks.id, luks.filesystem, renewals))


def _group(group: VolumeGroup, renewals: list[Renewal]) -> VolumeGroup:
    parsed = parse_group(group.backup)
    old = [group.uuid, *(member.uuid for member in group.members)]
    # Hidden volumes are in the text alone.
    old += [volume.uuid for volume in parsed.logical]
    new = {found: _lvm_identifier() for found in old}
    renewals += [Renewal(sort=Sort.LVM, disk=group.id, number=0, old=was, new=now) for was, now in new.items()]
    backup = group.backup
    for was, now in new.items():
        backup = backup.replace(f'"{was}"', f'"{now}"')
    return msgspec.structs.replace(
        group,
        uuid=new[group.uuid],
        members=tuple(msgspec.structs.replace(member, uuid=new[member.uuid]) for member in group.members),
        volumes=tuple(
            msgspec.structs.replace(
                volume, uuid=new[volume.uuid], filesystem=_held(volume.id, volume.filesystem, renewals)
            )
            for volume in group.volumes
        ),
        backup=backup,
    )


def _held(device: str, filesystem: Filesystem | None, renewals: list[Renewal]) -> Filesystem | None:
    """What lies on a device, with its new identity."""
    for renewal in filesystem_renewals(device, 0, filesystem):
        renewals.append(renewal)
        assert filesystem is not None
        return msgspec.structs.replace(filesystem, uuid=renewal.new)
    return filesystem


def _lvm_identifier() -> str:
    return "-".join("".join(secrets.choice(_LVM_LETTERS) for _ in range(size)) for size in _LVM_GROUPS)
