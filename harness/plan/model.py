"""A plan: everything that a run of one case will do, decided before anything is started.

In: a `Scenario` and the images it needs. Out: a frozen `Plan` that is shown by `netpoll-harness explain`, saved beside the
evidence as plan.json, interpreted action by action by `harness.act`, and read by the judge. Rule: nothing later decides;
whoever holds the plan can say which QMP command and which guest request follows which.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from harness.frozen import Frozen
from harness.plan.drivers import DriverBug
from harness.scenario.model import ChannelName, Expect, KnownBug, Scenario
from harness.scenario.words import Way

Wires = Literal["tap", "dgram"]  # what joins guest and host


class DiskPlan(Frozen):
    """A guest that we did not build. Paths as they are to be opened; `host_key` is a public key or the path of one."""

    path: str
    user: str
    key: str
    host_key: str


class MachinePlan(Frozen):
    """What a RAM template is made of: two cases with equal MachinePlans are restored from the same template."""

    kernel: str
    machine: Literal["pc", "q35"]
    memory: int  # MiB
    smp: int
    cmdline: str  # the guest kernel's command line
    capture: bool = False  # a crash kernel is loaded into the template
    disk: DiskPlan | None = None  # boots by itself; `kernel` and `cmdline` are its own then


class NicPlan(Frozen):
    """One guest NIC and the tap behind it."""

    id: str
    model: str  # the word in the testcase
    device: str  # QEMU's device name
    driver: str  # the Linux driver expected to bind
    mac: str
    tap: str  # interface name in the run's namespace, or what the socket is called that stands for it
    bus: str | None = None  # QEMU bus to plug into; None: the machine's default
    addr: str | None = None  # its slot there; None: the first that is free
    mtu: int | None = None


class StreamPlan(Frozen):
    """Numbered messages that one `send` step makes: enough for a receiver to regenerate each of them."""

    label: str
    count: int
    size_low: int  # bytes, both bounds included
    size_high: int
    seed: int


class EndpointPlan(Frozen):
    """One end of a flow with all its addresses. `devices`: NIC ids whose taps a host endpoint listens on (one for a NIC,
    all slaves for a bond, joined by our own bonding device); on the guest exactly one NIC or bond id.

    `extended`: the messages of this flow carry netconsole's extended header (set at both ends). `expects`: the
    datagram streams that the peer's stack will send here, in the order of the steps, and one's own where the peer echoes; none
    from the kernel's netconsole. `strange`: the payloads of frames that will come here and are not for this client."""

    id: str
    at: Literal["guest", "host"]
    stack: Literal["kernel", "netpoll", "pmd"]
    devices: tuple[str, ...] = Field(strict=False)
    peer: str
    local_ip: str
    local_port: int
    local_mac: str
    remote_ip: str
    remote_port: int
    remote_mac: str
    extended: bool = False
    on_drop: Literal["record", "queue"] = "record"
    bond_mode: str | None = None  # mode of the guest's bond, for a host endpoint behind one
    expects: tuple[StreamPlan, ...] = Field(default=(), strict=False)
    strange: tuple[StreamPlan, ...] = Field(default=(), strict=False)
    driver: Literal["af_packet", "ring"] = "af_packet"
    sndbuf: int | None = None
    echo: bool = False
    trap: bool = False
    sysrq: bool = False

    @property
    def ours(self) -> bool:
        """On our stack, whosoever drives the NIC."""
        return self.stack != "kernel"

    def options(self, dev: str) -> str:
        """The option string of netpoll_parse_options for this endpoint on interface `dev`."""
        return f"{self.local_port}@{self.local_ip}/{dev},{self.remote_port}@{self.remote_ip}/{self.remote_mac}"


class AddTap(Frozen):
    """Create tap `tap` in the run's namespace, up, no IP addresses, and open a capture on it. `mac`: the host endpoints' MAC,
    so that the host's kernel, too, takes frames to it for its own."""

    do: Literal["tap"] = "tap"
    tap: str
    mac: str | None = None


class AddWire(Frozen):
    """Join QEMU and our stack by datagram sockets with a capture between them: what stands for a tap where none can be had."""

    do: Literal["wire"] = "wire"
    wire: str


class Qmp(Frozen):
    """One QMP command. `fd_of`: pass the descriptor of this tap along (getfd)."""

    do: Literal["qmp"] = "qmp"
    execute: str
    arguments: dict[str, Any] = {}
    fd_of: str | None = None
    socket_of: str | None = None  # add `socket`: where the process that serves this NIC listens
    link: str | None = None  # the NIC whose link this is, so that evidence names it
    state: Literal["down", "up"] | None = None
    by: str = "cable"  # how the link is cut, or put back
    way: Way = "both"  # in which direction
    hold: float | None = None  # seconds: the filter holds frames and loses none
    crash: str | None = None  # the way to crash that this is: written down before it is done


class Type(Frozen):
    """Type this on the serial line."""

    do: Literal["type"] = "type"
    text: str


class Load(Frozen):
    """Bring npcrash.ko into the guest and load it; where it could not be built the case is inconclusive."""

    do: Literal["load"] = "load"


class Kill(Frozen):
    """SIGKILL to QEMU; written down as a crash before it is done."""

    do: Literal["kill"] = "kill"


class Gone(Frozen):
    """Wait until QEMU has come to its end, at most `within` seconds. From then on nobody can be asked anything."""

    do: Literal["gone"] = "gone"
    within: float


class Serve(Frozen):
    """Start the process that serves the device model of NIC `nic` on `tap`, ready for QEMU (harness.nic.serve)."""

    do: Literal["serve"] = "serve"
    nic: str
    tap: str
    mac: str
    seed: int = 0
    model: str = "tg3"  # of harness.nic.models


class Device(Frozen):
    """One command to the process that serves `nic`; `op` and `args` as in harness.nic.serve."""

    do: Literal["device"] = "device"
    nic: str
    op: Literal["link", "fault", "interrupt"]
    args: dict[str, Any] = {}
    state: Literal["down", "up"] | None = None  # a fault that is a filter: what it does to the link
    way: Way = "both"  # in which direction
    hold: float | None = None  # seconds: it holds frames and loses none


class Ask(Frozen):
    """One request to the guest, answered within `within` seconds: by our agent, or `via` another channel (run, bond_create)."""

    do: Literal["agent"] = "agent"
    via: ChannelName = "agent"
    op: str
    args: dict[str, Any] = {}
    within: float = 15
    link: str | None = None  # the NIC whose link this changes, so that evidence names it
    state: Literal["down", "up"] | None = None
    by: str = "guest"


class TapLink(Frozen):
    """The host's tap loses its carrier or gets it back (TUNSETCARRIER), or is deleted."""

    do: Literal["tap_link"] = "tap_link"
    nic: str
    tap: str
    state: Literal["down", "up", "gone"]


class Flapping(Frozen):
    """`out` and `back`, `times` times: the link is up for `up` seconds, then down for `down` seconds, and up at the end."""

    do: Literal["flapping"] = "flapping"
    nic: str
    out: Qmp | Device
    back: Qmp | Device
    up: float
    down: float
    times: int
    background: bool


class Host(Frozen):
    """One operation of an endpoint on the host's side; the same names and arguments as the agent's."""

    do: Literal["host"] = "host"
    op: str
    args: dict[str, Any] = {}


class Await(Frozen):
    """Wait until evidence shows `what` (one of the keys below), at most `within` seconds.

    `required`: the case cannot go on without it (a NIC that never gets carrier): ERROR. Otherwise the time-out is
    evidence that the judge reads (a packet that never came).
    """

    do: Literal["await"] = "await"
    what: Literal[
        "carrier", "event", "console", "received", "sent", "dropped", "panic", "text", "unplugged", "queue", "dump"
    ]
    of: str  # NIC id, QEMU's device, event name, regular expression, endpoint id, send label; what a dump has come to
    state: Literal["down", "up", "stopped", "woken"] | None = None  # carrier and queue only
    count: int = 1  # received, dropped and unplugged only; of a dump: bytes
    text: str | None = None  # text only: what a message received at endpoint `of` contains
    within: float = 15
    required: bool = False


class Arm(Frozen):
    """Do `action` not now, but once the `line`-th line of the panic has been seen: on the console, or as a frame of one of `flows`
    (source and destination, address and port each) from the guest on the tap of `nic`. `step`: which one of the testcase it is."""

    do: Literal["arm"] = "arm"
    step: int
    line: int
    seen: Literal["console", "wire"]
    nic: str
    flows: tuple[tuple[str, int, str, int], ...] = Field(default=(), strict=False)
    action: Annotated[Qmp | Device | TapLink, Field(discriminator="do")]


Action = Annotated[
    AddTap | AddWire | Serve | Device | Qmp | Type | Load | Kill | Gone | Ask | Host | Await | Arm | TapLink | Flapping,
    Field(discriminator="do"),
]


class Stage(Frozen):
    """The actions that one step of the testcase became; step 0 is the set-up that the testcase implies."""

    step: int
    title: str
    actions: tuple[Action, ...] = Field(strict=False)


class Plan(Frozen):
    """One case, ready to run."""

    case: str
    source: str  # file:line of the testcase
    includes: tuple[str, ...] = Field(default=(), strict=False)  # fragments that it takes parts from
    scenario: Scenario
    machine: MachinePlan
    nics: tuple[NicPlan, ...] = Field(strict=False)
    endpoints: tuple[EndpointPlan, ...] = Field(strict=False)
    stages: tuple[Stage, ...] = Field(strict=False)
    expect: tuple[Expect, ...] = Field(strict=False)
    expect_at: tuple[str, ...] = Field(
        default=(), strict=False
    )  # file:line of each; none in plans from before it was noted, or in Python
    known_bug: KnownBug | None = None
    driver_bugs: tuple[DriverBug, ...] = Field(default=(), strict=False)  # of its NICs' drivers, whatever the testcase
    timeout: float
    wires: Wires = "tap"
    options: tuple[str, ...] = Field(default=(), strict=False)  # of the command line that shaped this plan

    def nic(self, id: str) -> NicPlan:  # noqa: A002  (the testcase's own word)
        """The NIC with this id; KeyError if there is none."""
        for nic in self.nics:
            if nic.id == id:
                return nic
        raise KeyError(id)

    def endpoint(self, id: str) -> EndpointPlan:  # noqa: A002
        """The endpoint with this id; KeyError if there is none."""
        for endpoint in self.endpoints:
            if endpoint.id == id:
                return endpoint
        raise KeyError(id)
