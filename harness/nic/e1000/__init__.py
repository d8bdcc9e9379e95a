"""An Intel 82540EM, as its Software Developer's Manual (317453) and Linux' e1000 know it.

    TDT --chip--> transmit --offload--> Wire.send          Wire --chip.receive--> filter --receive--> ring
                     |                                                              |
                     +---------> interrupts (ICR, IMS, the pin) <-------------------+
    MDIC --> phy     EECD, EERD --> eeprom     counters, cleared when read --> stats

`chip.E1000` puts it together: a register table, and what a reset does.
"""
