"""A virtio-net device, modern PCI: virtio 1.2 with one queue pair and a control queue.

    common, isr, notify, device areas of BAR 4 --transport--> queue (split ring) --device--> Wire.send
    Wire --device.receive--> filter --> queue, merged buffers

`transport.Transport` knows virtio and no network, `device.VirtioNet` the reverse.
"""
