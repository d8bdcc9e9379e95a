"""The collector's end of Red Hat netdump: who is there, and one `Pull` for each.

In: datagrams with their senders, the time. Out: a Pull, which asks for pages. The one rule: a machine is only spoken to after its
START, and what it printed before (LOG) is kept, so much and no more, until it dumps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from guest.netpoll.clients.dump.sink import Store
from guest.netpoll.clients.netdump.pull import ENDED, Pull, Stage, Wanted
from guest.netpoll.clients.netdump.wire import Code, Reply, parse_reply, parse_start
from guest.netpoll.wire import WireError

MOST_TALKERS, MOST_TALK = 64, 1 << 16  # machines whose LOG is kept, bytes of each


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    size: int = 1 << 36
    dumps: int = 16  # at a time; netdump-server has 4, and reboots who comes after
    idle: float = 600.0
    linger: float = 60.0
    reborn: float = 3.0  # so long without an answer, a machine without a name that says START is a new one


class Server:
    """`pulls` by (the machine's address, its port). `magic`: what a START must have told, None for anything."""

    def __init__(
        self, store: Store, say: Callable[[str], None], limits: Limits | None = None, *, magic: int | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.pulls: dict[tuple[str, int], Pull] = {}
        self.counts: Counter[str] = Counter()
        self._store, self._say, self._magic = store, say, magic
        self._talk: dict[str, bytearray] = {}
        self._finished = 0

    def receive(self, peer: str, port: int, datagram: bytes, now: float) -> Pull | None:
        """The Pull that a datagram is about, None if it is about none."""
        pull = self.pulls.get((peer, port))
        try:
            reply = parse_reply(datagram)
            if reply.code == Code.LOG:
                self._log(peer, reply, now)
                return None
            if reply.code == Code.START_NETDUMP:
                return self._start(peer, port, pull, reply, now)
        except WireError as error:
            self.note(peer, str(error))
            return None
        if pull is None:
            self.note(peer, "of a machine that does not dump")
            return None
        pull.reply(reply, now)
        return pull

    def note(self, peer: str, what: str) -> None:
        """Count, and say it the first time."""
        if not self.counts[what]:
            self._say(f"{peer}: a datagram {what} (said once, counted from here on)")
        self.counts[what] += 1

    def _log(self, peer: str, reply: Reply, now: float) -> None:
        pull = next((pull for (address, _), pull in self.pulls.items() if address == peer), None)
        if pull is not None and pull.log(reply.info, reply.payload, now):
            return
        talk = self._talk.setdefault(peer, bytearray()) if len(self._talk) < MOST_TALKERS else self._talk.get(peer)
        if talk is None:
            self.note(peer, "of LOG that found no room")
            return
        talk += reply.payload
        del talk[:-MOST_TALK]

    def _start(self, peer: str, port: int, pull: Pull | None, reply: Reply, now: float) -> Pull | None:
        items = parse_start(reply.payload)
        if self._magic is not None and items.get("netdump_magic") != self._magic:
            raise WireError("of START with another magic")
        if pull is not None and not self._reborn(pull, items, now):
            pull.started(now)
            return pull
        if pull is not None:
            self._drop((peer, port), "the machine has started anew")
        if sum(pull.stage not in ENDED for pull in self.pulls.values()) >= self.limits.dumps:
            raise WireError("that found no room: too many dumps at a time")
        wanted = Wanted(peer, reply.nr, items, self.limits.size, bytes(self._talk.pop(peer, b"")))
        pull = self.pulls[peer, port] = Pull(self._store, wanted, self.note, now)
        self._say(f"{peer}: a netdump is announced")
        return pull

    def _reborn(self, pull: Pull, items: dict[str, int], now: float) -> bool:
        """Another dump of the same machine."""
        if pull.stage is Stage.WAITING:
            return pull.wanted.items != items
        if items.get("name") or pull.wanted.items.get("name"):
            return items.get("name") != pull.wanted.items.get("name")
        return now - pull.heard > self.limits.reborn

    @property
    def finished(self) -> int:
        """Complete dumps so far."""
        return self._finished + sum(pull.stage is Stage.COMPLETE for pull in self.pulls.values())

    def tick(self, now: float) -> None:
        """Give up on who has been silent for too long. About every second."""
        for key, pull in list(self.pulls.items()):
            patience = self.limits.linger if pull.stage in ENDED else self.limits.idle
            if now - pull.heard > patience:
                self._drop(key, "the machine is silent")

    def _drop(self, key: tuple[str, int], why: str) -> None:
        pull = self.pulls.pop(key)
        self._finished += pull.stage is Stage.COMPLETE
        pull.end(why)

    def close(self, why: str) -> None:
        """Every dump under way stays on the disk, incomplete."""
        for key in list(self.pulls):
            self._drop(key, why)
