"""Keys and values that the models refuse: unknown, missing, of the wrong type or out of range."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.tests.scenario_table import Row, problems_of, row

ROWS = [
    row(
        "unknown key at the top",
        "expect:",
        "timeot: 3\nexpect:",
        "22:1: unknown key 'timeot'; did you mean 'timeout'?",
    ),
    row(
        "unknown key of a NIC",
        "n1: {model: e1000}",
        "n1: {modle: e1000}",
        "7:9: key 'model' is missing in 'n1'; add it",
        "7:10: unknown key 'modle'; did you mean 'model'?",
    ),
    row(
        "unknown step",
        "- crash: {how: sysrq-c}",
        "- crsh: {how: sysrq-c}",
        "21:5: 'crsh' is no step; did you mean 'crash'?",
    ),
    row(
        "two steps in one",
        "- crash: {how: sysrq-c}",
        "- crash: {how: sysrq-c}\n    run: {argv: [true]}",
        "21:5: a step has exactly one key, this one has 2: crash, run; begin each with its own `- `",
    ),
    row(
        "two waits in one",
        "- wait: {carrier: n0, state: down}",
        "- wait: {carrier: n0, event: GUEST_PANICKED}",
        "20:11: a wait is for one thing, this one for carrier and event; make two steps of it",
    ),
    row(
        "wait for nothing",
        "- wait: {carrier: n0, state: down}",
        "- wait: {within: 3}",
        "20:11: nothing to wait for; give one of carrier, event, console, received, sent, dropped, queue, dump",
    ),
    row(
        "wait misspelt",
        "- wait: {carrier: n0, state: down}",
        "- wait: {carier: n0, state: down}",
        "20:11: nothing to wait for; give one of carrier, event, console, received, sent, dropped, queue, dump",
    ),
    row(
        "key of a wait misspelt",
        "- wait: {carrier: n0, state: down}",
        "- wait: {carrier: n0, stat: down}",
        "20:11: key 'state' is missing in 'wait'; add it",
        "20:25: unknown key 'stat'; did you mean 'state'?",
    ),
    row(
        "unknown state",
        "- wait: {carrier: n0, state: down}",
        "- wait: {carrier: n0, state: sideways}",
        "20:32: 'sideways' is not one of down, up; write one of them",
    ),
    row(
        "step that is a word",
        "- crash: {how: sysrq-c}",
        "- crash",
        "21:5: a step is a mapping with one key; one of send, inject, flap, remove, restore, filter, fault, wait, frames, flood, reader, keys, crash, machine, dump_server, debug, run, records, counters, context, include",
    ),
    row(
        "two expectations in one",
        "- parity: {to: log}",
        "- parity: {to: log}\n    event: {name: X_Y}",
        "24:5: an expectation has exactly one key, this one has 2: parity, event; begin each with its own `- `",
    ),
    row(
        "params is the loader's",
        "expect:",
        "params: {}\nexpect:",
        "22:1: key 'params' is filled in by the loader; use `matrix`",
    ),
    row(
        "unknown NIC model",
        "n2: {model: e1000}",
        "n2: {model: e1001}",
        "8:17: unknown NIC model 'e1001'; did you mean 'e1000'?",
    ),
    row(
        "name that is not the file's",
        "about:",
        "name: foo/bar\nabout:",
        "1:7: name 'foo/bar' does not agree with the path of the file; write 'case', or leave it out",
    ),
    row(
        "text for a number",
        "count: 10}\n  - wait",
        'count: "10"}\n  - wait',
        "17:33: a whole number is expected here, not '10'; write digits without quotes",
    ),
    row(
        "fraction for a count",
        "count: 10}\n  - wait",
        "count: 1.5}\n  - wait",
        "17:33: a whole number is expected here, not 1.5; write digits without quotes",
    ),
    row(
        "list for a mapping",
        "n1: {model: e1000}",
        "n1: [e1000]",
        "7:9: a mapping is expected here, not a list; put `key: value` lines under it, indented",
    ),
    row(
        "mapping for a list",
        "slaves: [n1, n2]",
        "slaves: {n1: n2}",
        "10:42: a list is expected here, not a mapping; write [a, b], or `- ` lines",
    ),
    row(
        "below the range",
        "count: 10}\n  - wait",
        "count: 0}\n  - wait",
        "17:33: 0 is out of range; it must be at least 1",
    ),
    row(
        "above the range",
        "crash: {how: sysrq-c}",
        "crash: {how: sysrq-c, within: 4000}",
        "21:35: 4000 is out of range; it must be at most 3600",
    ),
    row(
        "word for true or false",
        "{from: sender, count: 10}",
        "{from: sender, count: 10, background: maybe}",
        "17:49: true or false is expected here, not 'maybe'; write one of them without quotes",
    ),
    row(
        "bond mode misspelt",
        "active-backup",
        "active_backup",
        "10:19: 'active_backup' is not one of balance-rr, active-backup, balance-xor, broadcast, 802.3ad, balance-tlb, balance-alb; did you mean 'active-backup'?",
    ),
    row(
        "endpoint name",
        "  sink: {at",
        "  Sink!: {at",
        "15:3: 'Sink!' cannot be used here; use a-z, 0-9, _ and -, a letter first, at most 15 characters",
    ),
    row(
        "about too short",
        "messages arrive while nothing is wrong",
        "short",
        "1:8: 5 characters are given here; give at least 10",
    ),
    row(
        "about missing",
        "about: messages arrive while nothing is wrong\n",
        "",
        "1:1: key 'about' is missing; add it",
    ),
    row(
        "model missing",
        "n1: {model: e1000}",
        "n1: {}",
        "7:9: key 'model' is missing in 'n1'; add it",
    ),
]


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.id)
def test_wrong_shapes_are_refused_where_they_stand(bad: Row, tmp_path: Path) -> None:
    assert problems_of(tmp_path, bad.old, bad.new) == bad.problems
