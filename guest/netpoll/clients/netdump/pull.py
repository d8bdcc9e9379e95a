"""One netdump at the collector: what to ask next, and the file that the answers make.

In: replies of one machine, the time. Out of `work()`: requests. The one rule: one question at a time until the machine is known, then a
window of pages; each question is asked again until it is answered, and what a machine says of sizes is held against the limit first.

ACK, page size, number of pages, registers, pages, SHOW_STATE, REBOOT: the order of Red Hat's netdump-server.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from guest.netpoll.clients.dump.sink import Kept, Sink, SinkError, Store
from guest.netpoll.clients.netdump import elf_core
from guest.netpoll.clients.netdump.pages import Window
from guest.netpoll.clients.netdump.wire import CHUNK, START_MAX, Code, Command, Reply, Request, emit_request

PAGE_SIZES = (4096, 8192, 16384, 65536)
MAX_NOTES = 8 << 20
WINDOW = 32  # pages under way
ASK_EVERY = 1.0  # seconds
SAVE_EVERY = 1.0
LAST_TRIES = 3  # SHOW_STATE and REBOOT: then without an answer
QUIET = 0.3  # seconds without LOG, after SHOW_STATE was answered


class Stage(enum.Enum):
    """What a dump has come to."""

    WAITING = "asking who is there"
    RECEIVING = "receiving"
    LAST_WORDS = "hearing its last words"
    COMPLETE = "complete"
    REFUSED = "refused"


ENDED = (Stage.COMPLETE, Stage.REFUSED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A START: who, on which machine (ELF), its items; the limit in bytes; what the machine printed before."""

    peer: str
    machine: int
    items: dict[str, int]
    limit: int
    talk: bytes = b""


class Pull:
    """`note(peer, what)` counts what is wrong with a datagram."""

    def __init__(self, store: Store, wanted: Wanted, note: Callable[[str, str], None], now: float) -> None:
        self.wanted = wanted
        self.stage = Stage.WAITING
        self.heard = now
        self.bytes = 0
        self.why = ""
        self._store, self._note = store, note
        self._ack = True  # to be sent
        self._nr = 0
        self._page = self._pages = 0
        self._registers: bytes | None = None
        self._question = 0  # nr
        self._asked_at = float("-inf")
        self._left = LAST_TRIES  # of SHOW_STATE, then of REBOOT
        self._quiet_since: float | None = None  # SHOW_STATE was answered, the last LOG came
        self._window: Window | None = None
        self._sink: Sink | None = None
        self._header = 0
        self._notes: dict[int, bytes] = {}
        self._log: list[tuple[int, bytes]] = []
        self._saved = now

    # -- what arrives

    def started(self, now: float) -> None:
        """START again: it has not heard us, or (COMPLETE) has not been told to reboot."""
        self._ack = True
        if self.stage in ENDED:
            self._left = LAST_TRIES
        self.heard = now

    def log(self, at: int, text: bytes, now: float) -> bool:
        """LOG: a piece of what it prints, `at` the number of bytes before. False if that is not this dump's to keep."""
        if self.stage not in (Stage.RECEIVING, Stage.LAST_WORDS) or len(self._log) > 1000:
            return False
        if self._quiet_since is not None:
            self._quiet_since = now
        self._log.append((at, text))
        return True

    def reply(self, reply: Reply, now: float) -> None:
        """An answer. Never raises."""
        self.heard = now
        window = self._window
        if reply.code == Code.MEM and window is not None:
            if len(reply.payload) == CHUNK:
                window.part(reply.nr, reply.info, reply.payload, now)
            else:
                self._note(self.wanted.peer, "with a piece of a page of another size")
        elif reply.code == Code.RESERVED and window is not None:
            window.reserved(reply.nr, reply.info, now)
        elif reply.code == Code.ERROR and self.stage is Stage.RECEIVING and window is not None:
            window.refused(reply.nr, now)
        elif reply.nr == self._question:
            self._answered(reply, now)
        elif reply.code != Code.ERROR or reply.info != Command.START_NETDUMP_ACK:
            self._note(self.wanted.peer, "that answers nothing")

    def _answered(self, reply: Reply, now: float) -> None:
        if reply.code == Code.PAGE_SIZE and not self._page:
            self._page = reply.info
            if reply.info not in PAGE_SIZES:
                self._refuse(f"pages of {reply.info} bytes")
        elif reply.code == Code.NR_PAGES and not self._pages:
            self._pages = reply.info
            if not 0 < reply.info * self._page <= self.wanted.limit:
                self._refuse(f"{reply.info} pages of {self._page} bytes: the limit is {self.wanted.limit} bytes")
        elif reply.code == Code.REGS and self._registers is None:
            self._registers = reply.payload.partition(b"\n")[2]
        elif reply.code in (Code.SHOW_STATE, Code.ERROR) and self.stage is Stage.LAST_WORDS:
            self._quiet_since = now
            return
        else:
            self._note(self.wanted.peer, "that answers another question")
            return
        self._asked_at = float("-inf")

    # -- process context

    def work(self, now: float) -> list[bytes]:
        """Write what came, and ask for more. To be called when replies have been received, and when wait() says so."""
        out: list[bytes] = []
        if self._ack:
            self._ack = False
            out.append(self._request(Command.START_NETDUMP_ACK, START_MAX))
        try:
            if self.stage is Stage.WAITING and self._registers is not None:
                self._open(now)
            if self._sink is not None and self._window is not None and self.stage not in ENDED:
                self._store_pages(self._sink, self._window, now)
        except SinkError as error:
            self._refuse(str(error))
        if self._window is not None and self.stage is Stage.RECEIVING:
            for nr, page in self._window.requests(self._nr + 1, now):
                self._nr = nr
                out.append(self._request(Command.SEND_MEM, page, nr))
        elif now - self._asked_at >= ASK_EVERY:
            self._ask(out, now)
        return out

    def _ask(self, out: list[bytes], now: float) -> None:
        """The next question, or the same again."""
        if self.stage is Stage.WAITING:
            command = Command.GET_REGS if self._pages else Command.GET_NR_PAGES if self._page else Command.GET_PAGE_SIZE
        elif self._left and self._quiet_since is None:
            self._left -= 1
            command = Command.REBOOT if self.stage in ENDED else Command.SHOW_STATE
        else:
            return
        self._asked_at = now
        self._nr += 1
        self._question = self._nr
        out.append(self._request(command, 0, self._nr))

    def _request(self, command: int, first: int, nr: int = 0) -> bytes:
        return emit_request(Request(self.wanted.items.get("netdump_magic", 0), nr, command, first))

    def wait(self, now: float) -> float:
        """Seconds until work() has something to do, if nothing is received before."""
        if self._window is not None and self.stage is Stage.RECEIVING:
            return self._window.wait(now)
        if self._quiet_since is not None:
            return max(0.0, self._quiet_since + QUIET - now)
        if self.stage in ENDED and not self._left:
            return float("inf")
        return max(0.0, self._asked_at + ASK_EVERY - now)

    def _open(self, now: float) -> None:
        """The machine is known: its file, from the beginning or from where it was left."""
        items, peer = self.wanted.items, self.wanted.peer
        if self.wanted.machine not in elf_core.LAYOUTS:
            raise SinkError(f"a machine of ELF type {self.wanted.machine}")
        name = items.get("name", 0) & 0xFFFFFFFF
        extra = items.get("notes_size", 0) if items.get("notes_page") == self._pages else 0
        if extra > MAX_NOTES:
            raise SinkError(f"{extra} bytes of notes")
        self._header = elf_core.header_size(self._page, extra)
        kept = self._store.find(peer, name, None)
        if kept is Kept.COMPLETE:
            self.stage, self._asked_at = Stage.COMPLETE, float("-inf")
            return
        self._sink = self._store.open(peer, name, None, "netdump")
        low, ranges = self._resume(self._sink.kept()) if kept is Kept.INCOMPLETE else (0, [])
        if self.wanted.talk:
            self._sink.log("what it printed:\n" + self.wanted.talk.decode(errors="backslashreplace"))
        count = self._pages + -(-extra // self._page)
        self._window = Window(low, count, self._page // CHUNK, WINDOW, ranges)
        self.stage, self._saved = Stage.RECEIVING, now

    def _resume(self, state: bytes) -> tuple[int, list[list[int]]]:
        """Where the dump was left, from the beginning if that is not known for this machine."""
        try:
            kept = json.loads(state)
            if kept["page"] == self._page and kept["pages"] == self._pages:
                return int(kept["low"]), [[int(first), int(last)] for first, last in kept["ranges"]]
        except (ValueError, KeyError, TypeError):
            pass
        return 0, []

    def _store_pages(self, sink: Sink, window: Window, now: float) -> None:
        for first, data in runs(window.take(), self._pages, self._notes):
            sink.write(self._header + first * self._page, data)
            self.bytes += len(data)
        if self.stage is Stage.LAST_WORDS:
            if self._heard_out(now):
                self._console(sink)
                self._finish(sink, window)
        elif window.finished:
            self.stage, self._asked_at, self._left = Stage.LAST_WORDS, float("-inf"), LAST_TRIES
        elif now - self._saved >= SAVE_EVERY:
            self._console(sink)
            self._save(sink, window, now)

    def _console(self, sink: Sink) -> None:
        """What it has printed, in its order: pieces may end in a line."""
        text = b"".join(text for _, text in sorted(self._log))
        self._log.clear()
        if text:
            sink.log("console: " + text.decode(errors="backslashreplace").rstrip("\n"))

    def _heard_out(self, now: float) -> bool:
        """It has shown its state and is quiet, or shows none. LOG is not acknowledged: what has not come, or not whole, is asked for again."""
        if self._quiet_since is not None:
            quiet = now - self._quiet_since >= QUIET
            if quiet and self._left and not _whole(self._log):
                self._quiet_since, self._asked_at = None, float("-inf")
                return False
            return quiet
        return not self._left and now - self._asked_at >= ASK_EVERY

    def _save(self, sink: Sink, window: Window, now: float) -> None:
        self._saved = now
        low = min(window.low, self._pages)  # the notes come again
        state = {"page": self._page, "pages": self._pages, "low": low, "ranges": window.ranges}
        sink.keep(json.dumps(state).encode())

    def _finish(self, sink: Sink, window: Window) -> None:
        machine, items = self.wanted.machine, self.wanted.items
        own = elf_core.notes(machine, self._registers or b"", items.get("task_struct", 0))
        notes = b"".join(data for _, data in sorted(self._notes.items()))[: items.get("notes_size", 0)]
        ranges = [(first, min(last, self._pages)) for first, last in window.ranges if first < self._pages]
        page_offset = items.get("page_offset", 0)
        sink.write(0, elf_core.header(machine, self._page, self._header, notes or own, ranges, page_offset))
        sink.log(f"{self._pages} pages, {window.resent} asked for again, {window.bad} replies to nothing")
        sink.finish(self._header + self._pages * self._page, "vmcore", exact=False)
        self.stage, self._asked_at, self._left, self._quiet_since = Stage.COMPLETE, float("-inf"), LAST_TRIES, None

    def _refuse(self, why: str) -> None:
        self.why, self.stage = why, Stage.REFUSED
        self._note(self.wanted.peer, f"of a dump that is refused: {why}")
        self._asked_at, self._left, self._quiet_since = float("-inf"), LAST_TRIES, None
        if self._sink is not None:
            self._sink.abandon(why, partial=True)

    def end(self, why: str) -> None:
        """No more comes. What is incomplete stays so, for a machine that says START again."""
        if self._sink is not None and self._window is not None and self.stage not in ENDED:
            self._save(self._sink, self._window, self._saved)
            self._sink.abandon(why, partial=False)


def runs(pages: list[tuple[int, bytes]], limit: int, beyond: dict[int, bytes]) -> list[tuple[int, bytes]]:
    """(first page, bytes): neighbours joined, zeros left out; pages from `limit` on go to `beyond`."""
    out: list[tuple[int, list[bytes]]] = []
    following = -1
    for number, data in pages:
        if number >= limit:
            beyond[number] = data
        elif data != bytes(len(data)):
            if number != following:
                out.append((number, []))
            out[-1][1].append(data)
            following = number + 1
    return [(first, b"".join(parts)) for first, parts in out]


def _whole(pieces: list[tuple[int, bytes]]) -> bool:
    """Whether text came, with nothing missing between its pieces."""
    ordered = sorted(pieces)
    return bool(ordered) and all(at + len(text) == after for (at, text), (after, _) in pairwise(ordered))
