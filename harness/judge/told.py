"""What endpoints tell beside messages: counters, strange frames, echoes, sysrq keys, answers to ARP. Plain values.

In: nothing. Out: the types that `harness.judge.records` fills. Rule: a name for each kind of event, as the catalogue has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Counters(NamedTuple):
    """A client's NetpollStats, and `dev_` with the name of each of its device's counters."""

    t: float
    endpoint: str
    values: Mapping[str, int]


class Interrupts(NamedTuple):
    """What the interrupts of a NIC of our drivers are set to, at the chip and at the bus, and how many have come in all."""

    t: float
    nic: str
    chip: bool
    bus: bool
    told: int


class Strange(NamedTuple):
    """`total` frames that are not for the peer's client have been handed over by time `t`; `what` is wrong with them."""

    t: float
    endpoint: str
    label: str
    what: str
    total: int


class Passed(NamedTuple):
    """A strange frame came out behind netpoll, at the protocol stack."""

    t: float
    endpoint: str
    label: str
    seq: int | None
    ok: bool


class Answer(NamedTuple):
    """An endpoint heard `mac` say, to the MAC `to`, that it has `ip`."""

    t: float
    endpoint: str
    ip: str
    mac: str
    to: str


class Echo(NamedTuple):
    """An rx_hook sent its datagram back; `inside`: while the poll or interrupt routine that handed it over was running."""

    t: float
    endpoint: str
    label: str | None
    seq: int | None
    sent: bool
    inside: bool


class Keys(NamedTuple):
    """An endpoint sent sysrq keys; `forge` says which part of the sender was somebody else's."""

    t: float
    endpoint: str
    keys: str
    forge: str | None


class Key(NamedTuple):
    """The guest's client was about to press `key`; None: it refused a datagram."""

    t: float
    endpoint: str
    key: str | None


class KernelRecord(NamedTuple):
    """One record of the guest's kernel log, as /dev/kmsg gives it."""

    level: int
    seq: int
    text: str


class IfStats(NamedTuple):
    """What a kernel has counted: the guest's of a NIC or bond, the host's of a NIC's tap. Read one after the other in the `seconds` before `t`."""

    t: float
    side: str
    device: str
    values: dict[str, int]
    seconds: float = 0.0

    @property
    def began(self) -> float:
        return self.t - self.seconds
