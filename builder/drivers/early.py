"""Which modules are needed early: before the live system's own layers are found, by the initrd.

The medium may hang on the very controller that a driver is for, or be fetched over the network card that it is for.
What a module is for shows in what it takes from the kernel: a driver of a disk controller registers a SCSI or ATA
host, a block device, an NVMe controller; one of a network card a network device; one of a USB controller an HCD.

Source: the kernel's exported symbols (6.1 to 6.16): drivers/scsi/hosts.c, drivers/ata/libata-core.c, block/genhd.c,
drivers/nvme/host/core.c, net/core/dev.c, drivers/usb/core/hcd.c, drivers/mmc/core/host.c, drivers/pci/probe.c.
"""

from builder.drivers.kernel_module import KernelModule

_REGISTERS = frozenset(
    {
        "scsi_host_alloc",
        "scsi_add_host_with_dma",
        "ata_host_alloc",
        "ata_host_alloc_pinfo",
        "ata_host_activate",
        "ata_pci_bmdma_init_one",
        "ata_pci_sff_init_one",
        "ahci_init_controller",
        "__blk_mq_alloc_disk",
        "__blk_alloc_disk",
        "device_add_disk",
        "nvme_init_ctrl",
        "register_netdev",
        "register_netdevice",
        "usbnet_probe",
        "phy_drivers_register",
        "usb_add_hcd",
        "usb_hcd_pci_probe",
        "xhci_gen_setup",
        "usb_stor_probe1",
        "mmc_alloc_host",
        "mmc_add_host",
        "devm_mmc_alloc_host",
        # Bridges behind which disks are, such as Intel's VMD.
        "pci_create_root_bus",
        "pci_host_probe",
    }
)
#: Kinds of modalias that hardware has; a module without any is loaded by someone who asks for it.
_BUSES = ("pci:", "usb:", "virtio:", "vmbus:", "xen:", "acpi", "platform:", "of:", "mdio:", "sdio:", "pcmcia:", "scsi:")
#: Wireless cards need keys and a program before they carry anything.
_NOT_EARLY = frozenset({"ieee80211_register_hw", "wiphy_register"})


def is_early(module: KernelModule) -> bool:
    """Whether the driver may be the one through which the medium is reached."""
    drives = any(alias.startswith(_BUSES) for alias in module.aliases)
    return drives and bool(module.imports & _REGISTERS) and not module.imports & _NOT_EARLY
