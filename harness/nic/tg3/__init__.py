"""Broadcom BCM5787 as Linux' tg3 knows it.

    doorbell --chip--> transmit --offload--> Wire.send          Wire --chip.receive--> filter --receive--> ring
                          |                                                              |
                          +----> status (status block, interrupts, coalescing) <---------+
    MII --> phy     NVRAM registers --> nvram     counters --> stats     what goes wrong on purpose --> faults

`chip.Tg3` puts it together: a register table, the chip's memory, and what a reset does.
"""
