"""How a bond of Linux's bonding driver is set up, as a list: what our agent does, and other channels do from outside.

In: mode, slaves and options. Out: the steps, in order. The one rule: there is one order, whoever takes the steps, so that a case may
choose the channel and nothing else changes (Documentation/networking/bonding.rst, "Configuring Bonding Manually via Sysfs").

The bond goes up after its slaves are in it: bond_open() ends the agg_select_timer that bond_3ad_initialize() starts with the first
slave, else 802.3ad has no aggregator for 8 s. Options that name a slave come last, since it must be one by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

NAMES_A_SLAVE = ("primary", "active_slave")


class Step(NamedTuple):
    """`knob` of the bond's sysfs folder gets `value`; without a knob, interface `value` goes up or down."""

    value: str
    knob: str = ""
    up: bool = True


def steps(bond: str, mode: str, slaves: Sequence[str], miimon: int, options: Mapping[str, str | int]) -> Iterator[Step]:
    """What makes a fresh bond carry frames; `slaves`, and options in NAMES_A_SLAVE, are names of interfaces."""
    yield Step(mode, "mode")
    yield Step(str(miimon), "miimon")
    for name, value in options.items():
        if name not in NAMES_A_SLAVE:
            yield Step(str(value), name)
    for slave in slaves:
        yield Step(slave, up=False)  # the driver refuses one that is up
        yield Step(f"+{slave}", "slaves")
    yield Step(bond)
    for name in NAMES_A_SLAVE:
        if name in options:
            yield Step(str(options[name]), name)
