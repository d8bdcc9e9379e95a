"""What a testcase can do to links and NICs: the shape of the steps `inject`, `flap`, `remove`, `restore` and `filter`.

Rule: a step says what is done and at which end of the cable; what the guest can see of it is not said here but observed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.frozen import Frozen
from harness.scenario.words import Id, Seconds, Way


class Burst(Frozen):
    """A place in the burst of lines of a panic that a later step brings about: right after the `line`-th line has been seen, on the
    serial console or as a netconsole frame on the tap of `nic` (default: the NIC that is injected into). Lines count from 1, from
    the crash on."""

    line: Annotated[int, Field(ge=1, le=1_000_000)]
    seen: Literal["console", "wire"]
    nic: Id | None = None


class InjectLink(Frozen):
    """A link goes down or comes up. `by`: `cable`, QMP set_link, as if the cable was pulled or put back; `tap`, the carrier of the
    host's tap (TUNSETCARRIER), which the guest cannot see; `guest`, `ip link set down` in the guest. `after`: not now, but in the
    middle of the panic."""

    link: Id
    state: Literal["down", "up"]
    by: Literal["cable", "tap", "guest"] = "cable"
    after: Burst | None = None


class Flap(Frozen):
    """The cable of `link` goes out and in `times` times: in each `period` seconds it is in for the share `duty`, then out.
    `background`: the steps go on meanwhile. The cable is in at the end."""

    link: Id
    period: Seconds
    duty: Annotated[float, Field(gt=0, lt=1)] = 0.5
    times: Annotated[int, Field(ge=1, le=10_000)] = 5
    background: bool = False


class Remove(Frozen):
    """A NIC or what belongs to it is taken away. `unplug`: device_del, the guest is asked; `rip`: the device is unrealized under its
    driver, as a card torn out; `release`: the bond gives its slave up; `tap`: the host's tap is deleted."""

    nic: Id
    how: Literal["unplug", "rip", "release", "tap"] = "unplug"


class Restore(Frozen):
    """What `remove` took away is put back: plugged in and set up anew, enslaved again. `netconsole`: who enables its targets again, we, or
    the kernel by itself, as the newest do."""

    nic: Id
    netconsole: Literal["enabled", "by-itself"] = "enabled"


class Filter(Frozen):
    """QEMU's own filters between NIC and tap: `lose` what goes this way, or `hold` it, to let it through each `seconds`. Without
    either the filter is taken away."""

    nic: Id
    lose: Way | None = None
    hold: Way | None = None
    seconds: Annotated[float, Field(gt=0, le=60)] | None = None
