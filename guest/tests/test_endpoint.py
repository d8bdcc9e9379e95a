"""Endpoints against each other over a veth in a namespace of their own: what each hook does, and what it tells.

`guest` is on one end as in a guest, `host` on the other as on a tap; the same plans as harness.plan makes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import guest.client
from guest.endpoint import Endpoints
from guest.netpoll.clients.sysrq import SysrqTrigger
from guest.netpoll.core import Netpoll
from guest.netpoll.send import netpoll_send_udp
from guest.strange import KINDS
from guest.tests.kernel_end import KERNEL_MAC, OUR_MAC, OURS, THEIRS, KernelEnd

pytestmark = pytest.mark.netns
WITHIN = 20.0
NOBODY = {"ip": "203.0.113.254", "port": 40000, "mac": "52:54:00:73:74:01"}
GOOD = {"label": "good", "count": 20, "size_low": 18, "size_high": 1400, "seed": 1}
ODD = {"label": "odd", "count": 5, "size_low": 64, "size_high": 512, "seed": 99}
SHAPE = {key: value for key, value in GOOD.items() if key != "label"} | {"interval": 0.0}

Event = tuple[str, dict[str, Any]]


class Told:
    """Events of one side, to wait for."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def emit(self, kind: str, /, **keys: Any) -> None:
        with self._changed:
            self.events.append((kind, keys))
            self._changed.notify_all()

    def of(self, kind: str) -> list[dict[str, Any]]:
        with self._changed:
            return [keys for each, keys in self.events if each == kind]

    def wait(self, kind: str, count: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + WITHIN
        with self._changed:
            while sum(each == kind for each, _ in self.events) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"{count} x {kind} awaited, there are {Counter(each for each, _ in self.events)}"
                self._changed.wait(left)
        return self.of(kind)


def plan(name: str, **keys: Any) -> dict[str, Any]:
    """The plan of `g`, the guest's endpoint, or `h`, the host's."""
    guest, host = ("198.51.100.10", 6665, OUR_MAC), ("198.51.100.100", 6666, KERNEL_MAC)
    local, remote = (guest, host) if name == "g" else (host, guest)
    ends = {"local_ip": local[0], "local_port": local[1], "local_mac": local[2]}
    ends |= {"remote_ip": remote[0], "remote_port": remote[1], "remote_mac": remote[2]}
    rest = {"on_drop": "record", "bond_mode": None, "driver": "af_packet", "sndbuf": None}
    hooks = {"echo": False, "trap": False, "sysrq": False, "expects": [], "strange": []}
    return {"id": name, **ends, **rest, **hooks, **keys}


class Pair:
    """Both sides, and what they tell."""

    def __init__(self) -> None:
        self.guest, self.host = Told(), Told()
        self.guests, self.hosts = Endpoints(self.guest.emit), Endpoints(self.host.emit)


@contextmanager
def pair(netns: KernelEnd, guest_keys: dict[str, Any], host_keys: dict[str, Any] | None = None) -> Iterator[Pair]:
    assert netns.index(OURS) != netns.index(THEIRS), "the links that both are on"
    made = Pair()
    made.hosts.open(plan("h", **(host_keys or {})), [THEIRS])
    made.guests.open(plan("g", **guest_keys), [OURS])
    try:
        yield made
    finally:
        made.guests.close()
        made.hosts.close()


@pytest.mark.parametrize("driver", ["af_packet", "ring"])
def test_numbered_datagrams_arrive_and_are_told_by_number(netns: KernelEnd, driver: str) -> None:
    with pair(netns, {"expects": [GOOD], "driver": driver}) as both:
        both.hosts.send("h", "good", **SHAPE)
        heard = both.guest.wait("rx", 20)
    assert [(each["label"], each["seq"], each["ok"], each["why"]) for each in heard] == [
        ("good", seq, True, "ok") for seq in range(20)
    ]


@pytest.mark.parametrize("driver", ["af_packet", "ring"])
def test_the_other_way_round_through_the_driver_that_was_asked_for(netns: KernelEnd, driver: str) -> None:
    with pair(netns, {"driver": driver, "sndbuf": None}, {"expects": [GOOD]}) as both:
        both.guests.send("g", "good", **SHAPE)
        assert [each["seq"] for each in both.host.wait("rx", 20)] == list(range(20))
        assert both.guest.of("sent")[-1]["last"] == 19
        assert both.guest.of("done") == [{"endpoint": "g", "label": "good", "count": 20}]


@pytest.mark.parametrize("kind", KINDS)
def test_a_strange_frame_is_passed_on_once_and_not_received(netns: KernelEnd, kind: str) -> None:
    with pair(netns, {"expects": [GOOD], "strange": [ODD]}) as both:
        both.hosts.frames("h", what=kind, stream=ODD, other=NOBODY)
        both.hosts.send("h", "good", **SHAPE)
        both.guest.wait("rx", 20)
        passed = both.guest.wait("passed", 5)
        assert both.host.of("frames") == [{"endpoint": "h", "label": "odd", "what": kind, "count": 5}]
    assert [(each["label"], each["seq"], each["ok"]) for each in passed] == [("odd", seq, True) for seq in range(5)]
    assert {each["label"] for each in both.guest.of("rx")} == {"good"}
    assert both.host.of("arp") == [], "nobody traps, nobody answers"


def test_whoever_traps_answers_arp_and_eats_the_rest(netns: KernelEnd) -> None:
    odd = {**ODD, "label": "port", "seed": 98}
    with pair(netns, {"expects": [GOOD], "strange": [ODD, odd], "trap": True}) as both:
        both.hosts.frames("h", what="arp-request", stream=ODD, other=NOBODY)
        both.hosts.frames("h", what="wrong-port", stream=odd, other=NOBODY)
        both.hosts.send("h", "good", **SHAPE)
        both.guest.wait("rx", 20)
        answers = both.host.wait("arp", 5)
    assert answers == [{"endpoint": "h", "ip": "198.51.100.10", "mac": OUR_MAC, "to": KERNEL_MAC}] * 5
    assert both.guest.of("passed") == []
    assert both.guest.of("counters")[-1]["values"]["dev_rx_trapped"] >= 5


def test_an_echo_is_sent_from_inside_the_receive_path(netns: KernelEnd) -> None:
    with pair(netns, {"expects": [GOOD], "echo": True}, {"expects": [GOOD]}) as both:
        both.hosts.send("h", "good", **SHAPE)
        back = both.host.wait("rx", 20)
        echoes = both.guest.wait("echo", 20)
    assert [(each["label"], each["seq"], each["ok"]) for each in back] == [("good", seq, True) for seq in range(20)]
    assert echoes == [{"endpoint": "g", "label": "good", "seq": n, "sent": True, "inside": True} for n in range(20)]


def test_counters_come_after_what_a_hook_is_in_the_middle_of_telling(
    netns: KernelEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The echo is on the wire, the peer has it, the run ends and asks: the hook has not said yet that it sent."""
    go_on = threading.Event()

    def send_slowly(np: Netpoll, data: bytes) -> int:
        status = netpoll_send_udp(np, data)
        assert np.name == "h" or go_on.wait(WITHIN)
        return status

    monkeypatch.setattr("guest.client.netpoll_send_udp", send_slowly)
    with pair(netns, {"expects": [GOOD], "echo": True}, {"expects": [GOOD]}) as both:
        both.hosts.send("h", "good", **SHAPE)
        both.host.wait("rx", 1)
        asker = threading.Thread(target=both.guests.counters)
        asker.start()
        asker.join(0.1)  # time to be wrong in; being right takes none
        go_on.set()
        asker.join()
        kinds = [kind for kind, _ in both.guest.events]
        [counters] = both.guest.of("counters")
    assert kinds.index("echo") < kinds.index("counters")
    assert counters["values"]["sent"] >= 1


@pytest.fixture
def trigger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A file in place of /proc/sysrq-trigger, and what was written to it."""
    path = tmp_path / "sysrq-trigger"
    path.touch()
    monkeypatch.setattr(guest.client, "SysrqTrigger", partial(SysrqTrigger, path))
    return path.read_text


def test_the_peers_letters_are_pressed_and_told_first(netns: KernelEnd, trigger: Callable[[], str]) -> None:
    with pair(netns, {"sysrq": True}) as both:
        both.hosts.keys("h", keys="hm", part=None, other=NOBODY)
        keys = both.guest.wait("key", 2)
        both.guest.wait("rx", 1)
    assert [(each["key"], each["why"]) for each in keys] == [("h", "pressed"), ("m", "pressed")]
    assert trigger() == "hm"
    assert both.host.of("keys") == [{"endpoint": "h", "keys": "hm", "forge": None}]


@pytest.mark.parametrize(("part", "reaches_the_hook"), [("ip", False), ("port", True), ("mac", True)])
def test_a_strangers_letters_press_nothing(
    netns: KernelEnd, trigger: Callable[[], str], part: str, reaches_the_hook: bool
) -> None:
    """netpoll_rx() looks at the address, as the kernel's did; port and MAC are the client's to look at."""
    with pair(netns, {"sysrq": True}) as both:
        both.hosts.keys("h", keys="c", part=part, other=NOBODY)
        both.hosts.keys("h", keys="h", part=None, other=NOBODY)
        keys = both.guest.wait("key", 1 + reaches_the_hook)
    refused = [{"endpoint": "g", "key": None, "why": "refused"}] * reaches_the_hook
    assert keys == [*refused, {"endpoint": "g", "key": "h", "why": "pressed"}]
    assert trigger() == "h"


def test_foreign_and_broken_datagrams_have_no_number(netns: KernelEnd) -> None:
    unannounced = {**GOOD, "seed": 5}
    with pair(netns, {"expects": [GOOD]}) as both:
        both.hosts.send("h", "other", **{**SHAPE, "seed": unannounced["seed"], "count": 1})
        heard = both.guest.wait("rx", 1)
    assert heard == [{"endpoint": "g", "label": None, "seq": None, "ok": False, "why": "foreign"}]


def test_a_loop_that_dies_of_a_defect_says_so(netns: KernelEnd) -> None:
    def broken(_skb: object) -> None:
        raise ArithmeticError("seeded defect")

    with pair(netns, {"expects": [GOOD], "strange": [ODD]}) as both:
        both.guests._net.ptype_all.append(broken)
        both.hosts.frames("h", what="wrong-port", stream={**ODD, "count": 1}, other=NOBODY)
        done = both.guest.wait("done", 1)
    assert done == [{"endpoint": "", "label": "the loop", "count": -1, "error": "ArithmeticError: seeded defect"}]


def test_a_send_of_an_unknown_endpoint_is_told(netns: KernelEnd) -> None:
    with pair(netns, {}) as both:
        both.guests.send("nobody", "x", **SHAPE)
    assert both.guest.of("done")[0]["error"] == "KeyError: 'nobody'"


def test_a_queue_that_stops_and_is_woken_is_told_by_the_testcases_name(netns: KernelEnd) -> None:
    with pair(netns, {"devices": ["n0"]}) as both:
        netns.down(THEIRS)
        both.guest.wait("queue", 1)
        netns.up(THEIRS)
        told = both.guest.wait("queue", 2)
    assert told == [{"nic": "n0", "state": state, "by": "netpoll"} for state in ("stopped", "woken")]
    assert both.host.of("queue") == [], "the host's plan of this test names no devices"
