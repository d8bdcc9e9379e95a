"""The server side of the vfio-user protocol: PCI devices in Python for a guest in QEMU (`-device vfio-user-pci`, 10.1 or newer).

    socket --serve.Connection--> session.Session --> device.PciDevice --> config space, register tables, your model
                                                       |
                                                       +--> dma.DmaMemory (guest RAM), irq.Interrupts (eventfds)

A device of one's own is a `PciDevice` with a `ConfigSpace` and BARs; `harness.vfio_user.example` is a complete one in sixty lines,
`harness.nic.tg3` a real one. `serve.Loop` and `serve.Listener` give it to a QEMU. Rule of the package: whatever a client sends, a
server neither dies nor waits for it.
"""
