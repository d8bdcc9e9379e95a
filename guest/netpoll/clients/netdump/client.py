"""The crashed machine's end of Red Hat netdump: it says that it is there, and answers what it is asked.

In: requests, the time. Out of `poll()`: replies. The one rule: it does nothing by itself but START, and an answer depends on its
request alone, so that whoever asks may ask twice.

As RHEL 4's kernel has it (netdump.c), with three differences: a request with a magic that is not the one that START told is counted
and not answered; the queue of requests is bounded; and when no request has come for a while START is sent again, by which a server
that was restarted learns of us. Requests that the handshake does not expect are answered by START, there as here.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from guest.netpoll.clients.netdump.memory import PAGE, Memory
from guest.netpoll.clients.netdump.wire import (
    CHUNK,
    MAX_LOG,
    REPLY,
    START_MAX,
    VERSIONS,
    Code,
    Command,
    Reply,
    Request,
    emit_reply,
    emit_start,
    parse_request,
)
from guest.netpoll.wire import WireError

EM_X86_64 = 62
QUEUE = 1024  # requests
BATCH = 64  # answered in one poll()
START_EVERY = 1.0  # seconds


class State(enum.Enum):
    """Where a dump is."""

    HANDSHAKE = "looking for the server"
    ANSWERING = "answering"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Tuning:
    """Seconds."""

    silence: float = 3.0  # without a request: START again
    patience: float = 600.0  # give up


class Client:
    """`magic`: 64 bits that requests must have, 0 for any. `name`: a number that no other dump has. `state`: text for SHOW_STATE."""

    def __init__(
        self, memory: Memory, *, magic: int, name: int, task: int = 0, state: str = "", tuning: Tuning | None = None
    ) -> None:
        self.tuning = tuning or Tuning()
        self.memory = memory
        self.state = State.HANDSHAKE
        self.reboot = False  # the server asked for it
        self.why = ""
        self.sent = 0
        self.counts: Counter[str] = Counter()
        self._magic = magic
        self._show = state.encode(errors="replace")
        self._logged = 0  # bytes
        self._version = VERSIONS[0]
        self._queue: deque[Request] = deque()
        self._heard: float | None = None
        self._started = float("-inf")
        self._again = False  # a request that the handshake does not expect
        self._start = emit_start(
            {
                "task_struct": task,
                "page_offset": memory.page_offset,
                "netdump_magic": magic,
                "name": name,
                "notes_page": memory.count,
                "notes_size": len(memory.notes),
            }
        )
        self._answers: dict[int, Callable[[Request], list[bytes]]] = {
            Command.NONE: lambda request: self._one(request, Code.NONE, 0),
            Command.SEND_MEM: self._page,
            Command.EXIT: self._exit,
            Command.REBOOT: self._reboot,
            Command.HELLO: lambda request: self._one(request, Code.HELLO, 4, b"netpoll netdump"),
            Command.GET_NR_PAGES: lambda request: self._one(request, Code.NR_PAGES, memory.count, b"pages"),
            Command.GET_PAGE_SIZE: lambda request: self._one(request, Code.PAGE_SIZE, PAGE, b"bytes a page"),
            Command.GET_REGS: lambda request: self._one(
                request, Code.REGS, memory.ram, b"registers\n" + memory.registers
            ),
            Command.SHOW_STATE: self._show_state,
        }

    starved = False
    port: int | None = None  # where datagrams go: the one that the server was configured with

    @property
    def ended(self) -> bool:
        """Nothing more will be sent."""
        return self.state in (State.DONE, State.FAILED)

    @property
    def done(self) -> bool:
        """The server has all that it wanted."""
        return self.state is State.DONE

    @property
    def total(self) -> int:
        """Bytes of RAM."""
        return self.memory.ram * PAGE

    @property
    def resent(self) -> int:
        """Nothing is sent again but on request."""
        return 0

    def receive(self, datagram: bytes, _port: int, now: float) -> None:
        """One datagram from the server. Never raises, whatever the bytes."""
        try:
            request = parse_request(datagram)
        except WireError:
            self.counts["unreadable"] += 1
            return
        if self._magic and request.magic != self._magic and request.command != Command.START_NETDUMP_ACK:
            self.counts["forged"] += 1
        elif self.state is State.HANDSHAKE:
            self._handshake(request, now)
        elif len(self._queue) < QUEUE:
            self._heard = now
            self._queue.append(request)
        else:
            self.counts["overrun"] += 1

    def _handshake(self, request: Request, now: float) -> None:
        if request.command != Command.START_NETDUMP_ACK:
            self._again = True
            return
        self._version = min(request.first, START_MAX) if request.first in range(VERSIONS[0], 256) else VERSIONS[0]
        self._heard, self.state = now, State.ANSWERING

    def poll(self, now: float) -> list[bytes]:
        """The datagrams to send now."""
        if self.ended:
            return []
        if self._heard is None:
            self._heard = now
        if now - self._heard > self.tuning.patience:
            self.state, self.why = State.FAILED, f"no word from the server for {self.tuning.patience:g} s"
            return []
        out = []
        if self._again or now >= self._start_due():
            self._started, self._again = now, False
            self.counts["starts"] += 1
            out.append(emit_reply(Reply(VERSIONS[0], EM_X86_64, Code.START_NETDUMP, START_MAX, self._start)))
        for _ in range(min(BATCH, len(self._queue))):
            out += self._answer(self._queue.popleft())
        return out

    def wait(self, now: float) -> float:
        """Seconds until poll() has something to do, if nothing is received before."""
        return 0.0 if self._queue or self._again else max(0.0, self._start_due() - now)

    def _start_due(self) -> float:
        if self.state is State.HANDSHAKE or self._heard is None:
            return self._started + START_EVERY
        return max(self._heard + self.tuning.silence, self._started + START_EVERY)

    def _answer(self, request: Request) -> list[bytes]:
        self.counts["requests"] += 1
        answer = self._answers.get(request.command)
        if answer is None:
            return self._one(request, Code.ERROR, request.command, b"no such command")
        return answer(request)

    def _one(self, request: Request, code: Code, info: int, payload: bytes = b"") -> list[bytes]:
        return [emit_reply(Reply(self._version, request.nr, code, info & 0xFFFFFFFF, payload))]

    def _page(self, request: Request) -> list[bytes]:
        """MEM in pieces of 1024 bytes; RESERVED; or ERROR beyond the last."""
        number = request.first
        page = self._notes(number - self.memory.count) if number >= self.memory.count else self.memory.read(number)
        if page is None and number >= self.memory.count:
            return self._one(request, Code.ERROR, 0, b"no such page")
        if page is None:
            return self._one(request, Code.RESERVED, self.memory.next_ram(number))
        self.sent += PAGE
        pack, version, nr = REPLY.pack, self._version, request.nr
        return [pack(version, nr, Code.MEM, at) + page[at : at + CHUNK] for at in range(0, PAGE, CHUNK)]

    def _notes(self, number: int) -> bytes | None:
        at = number * PAGE
        return self.memory.notes[at : at + PAGE].ljust(PAGE, b"\0") if at < len(self.memory.notes) else None

    def _show_state(self, request: Request) -> list[bytes]:
        out = self._one(request, Code.SHOW_STATE, 0)
        for at in range(0, len(self._show), MAX_LOG):
            text = self._show[at : at + MAX_LOG]
            out.append(emit_reply(Reply(VERSIONS[0], 0, Code.LOG, self._logged, text)))
            self._logged += len(text)
        return out

    def _exit(self, _request: Request) -> list[bytes]:
        self.state = State.DONE
        return [emit_reply(Reply(self._version, 0, Code.END_NETDUMP, 0))]

    def _reboot(self, _request: Request) -> list[bytes]:
        self.state, self.reboot = State.DONE, True
        return []
