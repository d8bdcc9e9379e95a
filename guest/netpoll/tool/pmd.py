"""`pmd`: which devices our own drivers could drive, who has them, and giving back those whose taker was killed.

In: `list`, or `release` with PCI addresses. Out: a line for each device. The rule it keeps: `release` touches nothing that a living
process drives.
"""

from __future__ import annotations

import argparse

from guest.netpoll.drivers.pmd.claim import driver_of, interfaces, release, taken
from guest.netpoll.drivers.pmd.probe import candidates


def pmd(arguments: argparse.Namespace) -> bool:
    """The command. Raises BusError (an OSError): a device that nobody took, or whose taker lives."""
    if arguments.what == "list":
        _list()
        return True
    left = arguments.addresses or [record.address for record, alive in taken() if not alive]
    for address in left:
        record = release(address)
        print(f"{address}: given back to {record.driver or 'nobody'}")
    return True


def _list() -> None:
    on_file = {record.address: (record, alive) for record, alive in taken()}
    for address in sorted({*candidates(), *on_file}):
        words = [address, driver_of(address) or "no driver", *interfaces(address)]
        if address in on_file:
            record, alive = on_file[address]
            words.append(f"taken from {record.driver or 'nobody'}" + ("" if alive else ", its taker is gone"))
        print("  ".join(words))
