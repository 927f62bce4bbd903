"""What is remembered: which jobs did not come to their end, by the disks that they wrote."""

from images.model.layout import DiskIdentity
from images.model.machine import MachineDisk
from rescue.tui.decisions import Memory


def disk(node: str, serial: str = "", size: int = 1 << 40) -> MachineDisk:
    identity = DiskIdentity(model="DISK", serial=serial)
    return MachineDisk(node=node, identity=identity, size=size, sector_size=512, physical_sector_size=512)


def test_only_the_disk_that_was_finished_is_finished() -> None:
    memory, first, second = Memory(), disk("/dev/sda", "A"), disk("/dev/sdb", "B")
    memory.broke_off((first,), "The first broke off.")
    memory.broke_off((second,), "The second broke off.")
    assert memory.unfinished == ("The first broke off.", "The second broke off.")
    memory.restored((second,))
    assert memory.unfinished == ("The first broke off.",)
    memory.broke_off((first,), "It did so again.")
    assert memory.unfinished == ("It did so again.",)
    memory.finished((first,))
    assert memory.unfinished == ()


def test_a_job_with_several_disks_is_unfinished_until_each_of_them_is_written() -> None:
    memory, first, second = Memory(), disk("/dev/sda", "A"), disk("/dev/sdb", "B")
    memory.broke_off((first, second), "Both broke off.")
    assert memory.unfinished == ("Both broke off.",)
    memory.finished((first,))
    assert memory.unfinished == ("Both broke off.",)
    memory.finished((second,))
    assert memory.unfinished == ()


def test_disks_are_known_by_what_they_say_of_themselves() -> None:
    """DESIGN, 3.4. Of those that say nothing the node is all there is."""
    memory = Memory()
    memory.broke_off((disk("/dev/sda", "A"), disk("/dev/vda")), "It broke off.")
    memory.finished((disk("/dev/sda", "B"), disk("/dev/vdb")))
    assert memory.unfinished == ("It broke off.",)
    memory.finished((disk("/dev/sdc", "A"), disk("/dev/vda")))
    assert memory.unfinished == ()
