"""The check that the peers run, too: 100 numbered kernel messages by netconsole, then a panic whose last line must arrive.

In: a folder and how many cases. Out: the path of a testcase in it. Rule: cases differ in nothing but their seed, so they cost the same.
"""

from __future__ import annotations

from pathlib import Path

MESSAGES = 100
LAST_WORDS = "end Kernel panic"
TEXT = """\
about: numbered kernel messages arrive by netconsole, and so does the panic that follows, whole

matrix:
  nth: {rounds}

guest:
  nics:
    n0: {{model: {nic}}}

endpoints:
  netconsole: {{at: guest, stack: kernel, device: n0, peer: log}}
  log: {{at: host, stack: netpoll, device: n0, peer: netconsole}}

steps:
  - send: {{from: netconsole, count: {messages}, size: [16, 16], seed: "${{nth}}"}}
  - wait: {{received: log, count: {messages}}}
  - crash: {{how: sysrq-c}}
  - wait: {{event: GUEST_PANICKED}}

expect:
  - delivered: {{from: netconsole, to: log, at_least_sent: {messages}}}
  - parity: {{to: log}}
"""


def write(folder: Path, cases: int = 1, nic: str = "virtio-net") -> Path:
    """The testcase, in a file of its own. Raises OSError."""
    path = folder / "last-words.yaml"
    path.write_text(TEXT.format(rounds=list(range(cases)), nic=nic, messages=MESSAGES))
    return path
