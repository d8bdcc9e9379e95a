"""Whether what a case waits for has been seen: evidence in, yes or no out.

Rule: one small state per wait, fed every event from the case's first on. What is counted or has a state counts from there; what is merely
seen (a line, an event of QEMU's) counts from the last step on that did something, so that it is that step's doing.
"""

from __future__ import annotations

import re

from guest.netpoll.clients.netconsole.message import FormatError, parse_packet
from harness.observe.events import Event
from harness.plan.model import Await

SEEN = frozenset({"console", "event", "panic", "text"})  # waits for something seen; the others count or follow a state

NOTICE = "netconsole: network logging "  # started, resumed, stopped
CAPTURE_BEGAN = re.compile(r"^capture: [\d.]+ began")
"""Only a panic starts a capture kernel, and in an NMI it does so before the panic's lines have reached the console."""
CAPTURE_OVER = re.compile(r"^capture: [\d.]+ (failed: |ended with [1-9])|end Kernel panic")
"""A capture kernel's last words when it could not send the dump. With a crash kernel, only a second panic comes to its end."""


class Progress:
    """Whether the evidence so far satisfies an `Await`: one small state per kind of wait."""

    def __init__(self, action: Await, since: int = 0) -> None:
        """`since`: how many events there were when the last step began that did something."""
        self._action = action
        self._old = since if action.what in SEEN else 0  # events still to be passed over
        self._count = 0  # matching events
        self._carrier: str | None = None  # as last told
        self._stopped: set[int] = set()  # queues, by number
        self._queues = False  # one was seen stopped
        self._done = False  # a dump
        self.lost = ""  # why it can no longer come: then there is nothing to wait for
        self._regex = re.compile(action.of) if action.what == "console" else None

    def take(self, event: Event) -> bool:
        """True while the condition holds with this event."""
        if self._old > 0:
            self._old -= 1
            return False
        if self._action.what == "carrier":
            return self._follow_carrier(event)
        if self._action.what == "queue":
            return self._follow_queue(event)
        if self._action.what == "dump":
            return self._follow_dump(event)
        self._count += self._matches(event)
        return self._count >= self._action.count

    def seen(self) -> str:
        if self.lost:
            return self.lost
        if self._action.what == "queue":
            return f"stopped queues {sorted(self._stopped)}" if self._queues else "no queue stopped"
        return f"carrier {self._carrier}" if self._action.what == "carrier" else f"count {self._count}"

    def _follow_carrier(self, event: Event) -> bool:
        if event["src"] == "guest" and event["kind"] == "carrier" and event.get("nic") == self._action.of:
            self._carrier = "up" if event.get("up") else "down"
        return self._carrier == self._action.state

    def _follow_queue(self, event: Event) -> bool:
        if (event["src"], event["kind"], event.get("nic")) == ("qmp", "queue", self._action.of):
            self._queues = True
            change = self._stopped.add if event["state"] == "stopped" else self._stopped.discard
            change(int(event["queue"]))
        return bool(self._stopped) if self._action.state == "stopped" else self._queues and not self._stopped

    def _follow_dump(self, event: Event) -> bool:
        if (event["src"], event["kind"]) == ("host", "dump"):
            self._count = max(self._count, int(event.get("bytes", 0)))
            self._done = self._done or event["what"] == "complete"
        held = self._done if self._action.of == "complete" else self._count >= self._action.count
        if not held and event["src"] == "console" and CAPTURE_OVER.search(event["text"]):
            self.lost = event["text"]
        return held or bool(self.lost)

    def _matches(self, event: Event) -> bool:
        of, src, kind = self._action.of, event["src"], event["kind"]
        ends = ("guest", "host")
        match self._action.what:
            case "event":
                return bool(src == "qmp" and kind == "event" and event["name"] == of)
            case "unplugged":
                return bool(
                    src == "qmp" and event.get("name") == "DEVICE_DELETED" and event["data"].get("device") == of
                )
            case "console":
                assert self._regex is not None
                return src == "console" and self._regex.search(event["text"]) is not None
            case "panic":
                return src == "console" and (of in event["text"] or CAPTURE_BEGAN.search(event["text"]) is not None)
            case "text":
                return (
                    src in ends
                    and kind == "rx"
                    and event.get("endpoint") == of
                    and str(self._action.text) in str(event.get("text", ""))
                )
            case "received":
                came = src in ends and kind == "rx" and event.get("endpoint") == of
                return came and not _notice(event) and not _goes_on(str(event.get("text", "")))
            case "dropped":
                return src in ends and kind in ("dropped", "queued") and event.get("endpoint") == of
            case "sent":
                return src in ends and kind == "done" and event.get("label") == of
        return False


def _goes_on(text: str) -> bool:
    """More of this record is to come: a fragment counts as a message when it is the record's end, which netconsole sends last."""
    if "ncfrag=" not in text:
        return False
    try:
        header, body = parse_packet(text.encode("latin-1"))
    except (FormatError, UnicodeEncodeError):
        return False
    return header.fragment is not None and header.fragment[0] + len(body) < header.fragment[1]


def _notice(event: Event) -> bool:
    """What netconsole says of itself when it is enabled. It comes before the first message that a testcase sends, and sooner or later."""
    return NOTICE in str(event.get("text", ""))
