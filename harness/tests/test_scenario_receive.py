"""Keys of endpoints on our stack, steps `frames` and `keys`, and what is expected of them: contradictions and their remedies."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan.compile import compile_plan
from harness.plan.explain import explain
from harness.plan.model import Ask, Await, Host, Plan
from harness.scenario.load import load
from harness.tests.scenario_table import Row, problems_of, row

SENDER = "  sender: {at: guest, stack: netpoll, device: n0, peer: sink}"
SINK = "  sink: {at: host, stack: netpoll, device: n0, peer: sender}"
KERNEL = "  kernel: {at: guest, stack: kernel, device: bond0, peer: log}"
SEND = "- send: {from: sender, count: 10}"
CRASH = "- crash: {how: sysrq-c}"
DELIVERED = "- delivered: {from: sender, to: sink}"


def with_keys(line: str, keys: str) -> str:
    return line.replace("}", f", {keys}}}")


ENDPOINTS = [
    row(
        "our keys on the kernel's netconsole",
        KERNEL,
        with_keys(KERNEL, "echo: true, sndbuf: 5000"),
        "12:76: 'sndbuf' is a key of our stack, not of the kernel's netconsole; remove it",
        "12:64: 'echo' is a key of our stack, not of the kernel's netconsole; remove it",
    ),
    row(
        "guests' keys on the host",
        SINK,
        with_keys(SINK, "sndbuf: 5000, trap: true, sysrq: true"),
        "15:62: 'sink' is on a tap of the host, whose queue never stops; set it at the guest's endpoint",
        "15:76: 'sink' is on a tap of the host, where nobody is to be trapped; set it at the guest's endpoint",
        "15:88: 'sink' is on a tap of the host, whose keys nobody is to press; set it at the guest's endpoint",
    ),
    row(
        "both echo",
        f"{SENDER}\n{SINK}",
        f"{with_keys(SENDER, 'echo: true')}\n{with_keys(SINK, 'echo: true')}",
        "15:68: 'sink' and its peer 'sender' would send each datagram back for ever; let one of them echo",
        "17:18: 'sender' sends back what it is sent, so its own messages cannot be told from those; send from another endpoint",
    ),
    row(
        "an echo that sends",
        SENDER,
        with_keys(SENDER, "echo: true"),
        "17:18: 'sender' sends back what it is sent, so its own messages cannot be told from those; send from another endpoint",
    ),
    row(
        "an echo of keys",
        SINK,
        f"{SINK}\n  a: {{at: guest, stack: netpoll, device: n0, peer: b, echo: true, sysrq: true}}\n"
        "  b: {at: host, stack: netpoll, device: n0, peer: a}",
        "16:61: keys are pressed, not sent back; give each an endpoint of its own",
    ),
    row(
        "a ring with a socket buffer",
        SENDER,
        with_keys(SENDER, "driver: ring, sndbuf: 5000"),
        "14:77: a ring holds what its descriptors hold, whatever the socket's buffer; remove it, or the driver",
    ),
    row(
        "two drivers on one device",
        SINK,
        f"{SINK}\n  a: {{at: guest, stack: netpoll, device: n0, peer: b, driver: ring}}\n"
        "  b: {at: host, stack: netpoll, device: n0, peer: a}",
        "16:63: 'a' shares 'n0' with 'sender', which has another driver; give both the same",
    ),
    row(
        "no room at all",
        SENDER,
        with_keys(SENDER, "sndbuf: 0"),
        "14:71: 0 is out of range; it must be at least 1",
    ),
    row(
        "an unknown driver",
        SENDER,
        with_keys(SENDER, "driver: rings"),
        "14:71: 'rings' is not one of af_packet, ring; did you mean 'ring'?",
    ),
]

STEPS = [
    row(
        "frames from the guest",
        SEND,
        f"- frames: {{from: sender, kind: fragment}}\n  {SEND}",
        "17:20: 'sender' is in the guest; strange frames come from the host; name the host's endpoint",
    ),
    row(
        "frames to a netconsole",
        SEND,
        f"- frames: {{from: log, kind: fragment}}\n  {SEND}",
        "17:20: the peer of 'log' is the kernel's netconsole, which receives nothing; give 'kernel' stack: netpoll",
    ),
    row(
        "frames of an unknown kind",
        SEND,
        f"- frames: {{from: sink, kind: wrong-prot}}\n  {SEND}",
        "17:32: 'wrong-prot' is not one of wrong-port, wrong-address, wrong-peer, bad-udp-checksum, bad-ip-checksum, fragment, "
        "arp-request; did you mean 'wrong-port'?",
    ),
    row(
        "frames twice",
        SEND,
        f"- frames: {{from: sink, kind: fragment}}\n  - frames: {{from: sink, kind: fragment}}\n  {SEND}",
        "18:13: frames called 'fragment' come before; give these a label of their own",
    ),
    row(
        "frames called like a send",
        "- wait: {received: sink, count: 10}",
        "- frames: {from: sink, kind: fragment, label: sender}\n  - wait: {received: sink, count: 10}",
        "18:49: a send is called 'sender' too; give these a label of their own",
    ),
    row(
        "a send called like frames",
        SEND,
        f"- frames: {{from: sink, kind: fragment, label: sender}}\n  {SEND}",
        "18:11: a send called 'sender' comes before; give this one a label of its own",
    ),
    row(
        "keys to who presses none",
        SEND,
        f"- keys: {{from: sink, keys: h}}\n  {SEND}",
        "17:18: 'sender' presses no keys; write sysrq: true at endpoint 'sender'",
    ),
    row(
        "keys that nobody can answer for",
        SEND,
        f"- keys: {{from: sink, keys: b}}\n  {SEND}",
        "17:30: 'b' cannot be used here; use letters of h l m p q s t w, whose answer on the console is known, and c to forge or to crash",
    ),
    row(
        "a crash by wire from nobody",
        CRASH,
        "- crash: {how: sysrq-wire}",
        "21:12: nobody is named who sends the letter c; add from: and a host's endpoint",
    ),
    row(
        "a crash by wire to who presses no keys",
        CRASH,
        "- crash: {how: sysrq-wire, from: sink}",
        "21:36: 'sender' presses no keys; write sysrq: true at endpoint 'sender'",
    ),
    row(
        "another crash from somebody",
        CRASH,
        "- crash: {how: sysrq-c, from: sink}",
        "21:33: a crash by sysrq-c comes from no endpoint; remove it",
    ),
    row(
        "the dead receive nothing",
        CRASH,
        f"{CRASH}\n  - frames: {{from: sink, kind: fragment}}\n  - keys: {{from: sink, keys: h}}",
        "22:13: the guest is to be sent frames, but step 5 crashed the guest; move it before the crash",
        "23:11: keys are to be pressed, but step 5 crashed the guest; move it before the crash",
        "23:18: 'sender' presses no keys; write sysrq: true at endpoint 'sender'",
    ),
]

EXPECT = [
    row(
        "polled in a case that crashes",
        DELIVERED,
        "- polled: {by: sender}",
        "23:13: the counters of 'sender' are asked for at the end, when a step has crashed the guest; crash in another testcase",
    ),
    row(
        "polled by the host",
        DELIVERED,
        "- polled: {by: sink}",
        "23:13: the counters of 'sink' are asked for at the end, when a step has crashed the guest; crash in another testcase",
        "23:18: 'sink' is on a tap of the host, whose queue never stops; name the guest's endpoint",
        "23:18: no step sends from 'sink'; add a step `- send: {from: sink, ...}`",
    ),
    row(
        "polled more often than it sends",
        f"{CRASH}\nexpect:\n  {DELIVERED}\n  - parity: {{to: log}}",
        "- run: {argv: [ls]}\nexpect:\n  - polled: {by: sender, at_least: 11}",
        "23:13: at least 11 are asked for, but the steps send 10 from 'sender'; send more, or ask for fewer",
    ),
    row(
        "strange frames that nobody sends",
        DELIVERED,
        "- not_received: {at: sender}\n  - arp_answered: {by: sender}",
        "23:24: no step sends strange frames to 'sender'; add a step `- frames: {from: sink, kind: ...}`",
        "24:24: no step sends frames arp-request to 'sender'; add a step `- frames: {from: sink, kind: arp-request}`",
    ),
    row(
        "fewer frames than asked for, and nothing after them",
        f"{CRASH}\nexpect:\n  {DELIVERED}\n  - parity: {{to: log}}",
        "- frames: {from: sink, kind: fragment}\nexpect:\n  - not_received: {at: sender, at_least: 11, fate: eaten}",
        "23:19: at least 11 are asked for, but the steps send 10 strange frames to 'sender'; send more, or ask for fewer",
        "23:24: nothing is sent to 'sender' after the frames, so nothing shows that it was listening; add a step `- send: {from: sink, ...}` after them",
    ),
    row(
        "an echo where there is none",
        DELIVERED,
        "- echoed: {by: sender}",
        "23:18: 'sender' sends nothing back; write echo: true at endpoint 'sender'",
    ),
    row(
        "keys of who presses none",
        DELIVERED,
        "- pressed: {at: sender}",
        "23:19: 'sender' presses no keys; write sysrq: true at endpoint 'sender'",
    ),
    row(
        "unknown endpoints",
        DELIVERED,
        "- polled: {by: sendr}\n  - not_received: {at: sendr}\n  - arp_answered: {by: sendr}\n  - echoed: {by: sendr}\n  - pressed: {at: sendr}",
        *(
            f"{line}: 'sendr' is no endpoint; did you mean 'sender'?"
            for line in ("23:18", "24:24", "25:24", "26:18", "27:19")
        ),
    ),
]


@pytest.mark.parametrize("bad", [*ENDPOINTS, *STEPS, *EXPECT], ids=lambda bad: bad.id)
def test_what_cannot_be_is_refused(bad: Row, tmp_path: Path) -> None:
    assert sorted(problems_of(tmp_path, bad.old, bad.new)) == sorted(bad.problems)


CASE = """\
about: letters and strange frames go to endpoints that press keys and send back
guest:
  nics:
    n0: {model: e1000}
endpoints:
  keyboard: {at: guest, stack: netpoll, device: n0, peer: operator, sysrq: true, trap: true, sndbuf: 2304}
  operator: {at: host, stack: netpoll, device: n0, peer: keyboard}
  echo: {at: guest, stack: netpoll, device: n0, peer: pinger, echo: true, sndbuf: 2304}
  pinger: {at: host, stack: netpoll, device: n0, peer: echo}
steps:
  - keys: {from: operator, keys: hm}
  - keys: {from: operator, keys: c, forge: mac}
  - frames: {from: pinger, kind: wrong-port, count: 3}
  - frames: {from: pinger, kind: wrong-port, count: 4, label: again}
  - send: {from: pinger, count: 5}
  - wait: {received: pinger, count: 5}
  - run: {argv: [ls], within: 40}
  - crash: {how: sysrq-wire, from: operator}
expect:
  - pressed: {at: keyboard}
  - echoed: {by: echo}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    file = tmp_path / "case.yaml"
    file.write_text(CASE)
    (scenario,) = load(file)
    return compile_plan(scenario, "case.yaml:1")


def test_keys_and_frames_become_operations_of_the_host(plan: Plan) -> None:
    acts = [action for stage in plan.stages[1:] for action in stage.actions if isinstance(action, Host)]
    assert [action.op for action in acts] == ["np_keys", "np_keys", "np_frames", "np_frames", "np_send", "crash"]
    assert {key: acts[1].args[key] for key in ("endpoint", "keys", "part")} == {
        "endpoint": "operator", "keys": "c", "part": "mac"}  # fmt: skip
    assert [
        (action.args["what"], action.args["stream"]["count"], action.args["stream"]["label"]) for action in acts[2:4]
    ] == [
        ("wrong-port", 3, "wrong-port"),
        ("wrong-port", 4, "again"),
    ]


def test_a_crash_by_wire_is_the_letter_c_and_then_the_panic(plan: Plan) -> None:
    letter, panic = plan.stages[-1].actions
    assert isinstance(letter, Host)
    assert {key: letter.args[key] for key in ("how", "endpoint", "keys", "part")} == {
        "how": "sysrq-wire", "endpoint": "operator", "keys": "c", "part": None}  # fmt: skip
    assert isinstance(panic, Await)
    assert panic.what == "panic"


def test_nobody_is_an_address_that_no_endpoint_has(plan: Plan) -> None:
    other = plan.stages[1].actions[0].args["other"]  # type: ignore[union-attr]  # a Host, see above
    assert other["ip"] not in {end.local_ip for end in plan.endpoints}
    assert other["port"] not in {end.local_port for end in plan.endpoints}
    assert other["mac"] not in {end.local_mac for end in plan.endpoints}


def test_strange_streams_are_announced_and_none_is_like_another(plan: Plan) -> None:
    echo = plan.endpoint("echo")
    assert [(stream.label, stream.count) for stream in echo.strange] == [("wrong-port", 3), ("again", 4)]
    assert len({stream.seed for stream in (*echo.strange, *echo.expects)}) == 3
    assert [end.strange for end in plan.endpoints if end.id != "echo"] == [(), (), ()]


def test_who_is_sent_back_its_own_datagrams_expects_them(plan: Plan) -> None:
    assert [stream.label for stream in plan.endpoint("echo").expects] == ["pinger"]
    assert plan.endpoint("pinger").expects == plan.endpoint("echo").expects


def test_the_plan_says_in_words_what_an_endpoint_does(plan: Plan) -> None:
    said = explain(plan)
    assert "our stack, drop routine: record, socket buffer: 2304 bytes, traps, presses sysrq keys, 6665@" in said
    assert "our stack, drop routine: record, socket buffer: 2304 bytes, sends back what it is sent, 6667@" in said
    assert "step 2: keys c from operator, as if from another mac" in said
    assert "step 3: 3 frames wrong-port from pinger" in said


def test_a_command_is_given_its_time_in_the_guest_too(plan: Plan) -> None:
    """And the harness waits a little longer, to hear that it ran out."""
    (ask,) = plan.stages[7].actions
    assert isinstance(ask, Ask)
    assert ask.args["within"] == 40
    assert ask.within > 40
