"""A testcase of one's own to begin with: what to inject, on which NIC, and the rest said in comments.

In: a kind, a NIC model, where it is to stand. Out: YAML that the loader takes as it is. Rule: the words of a choice are data below; a test
lints every combination and runs some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.plan.nics import MODELS
from harness.scenario.errors import suggest
from harness.scenario.schema import COMMENT


class NoSuchChoice(ValueError):
    """A kind or model that there is not; the message says which there are."""


@dataclass(frozen=True)
class Kind:
    """What a new testcase is about. `steps` and `expect` are YAML; `bond`: two NICs joined."""

    about: str
    stack: str
    steps: str
    expect: str
    bond: bool = False
    cuts: bool = False  # needs a NIC that sees its link


KINDS: Mapping[str, Kind] = {
    "panic": Kind(
        "the last words of a panic leave over netconsole",
        "kernel",
        """\
  # the kernel dies; also: nmi, sysrq-break, oom, ... (docs/injections.md says what each does)
  - crash: {how: sysrq-c, within: 30}
  - wait: {event: GUEST_PANICKED, within: 10}""",
        """\
  # every line that the serial console shows from the crash on is on the wire, in order, once
  - parity: {to: log}
  - event: {name: GUEST_PANICKED}""",
    ),
    "link-cut": Kind(
        "what is sent while the cable is out is lost, and nothing else",
        "netpoll",
        """\
  # numbered messages, one each 20 ms, while the following steps are done
  - send: {from: sender, count: 300, interval: 0.02, background: true}
  - wait: {received: log, count: 30}
  - inject: {link: n0, state: down}
  # the guest must notice, or nothing was provoked
  - wait: {carrier: n0, state: down}
  - wait: {dropped: sender, count: 30}
  - inject: {link: n0, state: up}
  - wait: {carrier: n0, state: up}
  - wait: {sent: sender}""",
        """\
  - lost_only_while_down: {from: sender, to: log, link: n0}""",
        cuts=True,
    ),
    "failover": Kind(
        "a bond goes on over its other slave when the active one loses its link",
        "netpoll",
        """\
  - send: {from: sender, count: 300, interval: 0.01, background: true}
  - wait: {received: log, count: 50}
  # the active slave's cable is pulled
  - inject: {link: n0, state: down}
  - wait: {carrier: n0, state: down}
  - wait: {sent: sender}""",
        """\
  # at most so many seconds without a frame, and none over the slave that was cut
  - failover: {bond: bond0, cut: n0, from: sender, within: 2}""",
        bond=True,
        cuts=True,
    ),
    "send": Kind(
        "messages arrive once, byte for byte, in order",
        "netpoll",
        """\
  - send: {from: sender, count: 200}
  - wait: {received: log, count: 200}""",
        """\
  - delivered: {from: sender, to: log}""",
    ),
}

PAGE = """\
{comment}{schema}
about: {about}

# Every combination of these is a case of its own; ${{nic}} below becomes each value in turn.
matrix:
  nic: [{nic}]

guest:
  # kernel: debian-6.12      # `netpoll-harness images list` shows which there are
  nics:
{nics}
{bonds}
# Two ends of a flow, one in the guest and one on the host's tap. stack: netpoll is our userspace stack, stack: kernel the guest
# kernel's own netconsole.
endpoints:
  sender: {{at: guest, stack: {stack}, device: {device}, peer: log}}
  log: {{at: host, stack: netpoll, device: {device}, peer: sender}}

# One after the other. A wait has a deadline (within: SECONDS); if it passes, the judge says what was never reached.
steps:
{steps}

# What must hold. Its condition has to be provoked first: otherwise the case is INCONCLUSIVE, never passed.
expect:
{expect}
"""


def commented(kind: str, nic: str, schema: str = "") -> str:
    """The YAML text. `schema`: path or URL of the JSON Schema, for editors. Raises NoSuchChoice."""
    if kind not in KINDS:
        raise NoSuchChoice(f"no kind {kind!r}; {suggest(kind, KINDS, 'kinds')}")
    if nic not in MODELS:
        raise NoSuchChoice(f"no NIC model {nic!r}; {suggest(nic, MODELS, 'models')}")
    chosen = KINDS[kind]
    if chosen.cuts and not MODELS[nic].link:
        raise NoSuchChoice(
            f"QEMU's {nic} does not show a cut link to the guest, and {kind} needs that\n  -> e.g. e1000e"
        )
    names = ("n0", "n1") if chosen.bond else ("n0",)
    bonds = "  bonds:\n    bond0: {mode: active-backup, slaves: [n0, n1], miimon: 100}\n" if chosen.bond else ""
    return PAGE.format(
        comment=COMMENT if schema else "# made by netpoll-harness new",
        schema=schema,
        about=chosen.about,
        nic=nic,
        nics="\n".join(f'    {name}: {{model: "${{nic}}"}}' for name in names),
        bonds=bonds,
        stack=chosen.stack,
        device="bond0" if chosen.bond else "n0",
        steps=chosen.steps,
        expect=chosen.expect,
    )
