"""Expectations about when messages came, and the invariants that a testcase lets off: the shape of `latency` and `allow`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from harness.frozen import Frozen
from harness.scenario.words import Id, Seconds


class Latency(Frozen):
    """How long messages from `from` took to the wire at `to`: none longer than `most`, 99 of 100 not longer than `p99` seconds. What
    never came has no latency: that is for `delivered` and `parity`. Not reached unless some message took `at_least` seconds."""

    from_: Id = Field(alias="from")
    to: Id
    at_least: Annotated[float, Field(ge=0, le=3600)] = 0
    p99: Seconds | None = None
    most: Seconds | None = None


class ReadRecords(Frozen):
    """The agent reads /dev/kmsg: every record that the kernel's log still holds, with its number."""

    by: Literal["agent"] = "agent"


class ReadCounters(Frozen):
    """The agent reads what the guest's kernel has counted on each NIC and bond, the harness what the host's has on each tap."""

    by: Literal["both"] = "both"


class CountersAgree(Frozen):
    """The guest's counter of frames sent over the NIC or bond `of`, the taps' counters and the captures agree, as last read by a `counters`
    step. Not reached unless the guest counted at least `at_least`."""

    of: Id
    at_least: Annotated[int, Field(ge=1)] = 1


class BurstFailover(Frozen):
    """The link of slave `cut` goes in the middle of a panic: within `within` seconds `bond` carries every line again to `to`. Not reached
    unless lines of the panic left over `cut` before, and some were printed after."""

    bond: Id
    cut: Id
    to: Id
    within: Seconds = 1


class QueueStopped(Frozen):
    """The TX queue of NIC or bond `nic` stopped at least `at_least` times: the guest kernel's own queue, or that of our stack's device. It
    is about what was provoked; with `woken` it must have been woken after the last stop."""

    nic: Id
    by: Literal["kernel", "netpoll"] = "kernel"
    at_least: Annotated[int, Field(ge=1)] = 1
    woken: bool = False


class Sequence(Frozen):
    """Each record of /dev/kmsg from the first numbered message of `from` to the last that a `records` step has read is on the wire at
    `to`, once, in order, whole and with the same text, by the number in its extended header."""

    from_: Id = Field(alias="from")
    to: Id
    at_least: Annotated[int, Field(ge=1)] = 1
    fragments: Annotated[int, Field(ge=0)] = 0


class Allow(Frozen):
    """An invariant that this testcase breaks on purpose, and why. Everything it finds is told all the same."""

    invariant: Literal["checksums", "sources", "macs", "silence", "kernel"]
    reason: Annotated[str, StringConstraints(min_length=10)]
