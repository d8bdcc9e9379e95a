"""Bad dumps: what is wrong, where it stands, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.tests.scenario_table import Row, problems_of, row

GOOD = """\
about: a dump arrives while nothing is wrong
guest:
  memory: 768
  nics:
    n0: {model: virtio-net}
    n1: {model: e1000}
    n2: {model: usb-net}
  bonds:
    bond0: {mode: active-backup, slaves: [n1]}
dump: {device: n0}
steps:
  - crash: {how: sysrq-c}
  - wait: {dump: complete}
expect:
  - dumped: {at_least: 100}
"""

ROWS = (
    row("too little memory", "memory: 768", "memory: 512", "3:11: 512 MiB are too few for a guest with a capture kernel; write memory: 768 at least"),
    row("no memory said", "  memory: 768\n", "", "3:3: 256 MiB are too few for a guest with a capture kernel; write memory: 768 at least"),
    row("too much memory", "memory: 768", "memory: 4096", "3:11: 4096 MiB: a dump is compared with RAM that has no hole; write 2048 at most"),
    row("unknown device", "{device: n0}", "{device: n9}", "10:16: device 'n9' is no NIC or bond of the guest; devices: n0, n1, n2, bond0"),
    row("a slave", "{device: n0}", "{device: n1}", "10:16: 'n1' is a slave of 'bond0'; write device: bond0"),
    row("over USB", "{device: n0}", "{device: n2}", "10:16: 'n2' is on USB, for which the capture kernel has no driver; use a PCI model"),
    row("a filter that Red Hat's server does not know", "{device: n0}", "{device: n0, protocol: netdump, pages: kernel}",
        "10:46: Red Hat's server asks for each page by its number, and knows nothing of makedumpfile; write pages: all, or protocol: debugnet"),
    row("a panic that nobody counts to", "{device: n0}", "{device: n0, pages: all, panics: 5}",
        "10:40: it counts what makedumpfile has put out; write pages: kernel, or remove it"),
    row("a driver of ours", "{device: n0}", "{device: n0, driver: pmd}"),
    row("a bond under a driver of ours", "{device: n0}", "{device: bond0, driver: pmd}",
        "10:31: 'bond0' is a bond of the kernel's; name a NIC, or write driver: kernel"),
    row("too many percent", "{device: n0}", "{device: n0, lose: 101}", "10:26: 101 is out of range; it must be at most 100"),
    row("no dump", "dump: {device: n0}\n", "",
        "12:11: there is no dump in this testcase; add `dump: {device: ...}`",
        "14:13: there is no dump in this testcase; add `dump: {device: ...}`"),
    row("a wait before the crash", "  - crash: {how: sysrq-c}\n  - wait: {dump: complete}", "  - wait: {dump: complete}\n  - crash: {how: sysrq-c}",
        "12:11: no dump begins before a crash; move it behind the crash"),
    row("MiB of all", "{dump: complete}", "{dump: complete, mib: 3}", "13:33: a complete dump has all its bytes; remove it, or write dump: begun"),
    row("no crash", "  - crash: {how: sysrq-c}\n  - wait: {dump: complete}", "  - wait: {console: x}",
        "14:13: no step crashes the guest; add a step `- crash: {how: sysrq-c}`"),
    row("incomplete for no reason", "{at_least: 100}", "{complete: false}", "15:24: nothing keeps this dump from being complete; write dump: {panics: 256, ...}"),
    row("a server that runs already", "  - wait: {dump: complete}", "  - dump_server: {state: running}",
        "13:26: the server is running already; remove this step"),
)  # fmt: skip


def test_the_good_one_is_good(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "about", "about", GOOD) == ()


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_bad_dumps_are_refused_where_they_stand(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new, GOOD) == bad.problems


def test_a_link_may_change_after_the_crash_where_a_capture_kernel_lives(tmp_path: Path) -> None:
    cut = "  - crash: {how: sysrq-c}\n  - inject: {link: n0, state: down}"
    assert problems_of(tmp_path, "  - crash: {how: sysrq-c}", cut, GOOD) == ()
