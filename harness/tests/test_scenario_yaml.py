"""What YAML reads differently from people, and what is no YAML: each is refused where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from harness.scenario.model import CrashWord
from harness.tests.scenario_table import Row, problems_of, row

ROWS = [
    row(
        "duplicate key",
        "  kernel: {at: guest, stack",
        "  sink: {at: guest, stack: netpoll, device: n0, peer: sender}\n  kernel: {at: guest, stack",
        "12:55: 'sink' and its peer 'sender' are both at guest; one of the two is at: guest, the other at: host",
        "16:3: key 'sink' was given before, in line 12; keep one of the two",
    ),
    row(
        "bare MAC is a base-60 number",
        "n1: {model: e1000}",
        "n1: {model: e1000, mac: 52:54:00:12:34:56}",
        '7:29: YAML reads the MAC 52:54:00:12:34:56 as the number 41135085296, in base 60; write "52:54:00:12:34:56"',
    ),
    row(
        "MAC in capitals",
        "n1: {model: e1000}",
        "n1: {model: e1000, mac: '52:54:00:AB:34:56'}",
        "7:29: '52:54:00:AB:34:56' cannot be used here; write six pairs of lower-case hex digits in quotes, like '52:54:00:12:34:56'",
    ),
    row(
        "on where a word is expected",
        "{how: sysrq-c}",
        "{how: on}",
        f"21:18: one of {', '.join(get_args(CrashWord))} is expected here, but YAML reads on as true; write one of them",
    ),
    row(
        "yes where text is expected",
        "about: messages arrive while nothing is wrong",
        "about: yes",
        '1:8: text is expected here, but YAML reads yes as true; write "yes"',
    ),
    row(
        "on as a key",
        "about:",
        "on: 1\nabout:",
        '1:1: YAML reads the key on as true; write "on"',
    ),
    row(
        "off where up or down is expected",
        "state: down}\n  - wait",
        "state: off}\n  - wait",
        "19:31: one of down, up is expected here, but YAML reads off as false; write one of them",
    ),
    row(
        "6.10 where text is expected",
        "guest:\n",
        "guest:\n  kernel: 6.10\n",
        '5:11: text is expected here, but YAML reads 6.10 as the number 6.1; write "6.10"',
    ),
    row(
        "octal number",
        "count: 10}\n  - wait",
        "count: 010}\n  - wait",
        "17:33: YAML reads 010 as the number 8; write a decimal number, or quote it if it is text",
    ),
    row(
        "hexadecimal number",
        "count: 10}\n  - wait",
        "count: 0x10}\n  - wait",
        "17:33: YAML reads 0x10 as the number 16; write a decimal number, or quote it if it is text",
    ),
    row(
        "underscore in a number",
        "count: 10}\n  - wait",
        "count: 1_0}\n  - wait",
        "17:33: YAML reads 1_0 as the number 10; write a decimal number, or quote it if it is text",
    ),
    row(
        "base-60 number",
        "count: 10}\n  - wait",
        "count: 10, interval: 1:30}\n  - wait",
        '17:47: YAML reads 1:30 as the number 90, in base 60; write "1:30"',
    ),
    row(
        "date",
        "about: messages arrive while nothing is wrong",
        "about: 2024-01-01",
        '1:8: YAML reads 2024-01-01 as a date; write "2024-01-01"',
    ),
    row(
        "no value",
        "n1: {model: e1000}",
        "n1: {model: e1000, mac: }",
        "7:28: there is no value here; give one, or leave the key out",
    ),
    row(
        "tab before a list item",
        "  - parity",
        "	- parity",
        "24:1: a tab cannot indent YAML; use spaces",
    ),
    row(
        "tab in the indentation",
        "    n1: {model",
        "    	n1: {model",
        "7:5: a tab cannot indent YAML; use spaces",
    ),
    row(
        "second document",
        "expect:",
        "---\nexpect:",
        "22:1: a second document begins here; one testcase a file: remove the `---`",
    ),
    row(
        "alias without an anchor",
        "n1: {model: e1000}",
        "n1: *nope",
        "7:9: undefined alias 'nope'; define it with & above, or write the value out",
    ),
    row(
        "merge key",
        "n1: {model: e1000}",
        "n1: {<<: {model: e1000}}",
        "7:10: merge keys (<<) are not used here; write the keys out",
    ),
    row(
        "python tag",
        "n1: {model: e1000}",
        "n1: {model: !!python/name:os.system x}",
        "7:17: tag !!python/name:os.system is not used here; remove the tag",
    ),
    row(
        "tag of one's own",
        "n1: {model: e1000}",
        "n1: !mine {model: e1000}",
        "7:9: tag !mine is not used here; remove the tag",
    ),
    row(
        "list as a key",
        "n1: {model: e1000}",
        "n1: {model: e1000, [a, b]: c}",
        "7:24: a key must be a word; no lists or mappings as keys",
    ),
    row(
        "alias inside its anchor",
        "n1: {model: e1000}",
        "n1: &m {model: *m}",
        "7:9: an alias inside its own anchor has no end; write the value out",
    ),
    row(
        "unclosed brace",
        "n1: {model: e1000}",
        "n1: {model: e1000",
        "8:7: not YAML: expected ',' or '}', but got ':' while parsing a flow mapping; check brackets, quotes and indentation on this line and the one before",
    ),
    row(
        "colon in plain text",
        "about: messages arrive while nothing is wrong",
        "about: messages: arrive while",
        "1:16: not YAML: mapping values are not allowed here; check the indentation, and quote text that contains `: `",
    ),
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_yaml_traps_are_refused_with_position_and_remedy(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new) == bad.problems
