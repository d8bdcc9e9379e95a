"""Whether a panic had to queue: something that the kernel said before it had not left when the panic began.

In: the comparison of console and wire, and a regular expression. Out: why the panic did not, or nothing. Rule: once netpoll has put a message on its queue
all later ones go behind it (`netpoll_send_skb()`), so what had arrived by the panic's first line shows that the queue was empty then.
"""

from __future__ import annotations

import re

from harness.judge.arrived import arrivals
from harness.judge.comparison import Comparison
from harness.judge.lines import wire_lines
from harness.judge.seen import Seen
from harness.judge.words import at, short


def missed(behind: str, to: str, found: Comparison, seen: Seen) -> str | None:
    """Why nothing was waiting when the panic began; None where it was."""
    first = found.console[0]
    said = [line for line in seen.kernel if line.t <= first.t and line is not first and re.search(behind, line.text)]
    if not said:
        return f"the console shows no line like /{behind}/ before the panic"
    extended = seen.plan.endpoint(seen.plan.endpoint(to).peer).extended
    wire = wire_lines(arrivals(seen, to), extended, seen.stamped)
    came = next((line.t for line in wire if line.text == said[-1].text and line.t < first.t), None)
    if came is None:
        return None
    return f"{short(said[-1].text)} was on the wire at {at(came)}, before the panic began at {at(first.t)}"
