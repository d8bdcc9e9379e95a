"""pressed: the kernel acknowledged each sysrq key that the configured peer sent, and none that anybody else did.

In: keys as sent, their datagrams as captured on the way to the guest, the serial console. Out: the check. Rule: the kernel's own word on
its console is what counts, not the client's; and as silence proves nothing of a dead client, keys of the peer's must come last.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.judge.align import align
from harness.judge.lines import body_of
from harness.judge.model import CheckResult
from harness.judge.not_received import frames_to
from harness.judge.records import Line
from harness.judge.seen import Seen
from harness.judge.told import Keys
from harness.judge.words import at, cut, many, short
from harness.scenario.expectations import Pressed

PREFIX = "sysrq: "
ANSWERS = {
    "c": "Trigger a crash",
    "h": "HELP",
    "l": "Show backtrace of all active CPUs",
    "m": "Show Memory",
    "p": "Show Regs",
    "q": "Show clockevent devices & pending hrtimers",
    "s": "Emergency Sync",
    "t": "Show State",
    "w": "Show Blocked State",
}
"""What __handle_sysrq() prints for each key (drivers/tty/sysrq.c: action_msg), and HELP for one that does nothing."""


def check(expect: Pressed, seen: Seen) -> CheckResult:
    """The check of one `pressed` expectation."""
    peer = seen.plan.endpoint(expect.at).peer
    about = f"the console acknowledges each key that {peer} sends to {expect.at}, once, in order, and nobody else's"
    sent = [each for each in seen.records.keys if each.endpoint == peer]
    if missing := _not_reached(expect, seen, sent):
        return CheckResult(check="pressed", about=about, reached=False, held=None, why=missing)
    wanted = "".join(each.keys for each in sent if each.forge is None)
    said = [(key, line) for line in seen.records.console if (key := _key_of(line)) is not None]
    problems = _problems(wanted, said)
    return CheckResult(
        check="pressed",
        about=about,
        reached=True,
        held=not problems,
        why=problems[0] if problems else f"{wanted} pressed{_refusals(sent)}",
        findings=tuple(cut(problems, "findings")),
        numbers={
            "keys": len(wanted),
            "acknowledged": len(said),
            "forged": sum(each.forge is not None for each in sent),
        },
    )


def _not_reached(expect: Pressed, seen: Seen, sent: Sequence[Keys]) -> str | None:
    own = sum(each.forge is None for each in sent)
    if not own or sent[-1].forge is not None:
        return f"no key of the peer's came last, so nothing shows that {expect.at} was listening"
    peer = seen.plan.endpoint(seen.plan.endpoint(expect.at).peer)
    flow, frames = seen.flow(peer.id), [frame for frame in frames_to(seen, expect.at) if frame.flow is not None]
    true = sum((frame.flow, frame.smac) == (flow, peer.local_mac) for frame in frames)
    forged = sum(_forged(frame.flow, frame.smac, flow, peer.local_mac) for frame in frames)
    if true < own or forged < len(sent) - own:
        return (
            f"of {many(own, 'datagram')} of the peer's and {len(sent) - own} forged, the capture saw {true} and {forged} "
            f"go to {expect.at}"
        )
    return None


def _forged(flow: tuple[str, int, str, int] | None, smac: str | None, own: tuple[str, int, str, int], mac: str) -> bool:
    """To the same address and port, but from somebody else."""
    return flow is not None and flow[2:] == own[2:] and (flow, smac) != (own, mac)


def _key_of(line: Line) -> str | None:
    text = body_of(line.text)
    return next((key for key, said in ANSWERS.items() if text.startswith(PREFIX + said)), None)


def _problems(wanted: str, said: Sequence[tuple[str, Line]]) -> list[str]:
    found = align(wanted, [key for key, _ in said])
    extra = sorted((*found.unknown, *(place for place, _ in found.duplicated)))
    return [
        *(f"nobody who may has pressed it: {short(said[place][1].text)} at {at(said[place][1].t)}" for place in extra),
        *([f"not acknowledged: {''.join(wanted[place] for place in found.lost)}"] if found.lost else []),
        *([f"out of order: {''.join(wanted[place] for place in found.reordered)}"] if found.reordered else []),
    ]


def _refusals(sent: Sequence[Keys]) -> str:
    others = [each for each in sent if each.forge is not None]
    return f"; {many(len(others), 'datagram')} of strangers pressed nothing" if others else ""
