"""Firmware to packages. What is expected is what Debian 13's Contents say of non-free-firmware."""

import pytest

from builder.drivers.firmware_package import package_of


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("bnx2/bnx2-mips-09-6.2.1b.fw", "firmware-bnx2"),
        ("tigon/tg3_tso.bin", "firmware-misc-nonfree"),
        ("rtl_nic/rtl8125b-2.fw", "firmware-realtek"),
        ("ql2500_fw.bin", "firmware-qlogic"),
        ("intel/ice/ddp/ice.pkg", "firmware-intel-misc"),
        ("iwlwifi-cc-a0-77.ucode", "firmware-iwlwifi"),
        # Folders with several packages in them: brcm has four.
        ("brcm/brcmfmac43430-sdio.bin", "firmware-brcm80211"),
        ("brcm/BCM-0bb4-0306.hcd", "firmware-misc-nonfree"),
        # As brcmfmac asks for it: any board's.
        ("brcm/brcmfmac43430-sdio.*.txt", "firmware-brcm80211"),
        ("brcm/nobody-has-this.bin", ""),
        ("nobody/has-this.bin", ""),
    ],
)
def test_packages(name: str, package: str) -> None:
    assert package_of(name) == package
