"""What a testcase says: the shape of one YAML document after its matrix has been written out, before anything is decided.

In: plain data from `harness.scenario.load`. Out: one frozen `Scenario` per combination of the matrix. Rule: a Scenario holds
the author's words only; defaults that depend on the testbed (addresses, tap names, QMP commands) belong to `harness.plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from harness.frozen import Frozen
from harness.scenario.debuggers import Debug, Debugged, Debugger
from harness.scenario.dumps import Dump, Dumped, DumpServer, WaitDump
from harness.scenario.expectations import (
    ArpAnswered,
    CarrierFollows,
    Counted,
    Delivered,
    Dropped,
    Echoed,
    Failover,
    Flooded,
    HeldBack,
    LostOnlyWhileDown,
    NotReceived,
    Parity,
    Polled,
    Pressed,
    QueuedDelivered,
    SawEvent,
)
from harness.scenario.injections import Filter, Flap, InjectLink, Remove, Restore
from harness.scenario.oracles import (
    Allow,
    BurstFailover,
    CountersAgree,
    Latency,
    QueueStopped,
    ReadCounters,
    ReadRecords,
    Sequence,
)
from harness.scenario.polling import ContextStep, Uninterrupted
from harness.scenario.words import FaultName, Id, Seconds, Way

Mac = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,55}$")]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
VerdictWord = Literal["PASS", "FAIL", "INCONCLUSIVE", "ERROR"]
FrameKind = Literal[
    "wrong-port", "wrong-address", "wrong-peer", "bad-udp-checksum", "bad-ip-checksum", "fragment", "arp-request"
]
FloodKind = Literal["arp-storm", "jumbo", "malformed", "netconsole-port"]  # harness.inject.flood
ChannelName = Literal["agent", "qemu-guest-agent", "ssh"]  # harness.testbed.channels
CrashWord = Literal[
    "sysrq-c", "sysrq-wire", "sysrq-break", "sysrq-keyboard", "nmi", "mce", "oom", "hung-task", "watchdog", "kill",
    "hardirq", "softirq", "napi", "lock", "tx-lock", "tx-lock-elsewhere", "console-lock", "rtnl", "bug", "null",
    "stack-overflow", "softlockup", "hardlockup",
]  # fmt: skip
WatchdogAction = Literal["inject-nmi", "reset", "poweroff", "shutdown", "pause", "debug", "none"]  # QMP's
BondMode = Literal["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"]


class Nic(Frozen):
    """One guest NIC, hot-plugged over QMP onto a tap of its own."""

    model: str  # a name of harness.plan.nics.MODELS; checked there so that the error can suggest
    mac: Mac | None = None
    mtu: Annotated[int, Field(ge=68, le=65535)] | None = None
    properties: dict[str, str | int | bool] = {}  # QEMU device properties, passed on as they are


class Bond(Frozen):
    """A bond that the guest's bonding driver makes of NICs listed above it."""

    mode: BondMode
    slaves: Annotated[tuple[Id, ...], Field(min_length=1, max_length=8, strict=False)]
    miimon: Annotated[int, Field(ge=0, le=10_000)] = 100
    options: dict[str, str | int] = {}  # further sysfs options of the bonding driver, e.g. lacp_rate


class GuestSsh(Frozen):
    """How a guest that we did not build is reached. Paths are relative to the testcase's folder."""

    user: str = "root"
    key: str  # path of the private key
    host_key: str  # `ssh-ed25519 AAAA...`, or the path of a .pub file


class Guest(Frozen):
    """The machine. `nics` and `bonds` share one space of names; an endpoint's `device` names one of them."""

    kernel: str = "debian-6.1"
    machine: Literal["pc", "q35"] = "pc"
    memory: Annotated[int, Field(ge=256, le=16384)] = 256  # MiB; less does not hold the guest's root file system
    smp: Annotated[int, Field(ge=1, le=8)] = 1
    nics: Annotated[dict[Id, Nic], Field(min_length=1, max_length=8)]
    bonds: dict[Id, Bond] = {}
    channel: ChannelName = "agent"  # what sets bonds up and runs commands; events come from our agent in any case
    disk: str | None = (
        None  # a qcow2 or raw image that boots by itself, instead of `kernel` and the guest that we build
    )
    ssh: GuestSsh | None = None  # with `disk`, and only there
    capture: bool = False  # a capture kernel is loaded, which a panic starts; `dump` and `debugger` imply it
    watchdog: WatchdogAction | None = None  # an i6300esb that our agent feeds, and what QEMU does when it starves
    sysctl: dict[str, str | int] = {}  # e.g. kernel.unknown_nmi_panic: 1
    modules: dict[
        ModuleName, dict[str, str | int | bool]
    ] = {}  # loaded anew with these parameters, before any NIC is there


class Endpoint(Frozen):
    """One end of a UDP flow. Two endpoints, one per side, name each other through `peer`."""

    at: Literal["guest", "host"]
    stack: Literal["kernel", "netpoll", "pmd"]  # the kernel's netconsole, our stack over its drivers, or over our own
    device: Id  # a NIC or a bond of the guest; on the host: the tap(s) behind it
    peer: Id
    ip: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    extended: bool = False  # kernel netconsole only: extended headers
    on_drop: Literal["record", "queue"] = "record"  # our stack only, as all that follows: what the drop routine does
    driver: Literal["af_packet", "ring"] = (
        "af_packet"  # a call a frame, or TPACKET rings with the fewest TX descriptors
    )
    sndbuf: Annotated[int, Field(ge=1, le=1 << 30)] | None = None  # bytes; the kernel doubles it, to 4608 at least
    echo: bool = False  # its rx_hook sends each datagram back
    trap: bool = False  # netpoll_set_trap(): ARP is answered, and whatever is not netpoll's is eaten
    sysrq: bool = False  # its rx_hook hands letters to /proc/sysrq-trigger, from its peer only

    @property
    def ours(self) -> bool:
        """On our stack, whosoever drives the NIC."""
        return self.stack != "kernel"


class Send(Frozen):
    """Numbered messages from an endpoint: datagrams from our stack, /dev/kmsg lines for the kernel's netconsole."""

    from_: Id = Field(alias="from")
    count: Count
    size: Annotated[tuple[int, int], Field(strict=False)] = (18, 960)  # bytes, lowest and highest; fits both stacks
    interval: Annotated[float, Field(ge=0, le=60)] = 0  # seconds between two messages
    seed: int = 1
    background: bool = False  # go on with the next step while this sends
    label: Id | None = None  # name for `wait: {sent: LABEL}`; default: the endpoint's name


class Fault(Frozen):
    """Something goes wrong with a NIC that we serve ourselves (`model: tg3`): from `begin` until `end`; docs/tg3.md says what."""

    nic: Id
    begin: FaultName | None = None
    end: FaultName | None = None
    chance: Annotated[float, Field(ge=0, le=1)] = 1  # frames only
    seconds: Annotated[float, Field(ge=0, le=4)] = 0  # delay and slow only
    direction: Way = "both"  # frames only; seen from the guest


class WaitCarrier(Frozen):
    carrier: Id
    state: Literal["down", "up"]
    within: Seconds = 15


class WaitEvent(Frozen):
    event: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]+$")]  # a QMP event, e.g. GUEST_PANICKED
    within: Seconds = 30


class WaitConsole(Frozen):
    console: str  # a regular expression searched in each console line
    within: Seconds = 30


class WaitReceived(Frozen):
    received: Id  # an endpoint
    count: Count
    within: Seconds = 30


class WaitSent(Frozen):
    sent: Id  # the label of a background send
    within: Seconds = 30


class WaitStopped(Frozen):
    """Our stack's endpoint has handed at least `count` messages to its drop routine."""

    dropped: Id
    count: Count = 1
    within: Seconds = 30


class WaitQueue(Frozen):
    """A TX queue of the guest's kernel is stopped, or was and takes frames again."""

    queue: Id  # a NIC
    state: Literal["stopped", "woken"]
    within: Seconds = 15


class Frames(Frozen):
    """Raw frames from a host endpoint that its peer's client must leave alone; `kind` says what is wrong with them."""

    from_: Id = Field(alias="from")
    kind: FrameKind
    count: Annotated[int, Field(ge=1, le=1000)] = 10
    label: Id | None = None  # default: the kind


class FloodStep(Frozen):
    """Traffic towards a NIC that belongs to no endpoint, from here until the case ends. `to`: whose flow it bothers."""

    to: Id  # an endpoint in the guest
    kind: FloodKind
    rate: Annotated[int, Field(ge=1, le=5000)] = 500  # frames a second
    seed: int = 1


class Reader(Frozen):
    """Whoever reads what the NIC sends, on a wire of datagram sockets, stops, or goes on: QEMU cannot get rid of a frame meanwhile."""

    nic: Id
    state: Literal["stopped", "running"]


class Keys(Frozen):
    """Letters to a guest endpoint with `sysrq: true`, as one datagram. `forge`: with somebody else's address, port or MAC."""

    from_: Id = Field(alias="from")
    keys: Annotated[str, StringConstraints(pattern=r"^[chlmpqstw]{1,8}$")]  # whose answer on the console is known
    forge: Literal["ip", "port", "mac"] | None = None


class Crash(Frozen):
    how: CrashWord
    from_: Id | None = Field(default=None, alias="from")  # sysrq-wire only: the host endpoint that sends the letter c
    within: Seconds = 30  # until the console shows the end of the panic


class MachineStep(Frozen):
    """QMP stop and cont; or our agent no longer feeds the watchdog, whose action is one that the guest outlives."""

    do: Literal["pause", "resume", "starve"]


class Run(Frozen):
    """A command in the guest; its exit status must be 0 unless `may_fail`."""

    argv: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    within: Seconds = 15
    may_fail: bool = False


WAITS: dict[str, type[Frozen]] = {
    "carrier": WaitCarrier,
    "event": WaitEvent,
    "console": WaitConsole,
    "received": WaitReceived,
    "sent": WaitSent,
    "dropped": WaitStopped,
    "queue": WaitQueue,
    "dump": WaitDump,
}


def wait_kind(value: Any) -> str | None:
    """Which of WAITS this is: the one whose naming key is present; None when none is."""
    if isinstance(value, dict):
        return next((kind for kind in WAITS if kind in value), None)
    return next((kind for kind, model in WAITS.items() if isinstance(value, model)), None)


Wait = Annotated[
    Annotated[WaitCarrier, Tag("carrier")]
    | Annotated[WaitEvent, Tag("event")]
    | Annotated[WaitConsole, Tag("console")]
    | Annotated[WaitReceived, Tag("received")]
    | Annotated[WaitSent, Tag("sent")]
    | Annotated[WaitStopped, Tag("dropped")]
    | Annotated[WaitQueue, Tag("queue")]
    | Annotated[WaitDump, Tag("dump")],
    Discriminator(wait_kind),
]


class Step(Frozen):
    """One step: exactly one of the keys is given (the loader says so with a position when not)."""

    send: Send | None = None
    inject: InjectLink | None = None
    flap: Flap | None = None
    remove: Remove | None = None
    restore: Restore | None = None
    filter: Filter | None = None
    fault: Fault | None = None
    wait: Wait | None = None
    frames: Frames | None = None
    flood: FloodStep | None = None
    reader: Reader | None = None
    keys: Keys | None = None
    crash: Crash | None = None
    machine: MachineStep | None = None
    dump_server: DumpServer | None = None
    debug: Debug | None = None
    run: Run | None = None
    records: ReadRecords | None = None
    counters: ReadCounters | None = None
    context: ContextStep | None = None


class Expect(Frozen):
    """One expectation: exactly one of the keys is given."""

    delivered: Delivered | None = None
    parity: Parity | None = None
    event: SawEvent | None = None
    carrier_follows: CarrierFollows | None = None
    dropped: Dropped | None = None
    queued_delivered: QueuedDelivered | None = None
    lost_only_while_down: LostOnlyWhileDown | None = None
    failover: Failover | None = None
    counted: Counted | None = None
    polled: Polled | None = None
    not_received: NotReceived | None = None
    arp_answered: ArpAnswered | None = None
    echoed: Echoed | None = None
    pressed: Pressed | None = None
    flooded: Flooded | None = None
    latency: Latency | None = None
    held_back: HeldBack | None = None
    sequence: Sequence | None = None
    counters_agree: CountersAgree | None = None
    queue_stopped: QueueStopped | None = None
    burst_failover: BurstFailover | None = None
    dumped: Dumped | None = None
    debugged: Debugged | None = None
    uninterrupted: Uninterrupted | None = None


def agrees(wanted: str, value: str | None) -> bool:
    """`wanted` is a value, a pattern of them (`virtio-net*`), or `not` and one of these."""
    word = wanted.removeprefix("not ")
    return value is not None and fnmatchcase(value, word) == (word == wanted)


class KnownBug(Frozen):
    """A verdict that is expected for now: pytest's strict xfail. `when` is matched against the case's matrix parameters
    and against `kernel`; every key must match. `checks` fail with it, or are not reached where it is INCONCLUSIVE: those and
    no others, so that it hides nothing else. A bug that chance provokes has a `console` line or a stopped `queue` that tells, and without that there is none."""

    when: dict[str, str]
    console: str | None = None  # a regular expression: the bug shows where the console has it, and nowhere else
    queue: Literal["driver", "stack", "any"] | None = (
        None  # the bug shows where a TX queue was last seen stopped by this
    )
    by_chance: bool = False  # with INCONCLUSIVE: whether it is provoked is chance; where it is, all must hold
    verdict: VerdictWord
    checks: Annotated[
        tuple[str, ...], Field(strict=False)
    ] = ()  # empty: whichever; only in plans from before it was asked
    reason: Annotated[str, StringConstraints(min_length=10)]

    def applies(self, case: Mapping[str, str], but: str = "") -> bool:
        """To a combination of the matrix, with its kernel? The key `but` is left out of account."""
        return all(agrees(wanted, case.get(key)) for key, wanted in self.when.items() if key != but)

    @property
    def chance(self) -> bool:
        """Does it come and go, from run to run?"""
        return self.by_chance or self.console is not None or self.queue is not None


MARKS = {"long": "a testcase of many cases or kernels, for a run that has the time; -m 'not long' leaves it out"}
"""What a testcase may be marked with, and what pytest says of it."""


class Scenario(Frozen):
    """One case: a testcase file with one value chosen for each matrix axis."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_./-]*$")]
    about: Annotated[str, StringConstraints(min_length=10)]
    params: dict[str, str] = {}  # the chosen value of each axis, as text; filled by the loader
    guest: Guest
    endpoints: dict[Id, Endpoint] = {}
    dump: Dump | None = None
    debugger: Debugger | None = None
    steps: Annotated[tuple[Step, ...], Field(min_length=1, strict=False)]
    expect: Annotated[tuple[Expect, ...], Field(min_length=1, strict=False)]
    known_bugs: Annotated[tuple[KnownBug, ...], Field(strict=False)] = ()
    allow: Annotated[tuple[Allow, ...], Field(strict=False)] = ()
    marks: Annotated[tuple[Literal["long"], ...], Field(strict=False)] = ()  # pytest's: -m long, -m "not long"
    timeout: Seconds = 120

    @property
    def case(self) -> str:
        """`name[axis=value,...]`: what pytest, reports and folders call this case."""
        axes = ",".join(f"{axis}={value}" for axis, value in self.params.items())
        return f"{self.name}[{axes}]" if axes else self.name
