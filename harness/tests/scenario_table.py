"""What the tables of bad testcases share: one good testcase to spoil, a row of a table, and the loader run on the result.

Positions in the tables are `line:column` in GOOD after the row's replacement.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from harness.scenario.lint import lint

GOOD = """\
about: messages arrive while nothing is wrong
matrix:
  nic: [e1000, virtio-net]
guest:
  nics:
    n0: {model: "${nic}"}
    n1: {model: e1000}
    n2: {model: e1000}
  bonds:
    bond0: {mode: active-backup, slaves: [n1, n2]}
endpoints:
  kernel: {at: guest, stack: kernel, device: bond0, peer: log}
  log: {at: host, stack: netpoll, device: bond0, peer: kernel}
  sender: {at: guest, stack: netpoll, device: n0, peer: sink}
  sink: {at: host, stack: netpoll, device: n0, peer: sender}
steps:
  - send: {from: sender, count: 10}
  - wait: {received: sink, count: 10}
  - inject: {link: n0, state: down}
  - wait: {carrier: n0, state: down}
  - crash: {how: sysrq-c}
expect:
  - delivered: {from: sender, to: sink}
  - parity: {to: log}
"""

KERNELS = ("debian-6.1", "debian-6.12")


class Row(NamedTuple):
    """Replace `old` by `new` in GOOD, once; then these problems are found, and no others."""

    id: str
    old: str
    new: str
    problems: tuple[str, ...]


def row(id: str, old: str, new: str, *problems: str) -> Row:  # noqa: A002  (pytest's own word)
    return Row(id, old, new, problems)


def problems_of(folder: Path, old: str, new: str, good: str = GOOD) -> tuple[str, ...]:
    """What the loader says, without the file's name."""
    assert old in good, "the row no longer fits the good testcase"
    file = folder / "case.yaml"
    file.write_text(good.replace(old, new, 1))
    _, problems = lint([file], KERNELS)
    return tuple(problem.removeprefix(f"{file}:") for problem in problems)
