"""What the first screen says of the machine it runs on."""

import msgspec

from images.model.machine import MachineDevice
from rescue.tui.screens.start import describe
from tests.unit.rescue.tui.fakes import machine

VMD = "pci:v00008086d00009A0Bsv00000000sd00000000bc01sc04i00"


def test_a_controller_without_a_driver_is_said_and_nothing_else() -> None:
    idle = MachineDevice(bus="pci", address="0000:00:0e.0", modalias=VMD)
    driven = msgspec.structs.replace(idle, driver="vmd")
    assert len(describe(msgspec.structs.replace(machine(), devices=(driven,)))) == 3
    said = describe(msgspec.structs.replace(machine(), devices=(idle, driven)))
    assert said[3] == "No driver on this medium for: storage controller 8086:9a0b"
