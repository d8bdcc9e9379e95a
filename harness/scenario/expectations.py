"""Expectations about what was said, heard, dropped and told: the shape of most of `expect`.

In: an author's words, as plain data. Out: one frozen model per expectation. Rule: what holds and what was reached is decided in
`harness.judge`, by a module of the expectation's name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from harness.frozen import Frozen
from harness.scenario.words import FaultName, Id, Seconds


class Delivered(Frozen):
    """Every message sent by `from` reached `to` once, byte-exact, in order, with right checksums on the wire.

    Kernel netconsole as `from`: each numbered /dev/kmsg line, compared as text with the serial console's line.
    `except_dropped`: what the sender's drop routine was given and did not queue need not arrive, but must be named and must
    not arrive either. `except_cut`: what was handed over while the link of that NIC was down and the guest could not yet know it need not
    arrive; from then on the drop routine has the word. `at_least_sent`: condition to be reached, else INCONCLUSIVE. `but_last`: so many of the very last may be
    missing where the machine was killed, since its NIC took them with it.
    """

    from_: Id = Field(alias="from")
    to: Id
    in_order: bool = True
    except_dropped: bool = False
    except_cut: Id | None = None
    but_last: Annotated[int, Field(ge=0, le=1000)] = 0
    at_least_sent: Annotated[int, Field(ge=1)] = 1


class Parity(Frozen):
    """From the crash on, each line of the serial console up to `until` is on the wire at `to`, in order, once.

    Not reached unless the console shows a panic of at least `at_least` lines. With `except_cut` the lines sent while the link of that NIC was down are lost, and
    no others; not reached unless it was cut in the middle: a line came before, and one was sent meanwhile. With `behind` not reached unless a line that
    the kernel printed before had not left when the panic began.
    """

    to: Id
    until: str = "end Kernel panic"
    behind: str | None = None  # a regular expression
    except_cut: Id | None = None
    at_least: Annotated[int, Field(ge=1)] = 1


class SawEvent(Frozen):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]+$")]


class CarrierFollows(Frozen):
    """After each change of `link` the guest's carrier is the same within `within` seconds; with `seen: false` it never takes
    notice, which is how QEMU's model of some NICs is. Not reached where a change stood for less than that and was not seen."""

    link: Id
    seen: bool = True
    within: Seconds = 4


class Dropped(Frozen):
    """While `link` was down the drop routine of `by` was given at least `at_least` messages; each is named, none arrived
    at the peer unless queued. Not reached unless the guest saw carrier go down and messages were sent meanwhile."""

    by: Id
    link: Id
    at_least: Annotated[int, Field(ge=1)] = 1


class QueuedDelivered(Frozen):
    """netpoll_queue held at least `at_least` messages while `link` was down, and each of them arrived after it came up,
    in order; what did not fit the queue is named."""

    by: Id
    link: Id
    at_least: Annotated[int, Field(ge=1)] = 1


class LostOnlyWhileDown(Frozen):
    """Messages from `from` are lost only if they were sent while `link` was down; the lost are listed.

    Not reached unless carrier was seen down and at least `at_least_sent` messages were sent before, during and after.
    """

    from_: Id = Field(alias="from")
    to: Id
    link: Id
    at_least_sent: Annotated[int, Field(ge=1)] = 5


class Failover(Frozen):
    """After the link of `cut` went down, frames of `from` leave over other slaves of `bond` and none over `cut`; the gap
    between the last frame before and the first after is at most `within` seconds. Not reached unless frames left over
    `cut` before, the guest saw its carrier go down, and messages were sent afterwards."""

    bond: Id
    cut: Id
    from_: Id = Field(alias="from")
    within: Seconds = 5


class Polled(Frozen):
    """The queue of `by` stopped while it sent, and netpoll polled and tried again until each message was gone: at least
    `at_least` sends did so, no message was dropped for want of retries, and every one arrived at the peer."""

    by: Id
    at_least: Annotated[int, Field(ge=1)] = 1


class NotReceived(Frozen):
    """Of the `frames` that were sent to `at`, at least `at_least` in all, none reached its rx_hook. `fate`: each was passed on to
    the protocol stack, once and unanswered; or eaten, because the endpoint traps. Whatever was sent to it properly arrived."""

    at: Id
    fate: Literal["passed_on", "eaten"] = "passed_on"
    at_least: Annotated[int, Field(ge=1)] = 1


class ArpAnswered(Frozen):
    """Each ARP request for the address of `by`, at least `at_least`, is answered once, with its MAC, to who asked."""

    by: Id
    at_least: Annotated[int, Field(ge=1)] = 1


class Echoed(Frozen):
    """Each datagram that `by` was sent came back once, byte-exact and in order, sent from inside its rx_hook. Not reached
    unless at least `at_least` were sent in the receive path."""

    by: Id
    in_order: bool = True
    at_least: Annotated[int, Field(ge=1)] = 1


class Pressed(Frozen):
    """The console acknowledges each key that the peer of `at` sent, once and in order, and none that came from anybody else."""

    at: Id


class Counted(Frozen):
    """The model of `nic` counted `what` at least `at_least` times: a fault's name (how often it struck) or something that the
    device did. Not reached otherwise: it says whether a case has provoked what it is about."""

    nic: Id
    what: FaultName | Literal["doorbells", "tx_frames", "tx_completed", "rx_frames", "msi", "intx", "tx_without_link"]
    at_least: Annotated[int, Field(ge=1)] = 1


class HeldBack(Frozen):
    """At least `at_least` messages of `from` were sent while the reader of `nic` had stopped, and each arrived at `to` afterwards."""

    from_: Id = Field(alias="from")
    to: Id
    nic: Id
    at_least: Annotated[int, Field(ge=1)] = 1


class Flooded(Frozen):
    """At least `at_least` frames came at `nic` between the crash and the end of the panic. Not reached otherwise: it says whether a
    case has provoked what it is about."""

    nic: Id
    at_least: Annotated[int, Field(ge=1)] = 1
