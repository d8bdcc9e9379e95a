"""What counts as reached, for each kind of wait."""

from __future__ import annotations

from typing import Any

import pytest

from harness.observe.progress import Progress
from harness.plan.model import Await

UP = {"src": "guest", "kind": "carrier", "nic": "n0", "up": True}
DOWN = UP | {"up": False}
RX = {"src": "host", "kind": "rx", "endpoint": "log", "text": "hello"}
LINE = {"src": "console", "kind": "line", "text": "[ 1.0] ---[ end Kernel panic - not syncing: x ]---"}
STOPPED = {"src": "qmp", "kind": "queue", "nic": "n0", "state": "stopped", "by": "kernel", "queue": 0}
WOKEN = STOPPED | {"state": "woken"}
DONE = {"src": "guest", "kind": "done", "label": "cut", "count": 3}

CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], bool]] = {
    "carrier up": ({"what": "carrier", "of": "n0", "state": "up"}, [UP], True),
    "carrier up, then down again": ({"what": "carrier", "of": "n0", "state": "up"}, [UP, DOWN], False),
    "carrier of another NIC": ({"what": "carrier", "of": "n1", "state": "up"}, [UP], False),
    "carrier still up after something else": ({"what": "carrier", "of": "n0", "state": "up"}, [UP, RX], True),
    "carrier as the host says it": ({"what": "carrier", "of": "n0", "state": "up"}, [UP | {"src": "host"}], False),
    "enough received": ({"what": "received", "of": "log", "count": 2}, [RX, RX], True),
    "netconsole's own notice is no message": (
        {"what": "received", "of": "log", "count": 2},
        [RX | {"text": "[   35.340696] netconsole: network logging started"}, RX],
        False,
    ),
    "too few received": ({"what": "received", "of": "log", "count": 2}, [RX], False),
    "a record in two fragments is one message": (
        {"what": "received", "of": "log", "count": 2},
        [RX, RX | {"text": "6,455,9,-,ncfrag=0/8;12345"}],
        False,
    ),
    "a record whose last fragment came": (
        {"what": "received", "of": "log", "count": 2},
        [RX | {"text": "6,455,9,-,ncfrag=0/8;12345"}, RX | {"text": "6,455,9,-,ncfrag=5/8;678"}, RX],
        True,
    ),
    "received elsewhere": ({"what": "received", "of": "sink"}, [RX], False),
    "text received": ({"what": "text", "of": "log", "text": "ell"}, [RX], True),
    "other text received": ({"what": "text", "of": "log", "text": "bye"}, [RX], False),
    "panic": ({"what": "panic", "of": "end Kernel panic"}, [RX, LINE], True),
    "the panic's text on the wire only": ({"what": "panic", "of": "hello"}, [RX], False),
    "console, by regular expression": ({"what": "console", "of": r"end \w+ panic"}, [LINE], True),
    "QMP event": ({"what": "event", "of": "RESUME"}, [{"src": "qmp", "kind": "event", "name": "RESUME"}], True),
    "sent": ({"what": "sent", "of": "cut"}, [DONE], True),
    "another send": ({"what": "sent", "of": "after"}, [DONE], False),
    "dropped or queued": (
        {"what": "dropped", "of": "s", "count": 2},
        [{"src": "guest", "kind": "dropped", "endpoint": "s"}, {"src": "guest", "kind": "queued", "endpoint": "s"}],
        True,
    ),
    "a queue stopped": ({"what": "queue", "of": "n0", "state": "stopped"}, [STOPPED], True),
    "another NIC's queue stopped": ({"what": "queue", "of": "n1", "state": "stopped"}, [STOPPED], False),
    "a queue stopped and woken": ({"what": "queue", "of": "n0", "state": "stopped"}, [STOPPED, WOKEN], False),
    "a queue woken": ({"what": "queue", "of": "n0", "state": "woken"}, [STOPPED, WOKEN], True),
    "one of two queues woken": (
        {"what": "queue", "of": "n0", "state": "woken"},
        [STOPPED, STOPPED | {"queue": 1}, WOKEN],
        False,
    ),
    "a queue that never stopped": ({"what": "queue", "of": "n0", "state": "woken"}, [RX], False),
    "nothing seen": ({"what": "received", "of": "log"}, [], False),
}


@pytest.mark.parametrize(("keys", "events", "reached"), CASES.values(), ids=CASES.keys())
def test_reached(keys: dict[str, Any], events: list[dict[str, Any]], reached: bool) -> None:
    progress = Progress(Await(**keys))
    states = [progress.take({"t": 0.0, **event}) for event in events]
    assert (states[-1:] == [True]) is reached


OLD: dict[str, tuple[dict[str, Any], list[dict[str, Any]], bool]] = {
    "a line from before": ({"what": "console", "of": "panic"}, [LINE], False),
    "a line from before, and one since": ({"what": "console", "of": "panic"}, [LINE, LINE], True),
    "another line since": ({"what": "console", "of": "panic"}, [LINE, LINE | {"text": "hello"}], False),
    "a QMP event from before": ({"what": "event", "of": "STOP"}, [{"src": "qmp", "kind": "event", "name": "STOP"}], False),
    "a panic's end from before": ({"what": "panic", "of": "end Kernel panic"}, [LINE], False),
    "a text from before": ({"what": "text", "of": "log", "text": "hello"}, [RX], False),
    "messages count from the first": ({"what": "received", "of": "log", "count": 2}, [RX, RX], True),
    "carrier is a state": ({"what": "carrier", "of": "n0", "state": "up"}, [UP], True),
    "a send that had finished": ({"what": "sent", "of": "cut"}, [DONE], True),
}  # fmt: skip


@pytest.mark.parametrize(("keys", "events", "reached"), OLD.values(), ids=OLD.keys())
def test_what_is_merely_seen_counts_from_the_last_step_that_did_something(
    keys: dict[str, Any], events: list[dict[str, Any]], reached: bool
) -> None:
    """One event was there when that step began."""
    progress = Progress(Await(**keys), since=1)
    states = [progress.take({"t": 0.0, **event}) for event in events]
    assert (states[-1:] == [True]) is reached


def test_what_was_seen_is_named() -> None:
    progress = Progress(Await(what="carrier", of="n0", state="up"))
    progress.take({"t": 0.0, **DOWN})
    assert progress.seen() == "carrier down"
