"""gdb on a crashed guest: what the capture kernel is told to serve, and what the host does.

In: a `Scenario` with `debugger`. Out: actions of the set-up and of a `debug` step. Rule: gdb is the stock one and speaks through the host's
kernel, so that tap has an address, from the step on; everything else is as for a dump.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.plan.addresses import nics_behind, tap_name
from harness.plan.dump import CLIENT_IP, SERVER_IP, command_line
from harness.plan.model import Action, Ask, Await, Host
from harness.scenario.debuggers import Debug
from harness.scenario.model import Scenario

PORT, PEER_PORT = 6443, 6442  # guest.netpoll.clients.gdb.server
SERVING = r"^netpoll: serving "  # the tool's word on the console


def set_up(scenario: Scenario) -> Iterator[Action]:
    """The capture kernel's command line."""
    if (debugger := scenario.debugger) is not None:
        words = ("gdbstub", f"{PORT}@{CLIENT_IP}/DEV,{PEER_PORT}@{SERVER_IP}/", "--trap")
        yield Ask(op="capture_arm", args={"cmdline": command_line(scenario, debugger.device, words)})


def debug_step(scenario: Scenario, step: Debug) -> tuple[str, tuple[Action, ...]]:
    """Title and actions: wait until the stub serves, then one session of gdb's."""
    assert scenario.debugger is not None  # the checks of the scenario
    (nic,) = nics_behind(scenario, scenario.debugger.device)
    args = {
        "tap": tap_name(nic, list(scenario.guest.nics).index(nic)),
        "address": SERVER_IP,
        "target": f"udp:{CLIENT_IP}:{PORT}",
        "within": step.within,
    }
    serving = Await(what="console", of=SERVING, within=step.within)
    return "gdb attaches to the crashed kernel", (serving, Host(op="debug", args=args))
